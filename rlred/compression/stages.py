"""The stages of compression with their artefacts on disk: what is there is not made again.

traces.jsonl              the model's own correct chains of thought; beside it all of them, traces.completions.jsonl
scores.<scorer>.jsonl     a header, then the scores of a few texts a line, appended as they come
rows.<scorer>.jsonl       what is trained on; beside it what was reached, rows.<scorer>.json
"""

import json
import os
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm.auto import tqdm

from rlred.compression.cut import Scores
from rlred.compression.rows import Keep
from rlred.compression.scores import Scorer
from rlred.compression.spool import Spool
from rlred.data import table_files
from rlred.data.golds import one_of
from rlred.evaluation.sampling import SHARD, Share
from rlred.evaluation.sweep import header_of
from rlred.files import mended_length, whole_lines, write_json, write_lines, write_text

CHUNK = 64  # texts between two saves
OTHERS = "holds scores of other texts or by another scorer; name another file, or move it away"


def read_lines(path: Path, needed: Sequence[str], at_least: int | None = None) -> Sequence[dict]:
    """Rows of a JSONL file; from `at_least` bytes on they are read as they are asked for.

    Raises `ValueError` where there is no such file, no row, or a column is missing.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    rows = None if at_least is None else table_files.read_lines(path, at_least)
    rows = table_files.read_rows(path) if rows is None else rows
    counts = Counter(name for row in rows for name in row)
    missing = [name for name in needed if counts[name] < len(rows) or not rows]
    if missing:
        raise ValueError(f"{path}: every row needs {missing[0]!r}; there are {', '.join(counts) or 'no rows'}")
    return rows


def traces_stage(path: Path, make: Callable[[], tuple[list[dict], dict]]) -> list[dict]:
    """The traces of `path`, made (with a report beside them) where they are not there yet."""
    if not path.exists():
        traces, report = make()
        write_json(path.with_suffix(".json"), report)
        write_lines(path, (json.dumps(trace) + "\n" for trace in traces))
    return read_lines(path, ("question", "opening", "thinking", "separator", "answer"))


class Texts(Sequence):
    """What a scorer is told of each trace: thinking, question and answer."""

    def __init__(self, traces: Sequence[dict], start: int = 0, stop: int | None = None):
        self.traces, self.places = traces, range(len(traces))[start:stop]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> list[str]:
        trace = self.traces[self.places[index]]
        return [trace["thinking"], trace.get("asked") or trace["question"], one_of(trace.get("solution"))]


def scores_stage(
    path: Path, traces: Sequence[dict], scorer: Scorer, name: str, share: Share | None = None
) -> "ScoreLines | None":
    """The spans of every trace, each text scored once; an interrupted scoring goes on. None of a `share`.

    A share of many traces is shards of `SHARD`, each in a file of its own; without one, what those hold is taken over
    and the rest is scored. No more than `CHUNK` texts and their scores are in memory. Raises `ValueError` when the file
    was made from other texts or by another scorer.
    """
    shards = range(0, len(traces), SHARD)
    files = [path.with_name(f"{path.stem}-{number:05d}{path.suffix}") for number in range(len(shards))]
    if share is not None:
        for start, file in share.of(list(zip(shards, files, strict=True))):
            _score(file, Texts(traces, start, start + SHARD), scorer, name)
        return None
    _score(path, Texts(traces), scorer, name, files)
    return read_scores(path, traces)


def _score(path: Path, texts: Texts, scorer: Scorer, name: str, files: Sequence[Path] = ()) -> None:
    """Appends to a file what is not scored yet, a line for `CHUNK` texts; lines that a shard's file has are its own."""
    header = header_of({"scorer": name}, texts)
    done = _scored(path, header)
    batch, shards = getattr(scorer, "batch", None), Shards(files, texts, name)
    for start in tqdm(range(CHUNK * done, len(texts), CHUNK), desc=f"scoring: {name}", leave=False):
        line = shards.line(start) if files else None
        if line is None:
            chunk = [texts[number] for number in range(start, min(start + CHUNK, len(texts)))]
            spans = batch([text for text, _, _ in chunk]) if batch else [scorer(*text) for text in chunk]
            line = json.dumps(spans) + "\n"
        with open(path, "a", encoding="utf-8") as file:
            file.write(line)


def _scored(path: Path, header: str) -> int:
    """The lines of scores that a file holds; a new file with its header where there is none."""
    lines = 0
    if path.exists():
        with open(path, encoding="utf-8", errors="replace") as file:
            first = file.readline()
        if first.endswith("\n") and first.rstrip("\n") != header:
            raise ValueError(f"{path} {OTHERS}")
        lines = mended_length(path, lambda value: isinstance(value, dict | list) and len(value) > 0)
    if not lines:
        write_text(path, header + "\n")
    return max(0, lines - 1)


class Shards:
    """The lines of scores that the files of shards have, a shard at a time in memory."""

    def __init__(self, files: Sequence[Path], texts: Texts, name: str):
        self.files, self.texts, self.name = files, texts, name
        self.number, self.lines = None, []

    def line(self, start: int) -> str | None:
        """That of the texts from `start` on; None where it is not there. Raises `ValueError` for one of other texts."""
        number, place = start // SHARD, start % SHARD // CHUNK
        if number != self.number:
            self.number, self.lines = number, self._read(number)
        return self.lines[place] if place < len(self.lines) else None

    def _read(self, number: int) -> list[str]:
        file = self.files[number]
        if not file.exists():
            return []
        first, *lines = whole_lines(file) or [""]
        texts = Texts(self.texts.traces, number * SHARD, (number + 1) * SHARD)
        if first and first != header_of({"scorer": self.name}, texts):
            raise ValueError(f"{file} {OTHERS}")
        return [f"{line}\n" for line in lines]


class ScoreLines(Sequence):
    """The spans of every trace, of a file of scores; a line of them is in memory."""

    def __init__(self, path: Path):
        self.file, self.number = open(path, "rb"), None  # as long as the scores are asked for
        self.starts, self.firsts, start = array("q"), array("q", [0]), len(self.file.readline())
        for line in self.file:
            self.starts.append(start)
            self.firsts.append(self.firsts[-1] + len(json.loads(line)))
            start += len(line)
        self.starts.append(start)

    def __len__(self) -> int:
        return self.firsts[-1]

    def __getitem__(self, index: int) -> Scores:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self.firsts, index) - 1
        if number != self.number:
            start = self.starts[number]
            line = os.pread(self.file.fileno(), self.starts[number + 1] - start, start)
            self.number, self.held = number, json.loads(line)
        return self.held[index - self.firsts[number]]


def read_scores(path: Path, traces: Sequence[dict]) -> ScoreLines:
    """The spans of a finished scoring of these traces. Raises `ValueError` where that is not what the file holds."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        found = ScoreLines(path)
    except (ValueError, TypeError):
        found = []
    if len(found) != len(traces):
        raise ValueError(f"{path} does not hold the scores of these {len(traces)} traces; finish the scoring first")
    return found


def write_rows(path: Path, make: Callable[[Keep], tuple[list[dict], dict]]) -> None:
    """Writes rows and a report of what was reached beside them; until then the rows' texts are on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    spool = Spool(path.parent)
    rows, report = make(spool.row)
    write_json(path.with_suffix(".json"), report)
    write_lines(path, map(spool.line, rows))


def rows_stage(path: Path, make: Callable[[Keep], tuple[list[dict], dict]]) -> list[dict]:
    """The rows of `path`, made (with a report beside them) where they are not there yet."""
    if not path.exists():
        write_rows(path, make)
    return read_lines(path, ("prompt", "completion", "question", "ratio", "achieved"))

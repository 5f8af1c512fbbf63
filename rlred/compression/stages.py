"""The stages of compression with their artefacts on disk: what is there is not made again.

traces.jsonl              the model's own correct chains of thought; beside it all of them, traces.completions.jsonl
scores.<scorer>.jsonl     a header, then the scores of a few texts a line, appended as they come
rows.<scorer>.jsonl       what is trained on; beside it what was reached, rows.<scorer>.json
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm.auto import tqdm

from rlred.compression.cut import Scores
from rlred.compression.scores import Scorer
from rlred.data.golds import one_of
from rlred.data.questions import read_json
from rlred.evaluation.sweep import open_completions
from rlred.files import write_json, write_text

CHUNK = 64  # texts between two saves


def write_lines(path: Path, rows: Sequence[dict]) -> None:
    """Writes rows as JSONL, whole or not at all."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def read_lines(path: Path, needed: Sequence[str]) -> list[dict]:
    """Rows of a JSONL file. Raises `ValueError` where there is no such file, no row, or a column is missing."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    rows, names = read_json(path)
    missing = [name for name in needed if not all(name in row for row in rows)] if rows else list(needed)
    if missing:
        raise ValueError(f"{path}: every row needs {missing[0]!r}; there are {', '.join(names) or 'no rows'}")
    return rows


def traces_stage(path: Path, make: Callable[[], tuple[list[dict], dict]]) -> list[dict]:
    """The traces of `path`, made (with a report beside them) where they are not there yet."""
    if not path.exists():
        traces, report = make()
        write_json(path.with_suffix(".json"), report)
        write_lines(path, traces)
    return read_lines(path, ("question", "opening", "thinking", "separator", "answer"))


def scores_stage(path: Path, traces: Sequence[dict], scorer: Scorer, name: str) -> list[Scores]:
    """The spans of every trace, each text scored once; an interrupted scoring goes on.

    Raises `ValueError` when the file was made from other texts or by another scorer.
    """
    texts = [
        [trace["thinking"], trace.get("asked") or trace["question"], one_of(trace.get("solution"))] for trace in traces
    ]
    found = open_completions(path, {"scorer": name}, texts)
    batch = getattr(scorer, "batch", None)
    for start in tqdm(range(len(found), len(texts), CHUNK), desc=f"scoring: {name}", leave=False):
        chunk = texts[start : start + CHUNK]
        spans = batch([text for text, _, _ in chunk]) if batch else [scorer(*text) for text in chunk]
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(spans) + "\n")
        found += spans
    return found


def read_scores(path: Path, traces: Sequence[dict]) -> list[Scores]:
    """The spans of a finished scoring of these traces. Raises `ValueError` where that is not what the file holds."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        found = [spans for line in lines[1:] for spans in json.loads(line)]
    except json.JSONDecodeError:
        found = []
    if len(found) != len(traces):
        raise ValueError(f"{path} does not hold the scores of these {len(traces)} traces; finish the scoring first")
    return found


def rows_stage(path: Path, make: Callable[[], tuple[list[dict], dict]]) -> list[dict]:
    """The rows of `path`, made (with a report beside them) where they are not there yet."""
    if not path.exists():
        rows, report = make()
        write_json(path.with_suffix(".json"), report)
        write_lines(path, rows)
    return read_lines(path, ("prompt", "completion", "question", "ratio", "achieved"))

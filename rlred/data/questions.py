"""Question rows from anywhere: `question` and `solution`, and a `system` turn where a source has one.

    load_questions("sums", split="test", limit=64)                an embedded task, procedural: rlred.tiny.QUESTIONS
    load_questions("../shared/data/gsm8k/train.jsonl")            a local JSON, JSONL, Parquet or CSV file, also gzipped
    load_questions("agentica-org/DeepScaleR-Preview-Dataset")     a dataset of the Hub
    load_questions(..., limit=1000, streaming=True)               rows of one that is not downloaded

Columns are found by their usual names (case and separators do not count) or named by the caller; a dot goes into an
object: `reward_model.ground_truth`. A question may be a conversation, whose system turn becomes the column `system`. A
solution is the final answer (rlred/data/golds.py): text, or lists of alternatives in every row where one has several.
Options of multiple choice go into the question, and the solution is the letter (rlred/data/choices.py).
"""

import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow
from datasets import Dataset, load_dataset

from rlred.data.choices import (
    KEY_COLUMNS,
    Option,
    letter_of,
    match_columns,
    number_of,
    numbering_of,
    option_columns,
    options_of,
    plain,
    question_with,
)
from rlred.data.golds import clean, from_json_text, is_missing, is_prose, solution_of, value_at, worked_answer
from rlred.data.question_table import BLOCK, Blocks, parse_block
from rlred.data.table_files import ParquetRows, check_file, kind_of, names_of, read_lines, read_rows
from rlred.tiny import QUESTIONS

logger = logging.getLogger(__name__)

CONVERSATIONS = ("messages", "conversations", "conversation")
QUESTION_COLUMNS = ("question", "problem", "query", "prompt", "instruction", "question_stem")
OTHER_QUESTIONS = (*CONVERSATIONS, "input", "inputs")  # of training data; elsewhere these hold other things
CONTEXTS = ("context", "passage", "article", "body")  # text without which the question cannot be answered
# Kept as they are, where a source has them.
CARRIED = ("level", "reference_length", "reference_accuracy", "reference_correct_lengths")
# The short form before the worked one, and what is surely the reference before what may be.
SOLUTION_COLUMNS = (
    ("expected_answer", "reward_model.ground_truth", "ground_truth", "reference_answer", "final_answer", "gold_answer")
    + ("correct_answer", "answer", "answers", "gold", "target", "targets", "solution")
)  # fmt: skip
WORKED = ("solution", "output")  # taken for an answer, beside another column, only where they say what it is
ROLES = {"system": "system", "developer": "system", "user": "user", "human": "user"} | dict.fromkeys(
    ("assistant", "gpt", "model", "chatgpt", "bot"), "assistant"
)


class Asked(NamedTuple):
    """What a field asks: the question (empty where there is none), the system turn, the answer that follows."""

    question: str
    system: str | None = None
    answer: str | None = None
    problem: str = "without a question"


def asked_in(value: object) -> Asked:
    """A question from text, from a conversation (also as JSON text) or from an object with a text.

    >>> asked_in([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1=?"}])[:2]
    ('1+1=?', 'Be brief.')
    >>> asked_in([{"from": "human", "value": "1+1=?"}, {"from": "gpt", "value": "#### 2"}]).answer
    '#### 2'
    """
    value = from_json_text(value)
    if isinstance(value, dict):
        inner = next((value[name] for name in (*CONVERSATIONS, "stem", "text", "question") if value.get(name)), None)
        return Asked("") if inner is None or isinstance(inner, dict) else asked_in(inner)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        value = value[0]
    if isinstance(value, str):
        return Asked(clean(value).strip())
    if isinstance(value, int | float) and not isinstance(value, bool) and not is_missing(value):
        return Asked(str(value))
    if not isinstance(value, list) or not value or not all(isinstance(turn, dict) for turn in value):
        return Asked("")
    said: dict[str, list[str]] = {"system": [], "user": [], "assistant": []}
    for turn in value:
        role = ROLES.get(str(turn.get("role") or turn.get("from")).lower())
        text = _text_of(turn.get("content") if turn.get("content") is not None else turn.get("value"))
        if role is None or text is None:
            return Asked("", problem="whose conversation has tools, pictures or unknown roles")
        said[role].append(clean(text).strip())
    if len(said["user"]) > 1:
        return Asked("", problem="with several user turns (one question is asked at a time)")
    last = said["assistant"][-1] if said["assistant"] else None
    return Asked("".join(said["user"]), "\n\n".join(filter(None, said["system"])) or None, last)


def _text_of(content: object) -> str | None:
    if isinstance(content, list):  # parts
        texts = [part.get("text") if isinstance(part, dict) else part for part in content]
        return "\n".join(texts) if all(isinstance(text, str) for text in texts) else None
    return "" if content is None else content if isinstance(content, str) else None


@dataclass(frozen=True)
class Layout:
    """Where a source keeps what a row needs."""

    question: str
    before: tuple[str, ...]  # columns whose text belongs to the question: before it
    after: tuple[str, ...]  # and after it
    golds: tuple[str, ...]  # the first that holds something counts
    worked: tuple[str, ...]  # asked where those hold nothing, or only an explanation
    options: tuple[str, ...]
    key: str | None = None  # with options: the column that marks the correct one
    numbering: int | None = None  # and what its numbers count from

    def columns(self, names: Sequence[str]) -> list[str]:
        """The source's columns that are read at all."""
        used = (self.question, *self.before, *self.after, *self.golds, *self.worked, *self.options, self.key or "")
        roots = {name if name in names else name.split(".")[0] for name in used}
        roots |= {name for name in names if name in (*CARRIED, "system", "is_multiple_answer")}
        return [name for name in names if name in roots]

    def options_in(self, row: dict) -> list[Option] | None:
        if len(self.options) == 1:
            return options_of(value_at(row, self.options[0]))
        return options_of([row.get(name) for name in self.options])

    def asked(self, row: dict) -> Asked:
        found = asked_in(value_at(row, self.question))
        before, after = ([row[c].strip() for c in names if _is_text(row.get(c))] for names in (self.before, self.after))
        before = [text for text in before if text not in found.question]
        question = "\n\n".join(filter(None, [*before, found.question, *after])) if found.question or after else ""
        system = row.get("system") if found.system is None and _is_text(row.get("system")) else found.system
        return found._replace(question=clean(question), system=system)

    def solution(self, row: dict, answer: str | None) -> str | list[str] | None:
        """The final answer; `answer` is what a conversation ends with."""
        several = row.get("is_multiple_answer") is True
        for name in self.golds:
            value = value_at(row, name)
            if not is_missing(value):
                found = solution_of(value, all_needed=several)
                if found is not None or not (isinstance(value, str) and is_prose(value)):
                    return found
        for text in (*(value_at(row, name) for name in self.worked), answer):
            texts = [text] if isinstance(text, str) else text if isinstance(text, list) else []
            for found in (worked_answer(one) for one in texts if isinstance(one, str)):
                if found is not None:
                    return solution_of(found)
        return None


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def layout_of(
    raw: Sequence[dict], names: Sequence[str], source: str, question: str | None, solution: str | None
) -> Layout:
    """The layout of a source; `question` and `solution` are columns that the caller names. Raises `ValueError`."""
    names = [*names, *_inner_names(raw, names)]
    asked = find_column(names, question, (*QUESTION_COLUMNS, *OTHER_QUESTIONS), source, "question_column")
    before, after = [], []
    if question is None:
        before = match_columns(names, CONTEXTS)
        if plain(asked) in ("instruction", "prompt"):
            after = match_columns(names, ("input",))
    options = option_columns(names, source, solution)
    golds = [solution] if solution else match_columns(names, SOLUTION_COLUMNS)
    worked = [] if solution else match_columns(names, WORKED)
    golds = [name for name in golds if name not in worked] or worked[:1] or golds
    worked = [name for name in worked if name not in golds]
    ends = any(asked_in(value_at(row, asked)).answer is not None for row in _first(raw, 10))
    if (solution or not golds and not ends) and not options:
        find_column(names, solution, SOLUTION_COLUMNS, source, "solution_column")
    layout = Layout(asked, tuple(before), tuple(after), tuple(golds), tuple(worked), tuple(options))
    return _with_key(raw, names, source, layout, solution) if options else layout


def _with_key(raw: Sequence[dict], names: Sequence[str], source: str, layout: Layout, named: str | None) -> Layout:
    keys = [find_column(names, named, (), source, "solution_column")] if named else match_columns(names, KEY_COLUMNS)
    keys = [key for key in keys if key not in layout.options]
    if not keys:
        raise ValueError(
            f"{source}: column {layout.options[0]!r} holds options, and no column says which is correct; name it with "
            f"solution_column (there are {', '.join(names)})"
        )
    needed = Layout(keys[0], (), (), tuple(keys), (), layout.options).columns(names)
    rows = [(index, row, layout.options_in(row)) for index, row in enumerate(_rows(raw, range(len(raw)), needed))]
    key = next((key for key in keys if any(not is_missing(value_at(row, key)) for _, row, _ in rows)), keys[0])
    numbers = [
        (index, number, options)
        for index, row, options in rows
        if options and (number := number_of(value_at(row, key))) is not None and number >= 0  # -1: no gold
        and str(number) not in {option.label for option in options}
    ]  # fmt: skip
    return Layout(**{**vars(layout), "key": key, "numbering": numbering_of(numbers, key, source)})


def load_questions(
    source: str,
    *,
    split: str = "train",
    config: str | None = None,
    question_column: str | None = None,
    solution_column: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    streaming: bool = False,
) -> Dataset:
    """Question rows from the embedded task, a local file or the Hub; columns `question_id`, `question`, `solution`.

    `system`, `level` and the columns of `rlred reference` are carried along where a source has them. `solution` is
    text; where one row has several alternatives, it is a list of them in every row.

    `limit` takes that many rows: the first ones of a seeded shuffle, so that a small sample of a sorted file is still a
    fair one. Rows without a question, or whose solution has no final answer to compare with, are skipped; how many,
    and the first of them, is logged. Raises `ValueError` for a file that cannot be read, a missing column, options
    without a mark of the correct one, or when no row is left.

    With `streaming`, a dataset of the Hub or a folder of files is not downloaded: `limit` rows are read as they come,
    shuffled through a buffer, and those of them that are usable are the questions.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"the number of questions must be 1 or more, got {limit}")
    if streaming and (limit is None or source in QUESTIONS or kind_of(Path(source)) is not None):
        raise ValueError(
            f"streaming: is for so many (num_questions) rows of a Hub dataset or of a folder of files; got {source!r} "
            f"and {limit} questions"
        )
    if source in QUESTIONS:
        if split not in ("train", "test"):
            raise ValueError(f"the embedded task {source!r} has the splits 'train' and 'test', got {split!r}")
        return _numbered(QUESTIONS[source](limit or 4096, split, seed))
    if streaming:
        raw, names = stream(source, split, config, limit, seed)
    else:
        raw, names = read_source(source, split, config, in_order=limit is None)
    if not len(raw):
        raise ValueError(f"{source}: has no rows (split {split!r})")
    layout = layout_of(raw, names, source, question_column, solution_column)
    columns, skipped, blocks = layout.columns(names), {}, Blocks()
    order: Sequence[int] = range(len(raw))
    if limit is not None:
        random.Random(seed).shuffle(order := list(order))
    carried = [name for name in CARRIED if name in columns]
    for places, block in _blocks(raw, order, columns, BLOCK if limit is None else min(BLOCK, 2 * limit)):
        most = None if limit is None else limit - blocks.rows
        found, left_out, count = parse_block(block, layout, carried, _question_row, most)
        for reason, own in left_out.items():
            skipped.setdefault(reason, []).extend(places[place] for place in own)
        if count:
            blocks.add(found)
        if blocks.rows == limit:
            break
    for reason, indices in skipped.items():
        said = f"{source}: skipped {len(indices)} of {len(raw)} rows {reason}; the first is row {min(indices) + 1}"
        logger.warning("%s", said)
    if not blocks.rows:
        raise ValueError(
            f"{source}: no usable question in split {split!r}: {len(raw)} rows, of which "
            + " and ".join(f"{len(indices)} {reason}" for reason, indices in skipped.items())
            + f" (question from {layout.question!r}, final answer from {_golds_in_words(layout)}); "
            "question_column and solution_column name others"
        )
    return blocks.dataset()


def _blocks(
    raw: Sequence[dict], order: Sequence[int], columns: list[str], size: int
) -> Iterator[tuple[Sequence[int], pyarrow.Table | list[dict]]]:
    """Blocks of rows in an order, with their places; of a table on the disk only these columns are read."""
    if isinstance(raw, ParquetRows):
        selected = raw.blocks(columns, size)
    elif isinstance(raw, Dataset):
        selected = raw.select_columns(columns)
        selected = (selected if isinstance(order, range) else selected.select(order)).with_format("arrow").iter(size)
    tables = isinstance(raw, ParquetRows | Dataset)
    for start in range(0, len(order), size):
        places = order[start : start + size]
        yield places, next(selected) if tables else [raw[place] for place in places]


def _question_row(row: dict, layout: Layout) -> dict | str:
    """The row, or why it is skipped."""
    asked = layout.asked(row)
    if not asked.question:
        return asked.problem
    question = asked.question
    options = layout.options_in(row) if layout.options else []
    if options is None:
        return f"whose options ({', '.join(map(repr, layout.options))}) cannot be read"
    if options:
        gold = value_at(row, layout.key)
        solution = letter_of(gold, options, layout.numbering)
        if solution is None:
            return "without a final answer" if is_missing(gold) else f"whose {layout.key!r} is none of the options"
        question = question_with(question, options)
    else:
        solution = layout.solution(row, asked.answer)
        if solution is None:
            return "without a final answer"
    carried = {name: row.get(name) for name in CARRIED}
    return {"question": question, "solution": solution, "system": asked.system, **carried}


def _golds_in_words(layout: Layout) -> str:
    found = (layout.key,) if layout.key else (*layout.golds, *layout.worked)
    return ", ".join(map(repr, found)) or "the last turn"


def _inner_names(raw: Sequence[dict], names: Sequence[str]) -> list[str]:
    """The fields of objects, with dots, as the first rows have them."""
    found = [(name, from_json_text(row.get(name))) for row in _first(raw, 10) for name in names]
    return list(dict.fromkeys(f"{name}.{key}" for name, value in found if isinstance(value, dict) for key in value))


def _first(raw: Sequence[dict], n: int) -> Iterator[dict]:
    return (raw[index] for index in range(min(n, len(raw))))


def _rows(raw: Sequence[dict], order: Sequence[int], columns: list[str]) -> Iterator[dict]:
    """The rows in an order; of a table on the disk only these columns are read."""
    if not isinstance(raw, Dataset):
        return (raw[index] for index in order)
    return iter(raw.select_columns(columns).select(order))


def _numbered(rows: list[dict]) -> Dataset:
    return Dataset.from_list([{"question_id": index, **row} for index, row in enumerate(rows)])


def find_column(names: Sequence[str], named: str | None, usual: Sequence[str], source: str, argument: str) -> str:
    """The column that the caller names (with dots, inside one), or the first with a usual name. Raises `ValueError`."""
    if named is not None:
        if named not in names and named.split(".")[0] not in names:
            raise ValueError(f"{source}: {argument}={named!r} is not a column; there are {', '.join(names)}")
        return named
    if found := match_columns(names, usual):
        return found[0]
    raise ValueError(
        f"{source}: no column is called {', '.join(usual)}; name it with {argument} (there are {', '.join(names)})"
    )


def read_source(
    source: str, split: str, config: str | None, in_order: bool = False
) -> tuple[Sequence[dict], list[str]]:
    """All rows, by index, and the names of their columns; `in_order` says that they will be read from first to last."""
    path = Path(source)
    if kind_of(path) is None and not path.exists():
        dataset = _loaded(source, split, config)
        return dataset, dataset.column_names
    if check_file(path) == "parquet" and path.suffix.lower() == ".parquet":
        if in_order:
            return (rows := ParquetRows(path)), rows.names
        try:
            # Not load_dataset: it reports each load to a server, and waits for one that cannot be reached.
            dataset = Dataset.from_parquet(str(path))  # stays on the disk
        except Exception as error:  # datasets wraps its readers' errors in many types
            reason = str(error.__cause__ or error).strip().splitlines()[0]
            raise ValueError(f"{source}: cannot be read as parquet: {reason}") from error
        return dataset, dataset.column_names
    if (lines := read_lines(path)) is not None:
        return lines, lines.names
    rows = read_rows(path, split)
    return rows, names_of(rows)


def stream(source: str, split: str, config: str | None, limit: int, seed: int) -> tuple[list[dict], list[str]]:
    """`limit` rows of a dataset that is not downloaded, and the names of its columns; the same ones for a seed.

    The order of its files is shuffled, and so are the rows, through a buffer of 10,000.
    """
    raw = list(_loaded(source, split, config, streaming=True).shuffle(seed, buffer_size=BLOCK).take(limit))
    return raw, names_of(raw)


def _loaded(source: str, split: str, config: str | None, **settings):
    try:
        return load_dataset(source, config, split=split, **settings)
    except Exception as error:  # whatever the Hub, the network or a loading script raises
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{source}: neither a local file nor a dataset that can be loaded (split {split!r}): {reason}"
        ) from error


def read_json(path: Path) -> tuple[list[dict], list[str]]:
    """The rows of a JSON file and the names of their columns."""
    rows = read_rows(path)
    return rows, names_of(rows)

"""Question rows from anywhere: `question` and `solution`, both text.

    load_questions("sums", split="test", limit=64)                the embedded task, procedural; or "long_sums"
    load_questions("../shared/data/gsm8k/train.jsonl")            a local JSON, JSONL, Parquet or CSV file
    load_questions("agentica-org/DeepScaleR-Preview-Dataset")     a dataset of the Hub

Columns are found by their usual names or named by the caller. A solution is the final answer: what follows `####`
(GSM8K), the last `\\boxed{}` (MATH), or the text as it stands (DeepScaleR's `answer`).
"""

import json
import logging
import random
from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset, load_dataset

from rlred.rewards.correctness import last_boxed
from rlred.rewards.grader import MAX_CHARACTERS, normalise
from rlred.tiny import sums

logger = logging.getLogger(__name__)

FORMATS = {".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv"}
QUESTION_COLUMNS = ("question", "problem", "query", "prompt", "instruction")
CARRIED = ("level", "reference_length", "reference_accuracy")  # kept as they are, where a source has them
SOLUTION_COLUMNS = ("answer", "final_answer", "solution", "gold", "target")  # the short form before the worked one


def solution_of(value: object) -> str | None:
    r"""The final answer in a gold field; None where there is none to compare with.

    >>> solution_of("6 * 3 = <<6*3=18>>18\n#### 18"), solution_of("It is $\\boxed{\\frac{1}{2}}$."), solution_of(142.0)
    ('18', '\\frac{1}{2}', '142')
    >>> solution_of(["12"]), solution_of(""), solution_of(None)
    ('12', None, None)
    """
    if isinstance(value, list | tuple):
        value = ", ".join(str(item) for item in value) if value else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or isinstance(value, bool | dict):
        return None
    text = str(value)
    if "####" in text:
        text = text.rpartition("####")[2]
    elif "\\boxed" in text:
        text = last_boxed(text) or ""
    text = text.strip()
    return text if normalise(text) and len(text) <= MAX_CHARACTERS else None


def load_questions(
    source: str,
    *,
    split: str = "train",
    config: str | None = None,
    question_column: str | None = None,
    solution_column: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Question rows from the embedded task, a local file or the Hub; columns `question`, `solution`, `question_id`.

    `level` and the columns of `rlred reference` are carried along where a source has them.

    `limit` takes that many rows: the first ones of a seeded shuffle, so that a small sample of a sorted file is still a
    fair one. Rows without a question, or whose solution has no final answer to compare with, are skipped; how many is
    logged. Raises `ValueError` for a file that cannot be read, a missing column, or when no row is left.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"the number of questions must be 1 or more, got {limit}")
    if source in sums.FAMILIES:
        if split not in ("train", "test"):
            raise ValueError(f"the embedded task {source!r} has the splits 'train' and 'test', got {split!r}")
        return _numbered(sums.questions(limit or 4096, split, seed, family=source))
    raw, names = read_source(source, split, config)
    question_name = find_column(names, question_column, QUESTION_COLUMNS, source, "question_column")
    solution_name = find_column(names, solution_column, SOLUTION_COLUMNS, source, "solution_column")
    order = list(range(len(raw)))
    if limit is not None:
        random.Random(seed).shuffle(order)
    rows: list[dict] = []
    skipped = {"without a question": 0, "without a final answer": 0}
    for index in order:
        if limit is not None and len(rows) == limit:
            break
        question, gold = raw[index].get(question_name), raw[index].get(solution_name)
        if not isinstance(question, str) or not question.strip():
            skipped["without a question"] += 1
            continue
        solution = solution_of(gold)
        if solution is None:
            skipped["without a final answer"] += 1
            continue
        carried = {name: raw[index].get(name) for name in CARRIED if name in names}
        rows.append({"question": question.strip(), "solution": solution, **carried})
    for reason, count in skipped.items():
        if count:
            logger.warning("%s: skipped %d of %d rows %s", source, count, len(raw), reason)
    if not rows:
        raise ValueError(
            f"{source}: no usable question in split {split!r}: {len(raw)} rows, of which "
            + " and ".join(f"{count} {reason}" for reason, count in skipped.items())
            + f" (columns {question_name!r} and {solution_name!r})"
        )
    return _numbered(rows)


def _numbered(rows: list[dict]) -> Dataset:
    return Dataset.from_list([{"question_id": index, **row} for index, row in enumerate(rows)])


def find_column(names: Sequence[str], named: str | None, usual: Sequence[str], source: str, argument: str) -> str:
    if named is not None:
        if named not in names:
            raise ValueError(f"{source}: {argument}={named!r} is not a column; there are {', '.join(names)}")
        return named
    for name in usual:
        if name in names:
            return name
    raise ValueError(
        f"{source}: no column is called {', '.join(usual)}; name it with {argument} (there are {', '.join(names)})"
    )


def read_source(source: str, split: str, config: str | None) -> tuple[Sequence[dict], list[str]]:
    """All rows, by index, and the names of their columns."""
    path = Path(source)
    kind = FORMATS.get(path.suffix.lower())
    if kind is None and not path.exists():
        try:
            dataset = load_dataset(source, config, split=split)
        except Exception as error:  # whatever the Hub, the network or a loading script raises
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f"{source}: neither a local file nor a dataset that can be loaded (split {split!r}): {reason}"
            ) from error
        return dataset, dataset.column_names
    if not path.is_file():
        raise ValueError(f"{source}: no such file")
    if kind is None:
        raise ValueError(f"{source}: unknown kind of file; use one of {', '.join(FORMATS)}")
    if path.stat().st_size == 0:
        raise ValueError(f"{source}: the file is empty")
    if kind == "json":
        return read_json(path)
    try:
        # Not load_dataset: it reports each load to a server, and waits for one that cannot be reached.
        dataset = {"csv": Dataset.from_csv, "parquet": Dataset.from_parquet}[kind](str(path))
    except Exception as error:  # datasets wraps its readers' errors in many types
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ValueError(f"{source}: cannot be read as {kind}: {reason}") from error
    return dataset, dataset.column_names


def read_json(path: Path) -> tuple[list[dict], list[str]]:
    """A JSON array of objects, or one object per line; a column may mix types, as those of published files do."""
    try:
        text = path.read_text(encoding="utf-8")
        if text.lstrip().startswith("["):
            rows = json.loads(text)
        else:
            # Not splitlines(): U+2028 and its kind may stand inside a JSON string.
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read as JSON: {error}") from None
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: every row must be a JSON object")
    return rows, list(dict.fromkeys(name for row in rows for name in row))

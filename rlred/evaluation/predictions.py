r"""Saved predictions: outcomes from a file of completions that rlred did not generate.

A file holds one JSON object per line (or an array of them). Each column has its usual names, or is named by the caller:

    completion   the text that was generated           length     its tokens, counted by whoever made the file
    question     what was asked                        solution   the gold answer, in any form that questions.py reads
    budget       tokens asked for                      ratio      share of the unasked length, as TokenSkip's
    mode         exact, max or none                    correct    the file's own grade, to compare with ours
    prediction   the answer that its own program read from the completion

Only a length (or a completion and a tokenizer to count it with) is needed; what is absent is not measured. A column may
hold several samples of one question in a list.
"""

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from rlred.budgets import MODES, check_budget
from rlred.evaluation.measures import measure
from rlred.evaluation.report import STAGES
from rlred.questions import QUESTION_COLUMNS, SOLUTION_COLUMNS, read_json, solution_of
from rlred.rewards import Correctness
from rlred.rewards.correctness import last_boxed

logger = logging.getLogger(__name__)

COLUMNS = {
    "completion": ("completion", "model_output", "output", "response", "generation", "generated_text", "code"),
    "prediction": ("prediction", "pred", "predicted_answer", "extracted_answer"),
    "length": ("length", "num_tokens", "completion_tokens", "cot_length", "output_tokens", "token_count"),
    "question": (*QUESTION_COLUMNS, "messages", "input"),
    "solution": ("gt", *SOLUTION_COLUMNS),
    "budget": ("budget", "num_tokens_asked", "token_budget"),
    "ratio": ("ratio", "compression_ratio", "gamma"),
    "mode": ("mode",),
    "correct": ("correct", "accuracy", "is_correct", "is_valid", "score"),
}
ANSWER_MARKERS = ("####", "final answer is", "answer is")
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def measure_predictions(
    files: Sequence[Path],
    *,
    ratios: Sequence[float] | None = None,
    budgets: Sequence[int] | None = None,
    **settings,
) -> dict:
    """The report of files of predictions, measured together; `ratios` and `budgets` have one value per file.

    `settings` are those of `load_predictions`, for all files. Raises `ValueError` as that does, and for counts that do
    not fit.
    """
    for name, values in (("ratios", ratios), ("prediction_budgets", budgets)):
        if values is not None and len(values) != len(files):
            raise ValueError(f"--{name}: {len(values)} values for {len(files)} files; give one per file")
    outcomes, notes = [], []
    for number, file in enumerate(files):
        found, note = load_predictions(
            file,
            budget=budgets[number] if budgets else None,
            ratio=ratios[number] if ratios else None,
            **settings,
        )
        outcomes += found
        notes.append(note)
    ids: dict[str, int] = {}
    outcomes = [{**o, "question_id": ids.setdefault(o["question"], len(ids))} for o in budgets_of_ratios(outcomes)]
    return {
        "model": ", ".join(map(str, files)),
        "adapter": None,
        "seed": None,
        "n_questions": len(ids),
        "temperature": None,
        **dict.fromkeys(STAGES),
        "predictions": measure(outcomes),
        "files": notes,
    }


def load_predictions(
    path: Path,
    *,
    columns: dict[str, str] | None = None,
    budget: int | None = None,
    ratio: float | None = None,
    mode: str = "exact",
    count: Callable[[str], int] | None = None,
    correctness: Correctness | None = None,
) -> tuple[list[dict], dict]:
    """Outcomes of a file of predictions, and a note of what was found (`n`, `skipped`, `recorded_accuracy`, ...).

    `columns` maps the names above to the file's; `budget` and `ratio` hold for a whole file that has no such column;
    `count` gives the tokens of a text where the file has no length. Lines whose length cannot be known are skipped and
    counted. Raises `ValueError` for a file that cannot be read, an unknown column, or when nothing is left.
    """
    if budget is not None and ratio is not None:
        raise ValueError("a budget and a ratio are two ways to say the same; give one of them")
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file")
    raw, names = read_json(Path(path))
    found = find_columns(names, columns or {}, str(path))
    if "length" not in found and ("completion" not in found or count is None):
        raise ValueError(
            f"{path}: no column holds a token count ({', '.join(COLUMNS['length'])}); name one with length=..., or "
            "name a tokenizer to count the completions with"
        )
    correctness = correctness or Correctness()
    questions: dict[str, int] = {}
    outcomes, recorded, skipped = [], [], 0
    for index, line in enumerate(raw):
        for values in samples_of({name: line.get(column) for name, column in found.items()}):
            text = values.get("completion")
            length = _length(values.get("length"), text, count)
            if length is None:
                skipped += 1
                continue
            key = question_of(values.get("question"), index)
            outcome = {
                "question_id": questions.setdefault(key, len(questions)),
                "question": key,
                "mode": values.get("mode") or mode,
                "budget": values.get("budget", budget),
                "ratio": values.get("ratio", ratio),
                "length": length,
                "correct": grade(text, values.get("solution"), correctness, values.get("prediction")),
                "truncated": False,
                "completion": text,
            }
            if outcome["budget"] is None and outcome["ratio"] is None and outcome["mode"] in MODES:
                outcome["mode"] = "none"
            if outcome["ratio"] is None:
                check_budget(outcome["budget"], outcome["mode"])
            outcomes.append(outcome)
            if isinstance(values.get("correct"), bool | int | float):
                recorded.append(float(values["correct"]))
    if not outcomes:
        raise ValueError(f"{path}: none of its {len(raw)} lines has a length or a completion to count")
    if skipped:
        logger.warning("%s: skipped %d of %d lines without a length", path, skipped, len(raw))
    graded = [outcome["correct"] for outcome in outcomes if outcome["correct"] is not None]
    return outcomes, {
        "file": str(path),
        "n": len(outcomes),
        "skipped": skipped,
        "columns": found,
        "accuracy": sum(graded) / len(graded) if graded else None,
        "recorded_accuracy": sum(recorded) / len(recorded) if recorded else None,
    }


def budgets_of_ratios(outcomes: Sequence[dict]) -> list[dict]:
    """Gives every outcome that has a ratio its budget: that share of the same question's length at ratio 1.

    Questions that were not asked at ratio 1 are left out. Raises `ValueError` where no question was.

    >>> rows = [{"question": "q", "ratio": r, "length": n, "budget": None} for r, n in ((1.0, 80), (0.5, 50))]
    >>> [row["budget"] for row in budgets_of_ratios(rows)]
    [80, 40]
    """
    if not any(outcome["ratio"] is not None for outcome in outcomes):
        return list(outcomes)
    full = {outcome["question"]: outcome["length"] for outcome in outcomes if outcome["ratio"] == 1}
    if not full:
        raise ValueError("ratios are shares of the length at ratio 1, and no prediction has that ratio; add that file")
    known = [outcome for outcome in outcomes if outcome["ratio"] is None or full.get(outcome["question"])]
    return [
        outcome
        if outcome["ratio"] is None
        else {**outcome, "budget": max(1, round(outcome["ratio"] * full[outcome["question"]]))}
        for outcome in known
    ]


def find_columns(names: Sequence[str], named: dict[str, str], source: str) -> dict[str, str]:
    """Our name -> the file's name of each column that there is.

    >>> find_columns(["model_output", "answer", "cot_length"], {}, "f")
    {'completion': 'model_output', 'length': 'cot_length', 'solution': 'answer'}
    """
    for name, column in named.items():
        if name not in COLUMNS:
            raise ValueError(f"--columns: {name!r} is not one of {', '.join(COLUMNS)}")
        if column not in names:
            raise ValueError(f"{source}: {name}={column!r} is not a column; there are {', '.join(names)}")
    found = {}
    for name, usual in COLUMNS.items():
        column = named.get(name) or next((column for column in usual if column in names), None)
        if column is not None:
            found[name] = column
    return found


def samples_of(values: dict) -> list[dict]:
    """One dict per sample: lists of completions are taken apart, with the lists of the same length beside them.

    >>> samples_of({"completion": ["a", "b"], "correct": [True, False], "solution": ["1"]})[1]
    {'completion': 'b', 'correct': False, 'solution': ['1']}
    """
    texts = values.get("completion")
    if not isinstance(texts, list):
        return [values]
    listed = [
        name
        for name in ("completion", "prediction", "length", "correct")
        if isinstance(values.get(name), list) and len(values[name]) == len(texts)
    ]
    return [{**values, **{name: values[name][number] for name in listed}} for number in range(len(texts))]


def question_of(value: object, index: int) -> str:
    """The text of a question, which is what predictions are matched by; a conversation is what its user says.

    >>> question_of([{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": ""}], 0)
    '1+1?'
    """
    if isinstance(value, list) and all(isinstance(turn, dict) for turn in value):
        value = "\n".join(str(turn.get("content")) for turn in value if turn.get("role") == "user")
    return str(index if value is None else value)


def grade(text: object, gold: object, correctness: Correctness, prediction: object = None) -> float | None:
    r"""The grade of a saved completion; None where there is nothing to grade or no gold answer that can be read.

    A `prediction`, the answer that the file's own program read, is graded in place of the text. Not every project asks
    for a box: the last `\boxed{}` counts, or else what follows the last "answer is" (or GSM8K's `####`), or else, where
    the gold answer is a number, the last number. Gold answers in a list are all to be found.

    >>> grade("The final answer is: $\\boxed{5}$.", "5", Correctness()), grade("The answer is 6.", 5, Correctness())
    (1.0, 0.0)
    >>> grade("3 times 7 is 21", "21", Correctness()), grade("...", ["2", "3"], Correctness(), ["3", "2"])
    (1.0, 1.0)
    """
    if prediction is not None and not isinstance(prediction, dict):
        golds, answers = _listed(gold), _listed(prediction)
        if not golds or any(solution_of(one) is None for one in golds):
            return None
        found = [_grade_text(f"\\boxed{{{one}}}", solution_of(g), correctness) for g in golds for one in answers]
        rows = [found[i : i + len(answers)] for i in range(0, len(found), len(answers))] if answers else []
        columns = list(zip(*rows, strict=True))
        return float(bool(rows) and all(1.0 in row for row in rows) and all(1.0 in column for column in columns))
    solution = solution_of(gold)
    if not isinstance(text, str) or solution is None:
        return None
    return _grade_text(text, solution, correctness)


def _listed(value: object) -> list:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def _grade_text(text: str, solution: str, correctness: Correctness) -> float | None:
    if last_boxed(text.rpartition(correctness.end_of_thinking)[2]) is None:
        for marker in ANSWER_MARKERS:
            _, found, answer = text.rpartition(marker)
            if found:
                line = answer.lstrip(" :\n").split("\n")[0].strip().rstrip(".").strip("$ ")
                return correctness.grade(f"\\boxed{{{line}}}", solution)
        if NUMBER.fullmatch(solution) and (numbers := NUMBER.findall(text)):
            return correctness.grade(f"\\boxed{{{numbers[-1]}}}", solution)
    return correctness.grade(text, solution)


def _length(length: object, text: object, count: Callable[[str], int] | None) -> int | None:
    if isinstance(length, int | float) and not isinstance(length, bool) and length == length and length >= 0:
        return int(length)
    if isinstance(text, str) and count is not None:
        return count(text)
    return None

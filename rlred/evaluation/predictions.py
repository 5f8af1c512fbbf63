r"""Saved predictions: outcomes from files of completions that rlred did not generate.

A file is JSON Lines, a JSON array, CSV or Parquet, also gzipped. Other programs' layouts are known
(rlred/evaluation/prediction_files.py); else each column has its usual names, or is named by the caller:

    completion   the text that was generated           length     its tokens, counted by whoever made the file
    question     what was asked                        solution   the gold answer; a list holds alternatives
    budget       tokens asked for                      ratio      share of the unasked length, as TokenSkip's
    mode         exact, max or none                    correct    the file's own grade, to compare with ours
    prediction   the answer that its own program read from the completion

Only a length (or a completion and a tokenizer to count it with) is needed; what is absent is not measured. A column may
hold several samples of one question in a list.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

from rlred.data.budgets import MODES, check_budget
from rlred.data.golds import gold_list, is_missing, list_in, solution_of
from rlred.data.table_files import names_of, read_rows
from rlred.evaluation.measures import measure
from rlred.evaluation.prediction_files import (
    COLUMNS,
    Layout,
    at,
    find_columns,
    layout_of,
    number_in,
    place_of,
    question_of,
    samples_of,
    whole_in,
    without_repeats,
)
from rlred.evaluation.report import adherence
from rlred.evaluation.results import Result
from rlred.names import MODES as RENAMED
from rlred.rewards import Correctness
from rlred.rewards.answer_text import answer_for, visible
from rlred.rewards.correctness import boxed_answer

logger = logging.getLogger(__name__)

WORDS = dict.fromkeys(("true", "yes", "correct", "right"), 1.0) | dict.fromkeys(
    ("false", "no", "incorrect", "wrong"), 0.0
)
CUT = ("length", "max_tokens", "max_length", "max_output_tokens")  # why a generation ended, where it was cut
NO_FULL_LENGTH = "asked at a ratio, but not at ratio 1"


def measure_predictions(
    files: Sequence[Path],
    *,
    ratios: Sequence[float] | None = None,
    budgets: Sequence[int] | None = None,
    **settings,
) -> tuple[Result, list[dict]]:
    """The result of files of predictions, measured together, and their outcomes.

    Files without budgets are blocks of their own: before and after, one model and another.
    `ratios` and `budgets` have one value per file; `settings` are those of `load_predictions`, for all files. Raises
    `ValueError` as that does, and for counts that do not fit.
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
        outcomes += [{**outcome, "file": number} for outcome in found]
        notes.append({**note, "n_questions": len({outcome["question"] for outcome in found}), "lost": {}})
    outcomes, lost = budgets_of_ratios(outcomes)
    for number, count in Counter(outcome["file"] for outcome in lost).items():
        notes[number]["lost"] = {NO_FULL_LENGTH: count}
        logger.warning("%s: left out %d of %d predictions %s", files[number], count, notes[number]["n"], NO_FULL_LENGTH)
    ids: dict[str, int] = {}
    outcomes = [{**o, "question_id": ids.setdefault(o["question"], len(ids))} for o in outcomes]
    labels = {"model": ", ".join(map(str, files)), "adapter": None, "seed": None, "n_questions": len(ids)}
    blocks = _blocks(outcomes, files)
    first = next(iter(blocks)) if len(blocks) > 1 else None
    return adherence(labels, blocks, details={"files": notes, "held_against": first}), outcomes


def _blocks(outcomes: list[dict], files: Sequence[Path]) -> dict[str, dict]:
    """One block; or one for each of several files that asked for nothing, each held against the first."""
    if len(files) == 1 or any(outcome["budget"] is not None for outcome in outcomes):
        return {"predictions": measure(outcomes)}
    apart = [[outcome for outcome in outcomes if outcome["file"] == number] for number in range(len(files))]
    longest = measure(apart[0])["natural_maximum"]
    measured = ({**measure(own, longest), "n_questions": len({one["question_id"] for one in own})} for own in apart)
    return {
        f"file-{number}": {"title": str(file), **block}
        for number, (file, block) in enumerate(zip(files, measured, strict=True), start=1)
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

    `columns` maps the names above to the file's; `budget` and `ratio` hold for all of the file, whatever it says;
    `count` gives the tokens of a text where the file has no length. Rows that report an error or whose length cannot be
    known are skipped and counted. Raises `ValueError` for a file that cannot be read, an unknown column, a value that
    is none (with its line), or when nothing is left.
    """
    if budget is not None and ratio is not None:
        raise ValueError("a budget and a ratio are two ways to say the same; give one of them")
    path = Path(path)
    rows = read_rows(path)
    if not rows:
        raise ValueError(f"{path}: has no rows; give it one object per completion")
    layout = layout_of(rows)
    found = find_columns(rows, columns or {}, str(path), layout)
    asked = {"mode": mode, "budget": budget, "ratio": ratio}
    found = {name: column for name, column in found.items() if name == "mode" or asked.get(name) is None}
    if "length" not in found and ("completion" not in found or count is None):
        raise ValueError(
            f"{path}: no column holds a token count ({', '.join(COLUMNS['length'][:6])}, ...); name one with --columns "
            f"length=NAME, or count the completions with --tokenizer NAME; there are {', '.join(names_of(rows))}"
        )
    if "question" not in found:
        logger.warning("%s: no column holds the question, so predictions are matched by their number in the file", path)
    kept = without_repeats(rows, layout)
    reader = _Reader(found, asked, count, correctness or Correctness(), layout)
    outcomes, recorded, skipped = reader.read(kept, path)
    if not outcomes:
        reasons = ", ".join(f"{number} {reason}" for reason, number in skipped.items())
        raise ValueError(f"{path}: none of its {len(rows)} lines has a length or a completion to count ({reasons})")
    for reason, number in skipped.items():
        logger.warning("%s: skipped %d of %d predictions %s", path, number, len(outcomes) + skipped.total(), reason)
    graded = [outcome["correct"] for outcome in outcomes if outcome["correct"] is not None]
    cut = [outcome["truncated"] for outcome in outcomes]
    return outcomes, {
        "file": str(path),
        "layout": layout.name or None,
        "n": len(outcomes),
        "skipped": skipped.total(),
        "skipped_because": dict(skipped),
        "repeated": len(rows) - len(kept),
        "columns": found,
        "accuracy": fmean(graded) if graded else None,
        "cut": sum(map(bool, cut)) if any(one is not None for one in cut) else None,
        "recorded_accuracy": recorded_share(recorded, str(path), found.get("correct")),
    }


class _Reader:
    """Reads the rows of one file."""

    def __init__(self, found: dict, asked: dict, count: Callable | None, correctness: Correctness, layout: Layout):
        self.found, self.asked, self.count, self.correctness, self.layout = found, asked, count, correctness, layout

    def read(self, rows: Sequence[tuple[int, dict]], path: Path) -> tuple[list[dict], list[float | None], Counter]:
        """Outcomes, the file's own grades of them, and how many predictions are skipped for which reason."""
        questions: dict[str, int] = {}
        outcomes, recorded, skipped = [], [], Counter()
        for index, row in rows:
            try:
                made = [self.outcome(sample, index) for sample in self.samples(row)]
            except ValueError as error:
                raise ValueError(f"{path}: {place_of(path, index)}: {error}") from None
            for outcome in made:
                if isinstance(outcome, str):
                    skipped[outcome] += 1
                    continue
                recorded.append(outcome.pop("recorded"))
                outcomes.append({"question_id": questions.setdefault(outcome["question"], len(questions)), **outcome})
        return outcomes, recorded, skipped

    def samples(self, row: dict) -> list[dict]:
        values = {name: at(row, column) for name, column in self.found.items()}
        values |= {name: gold_list(values[name]) for name in ("solution", "prediction") if name in values}
        if self.found.get("question") in ("instruction", "prompt") and isinstance(row.get("input"), str):
            values["question"] = f"{question_of(values['question'], 0)}\n{row['input']}"  # Alpaca's two halves
        if self.found.get("length") == "total_tokens" and not is_missing(row.get("prompt_tokens")):
            own, prompt = (whole_in(row[name], name, 0) for name in ("total_tokens", "prompt_tokens"))
            values["length"] = None if own is None else own - prompt
        return samples_of(values)

    def outcome(self, values: dict, index: int) -> dict | str:
        """What one completion did, or why it is skipped. Raises `ValueError` for a value that is none."""
        text = values.get("completion")
        if not is_missing(values.get("error")) and not isinstance(text, str):
            return "that report an error"
        if values.get("unreadable") and is_missing(values.get("prediction")):
            return "whose completion cannot be read"
        length = self.length(values.get("length"), "length")
        if length == 0 and text:
            length = None  # an API that returns no ids
        if length is None and isinstance(text, str) and self.count is not None:
            length = self.count(text)
        if length is None:
            return "without a length"
        mode, budget, ratio = self.condition(values)
        gold, prediction = values.get("solution"), values.get("prediction")
        said = "" if text is None and "completion" in self.found else text  # nothing generated is incorrect, as ""
        return {
            "question": question_of(values.get("question"), index),
            "mode": mode,
            "budget": budget,
            "ratio": ratio,
            "length": length,
            "thinking_length": self.length(values.get("thinking_length"), "thinking_length"),
            "correct": grade(said, gold, self.correctness, prediction, all_needed=self.layout.all_needed),
            "truncated": None if is_missing(values.get("finish")) else str(values["finish"]).lower() in CUT,
            "completion": text,
            "answer": answer_read(text, gold, self.correctness, prediction),
            "recorded": number_of_grade(values.get("correct")),
        }

    def length(self, value: object, name: str) -> int | None:
        value = value if (kept := list_in(value)) is None else kept
        if isinstance(value, list) and all(isinstance(one, int) for one in value):
            return len(value)  # the ids of the tokens
        return whole_in(value, name, 0)

    def condition(self, values: dict) -> tuple[str, int | None, float | None]:
        mode = values.get("mode")
        mode = self.asked["mode"] if is_missing(mode) else str(mode).strip().lower()
        mode = RENAMED.get(mode, mode)  # files of older versions are read
        budget = whole_in(values.get("budget", self.asked["budget"]), "budget", 1)
        ratio = number_in(values.get("ratio", self.asked["ratio"]), "ratio")
        if ratio is not None and ratio <= 0:
            raise ValueError(f"ratio must be above 0, a share of the length at ratio 1; got {ratio:g}")
        if mode == "effort":
            raise ValueError("mode 'effort' is not read from files of predictions; they have budgets or ratios")
        if budget is None and ratio is None and mode in MODES:
            mode = "free"
        if ratio is None or mode not in MODES:
            check_budget(budget, mode)
        return mode, budget, ratio


def budgets_of_ratios(outcomes: Sequence[dict]) -> tuple[list[dict], list[dict]]:
    """Gives every outcome that has a ratio its budget: that share of the same question's mean length at ratio 1.

    Second come the outcomes that are left out because their question was not asked at ratio 1. Raises `ValueError`
    where no question was, and where nothing is left at any other ratio.

    >>> rows = [{"question": "q", "ratio": r, "length": n, "budget": None} for r, n in ((1.0, 80), (0.5, 50))]
    >>> [row["budget"] for row in budgets_of_ratios(rows)[0]]
    [80, 40]
    """
    asked = [outcome for outcome in outcomes if outcome["ratio"] is not None]
    lengths: dict[str, list[int]] = defaultdict(list)
    for outcome in asked:
        if outcome["ratio"] == 1:
            lengths[outcome["question"]].append(outcome["length"])
    if asked and not lengths:
        raise ValueError("ratios are shares of the length at ratio 1, and no prediction has that ratio; add that file")
    full = {question: fmean(own) for question, own in lengths.items() if max(own) > 0}
    kept, lost = [], []
    for outcome in outcomes:
        if outcome["ratio"] is None:
            kept.append(outcome)
        elif outcome["question"] in full:
            kept.append({**outcome, "budget": max(1, round(outcome["ratio"] * full[outcome["question"]]))})
        else:
            lost.append(outcome)
    if lost and not any(outcome["ratio"] not in (None, 1) for outcome in kept):
        example = next(iter(lost))["question"]
        raise ValueError(
            f"none of the questions asked at another ratio was asked at ratio 1, so nothing can be compared; name a "
            f"column that is the same in all files with --columns question=... (one question: {example[:60]!r})"
        )
    return kept, lost


def grade(
    text: object, gold: object, correctness: Correctness, prediction: object = None, *, all_needed: bool = False
) -> float | None:
    r"""The grade of a saved completion; None where there is nothing to grade or no gold answer that can be read.

    A `prediction`, the answer that the file's own program read, is graded in place of the text. Not every project asks
    for a box: the last `\boxed{}` after the thinking counts, or else what the text says its answer is
    (rewards/answer_text.py). Of gold answers in a list any will do, or with `all_needed` they are all to be found.

    >>> grade("The final answer is: $\\boxed{5}$.", "5", Correctness()), grade("The answer is 6.", 5, Correctness())
    (1.0, 0.0)
    >>> grade("3 times 7 is 21", "21", Correctness()), grade("It is 21", ["20", "21"], Correctness())
    (1.0, 1.0)
    >>> [grade("...", ["2", "3"], Correctness(), found, all_needed=True) for found in (["3", "2"], ["3"])]
    [1.0, 0.0]
    """
    solution = solution_of(gold, all_needed=all_needed)
    if solution is None:
        return None
    if isinstance(prediction, list | tuple) and all_needed:
        return _grade_all(prediction, gold, correctness)
    if isinstance(prediction, list | tuple):
        prediction = ", ".join(map(str, prediction))
    end = correctness.end_of_thinking or ""
    if not is_missing(prediction) and not isinstance(prediction, dict) or prediction == "":
        texts = [f"{end}\\boxed{{{prediction}}}"]
    elif isinstance(text, str):
        texts = None
    else:
        return None
    grades = []
    for one in [solution] if isinstance(solution, str) else solution:
        boxed = texts[0] if texts else end + _boxed(text, one, correctness)
        grades.append(correctness.grade(boxed, one))
    known = [value for value in grades if value is not None]
    return max(known) if known else None


def answer_read(text: object, gold: object, correctness: Correctness, prediction: object = None) -> str | None:
    """The answer that a saved completion is graded by, as text; None where it has none.

    >>> [answer_read(text, "5", Correctness()) for text in ("so \\boxed{5}", "The answer is 6.", "well")]
    ['5', '6', None]
    """
    if not is_missing(prediction) and not isinstance(prediction, dict):
        return str(prediction)
    solution = solution_of(gold)
    if not isinstance(text, str) or solution is None:
        return None
    first = solution if isinstance(solution, str) else solution[0]
    return boxed_answer((correctness.end_of_thinking or "") + _boxed(text, first, correctness)) or None


def _boxed(text: str, solution: str, correctness: Correctness) -> str:
    """The text after the thinking, with the answer in a box."""
    end = correctness.end_of_thinking or ""
    if correctness.require_end_of_thinking and end not in text:
        return ""
    body = visible(text, end)
    if boxed_answer(body) is not None:
        return body
    return f"\\boxed{{{answer_for(body, solution, end) or ''}}}"


def _grade_all(predictions: Sequence, gold: object, correctness: Correctness) -> float | None:
    """1.0 where each gold answer is among the predictions and each prediction among the gold answers."""
    golds = [solution_of(one) for one in (gold if isinstance(gold, list | tuple) else [gold])]
    if None in golds:
        return None
    table = [[grade("", one, correctness, str(found)) for found in predictions] for one in golds]
    columns = list(zip(*table, strict=True))
    return float(bool(columns) and all(1.0 in row for row in table) and all(1.0 in column for column in columns))


def number_of_grade(value: object) -> float | None:
    """A file's own grade as a number; words are read, anything else is None.

    >>> number_of_grade("True"), number_of_grade("incorrect"), number_of_grade(-1), number_of_grade("?")
    (1.0, 0.0, -1.0, None)
    """
    if isinstance(value, str) and value.strip().lower() in WORDS:
        return WORDS[value.strip().lower()]
    try:
        return float(value) if isinstance(value, bool) else number_in(value, "correct")
    except ValueError:
        return None


def recorded_share(values: Sequence[float | None], source: str, column: str | None) -> float | None:
    """The share that a file's own grades call correct: the mean of 0 and 1, or of scores from -1 what is above 0.

    None where there are none, or where they go above 1 and so are no grades.

    >>> recorded_share([1.0, -1.0, 1.0, 1.0], "f", "score"), recorded_share([1.0, 0.5], "f", "score")
    (0.75, 0.75)
    """
    known = [value for value in values if value is not None]
    if known and max(known) > 1:
        logger.warning("%s: %s goes up to %g, so it is no grade and is not reported", source, column, max(known))
        return None
    if known and min(known) < 0:
        known = [float(value > 0) for value in known]
    return fmean(known) if known else None

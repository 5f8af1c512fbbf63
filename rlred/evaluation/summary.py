"""What a sweep over budgets comes to, in a few sentences: the beginning of its report and of a model card."""

from rlred.data.budgets import effort_name
from rlred.evaluation.measures import amount, mean, paired_difference
from rlred.evaluation.results import Result, accuracy, number, percent

BASE = "before (untrained base)"  # the title of a base; models that are compared have their names
# The block that a reader asks for first, and how its sentences begin.
SUBJECTS = {
    "trained": ("The trained model answers", "Its length"),
    "hindsight": ("The model after the hindsight start answers", "Its length"),
    "predictions": ("The saved predictions answer", "Their length"),
    "baseline": ("The base answers", "Its length"),
}
FOLLOWS = ((0.9, "follows the budget"), (0.5, "follows the budget in part"), (-1.0, "does not follow the budget"))
FEW = 50  # questions, below which an accuracy of a half is known to 14 points or worse
MANY = 0.05  # share of completions cut, or of rows left out, that changes what figures mean


def summary(result: Result) -> list[str]:
    """Two paragraphs: what was measured and found, and what to be careful about, where there is something."""
    if result.reference != "baseline" and result.reference in result.blocks:
        return _of_files(result)
    name = next((name for name in (*SUBJECTS, *result.blocks) if name in result.blocks), None)
    if name is None or not result.rows(name):
        return []
    block = result.blocks[name]
    base = result.blocks.get("baseline") if name in ("trained", "hindsight") else None
    sentences = [_asked(result, name), *_followed(name, block, base), *_correct(block, base)]
    found = warnings(result, block)
    return paragraphs(sentences, found)


def _of_files(result: Result) -> list[str]:
    """The same of several files without budgets, each of them named; the others are held against the first."""
    first, sentences, found = result.blocks[result.reference], [], []
    for name, block in result.blocks.items():
        against = None if block is first else first
        sentences += [_asked(result, name), *_followed(name, block, None), *_correct(block, against, first["title"])]
        told = few(result, result.questions(name)) + warnings_of_rows(block)
        found += [f"`{block['title']}`: {one}" for one in told]
    return paragraphs(sentences, [*found, *left_out(result)])


def share_of_tokens(before: dict, after: dict) -> float | None:
    """Tokens after as a share of those before, over the questions that both have; None where there are none.

    >>> before = {"0": {"mean_length": 40.0}, "1": {"mean_length": 60.0}}
    >>> share_of_tokens(before, {"0": {"mean_length": 20.0}, "2": {"mean_length": 500.0}})
    0.5
    """
    shared = [question for question in before if question in after]
    spent, whole = (sum(one[question]["mean_length"] for question in shared) for one in (after, before))
    return spent / whole if whole else None


def paragraphs(sentences: list[str], warned: list[str]) -> list[str]:
    """What was found, and what to be careful about, where there is something.

    >>> paragraphs(["It is short.", "It is correct."], ["8 questions are few"])
    ['It is short. It is correct.', 'Worth a warning: 8 questions are few.']
    """
    return [" ".join(sentences), *([f"Worth a warning: {'; '.join(warned)}."] if warned else [])]


def few(result: Result, questions: int | None = None) -> list[str]:
    """The warning of a result, or of a block of it, of few questions, as the beginning of any report has it."""
    n = result.labels["n_questions"] if questions is None else questions
    return [f"{n} questions are few, and the intervals are wide"] if n < FEW else []


def _asked(result: Result, name: str) -> str:
    """How many questions, asked for what."""
    rows = result.rows(name)
    title = result.blocks[name]["title"]
    named = name not in SUBJECTS or (name == "baseline" and title != BASE)
    start = f"`{title}` answers" if named else SUBJECTS[name][0]
    told = []
    budgets = sorted({row["budget"] for row in rows if row["budget"] is not None})
    if budgets:
        ends = f"from {budgets[0]:g} to {budgets[-1]:g}" if len(budgets) > 1 else f"of {budgets[0]:g}"
        told.append(f"at {len(budgets)} budget{'s' * (len(budgets) > 1)} {ends} tokens")
    efforts = sorted({row["effort"] for row in rows if row.get("effort") is not None})
    if efforts:
        ends = " to ".join(dict.fromkeys((effort_name(efforts[0]), effort_name(efforts[-1]))))
        told.append(f"at {len(efforts)} effort{'s' * (len(efforts) > 1)}, {ends}")
    if free := [row for row in rows if amount(row) is None]:
        told.append(f"without a budget in {mean([row['mean_length'] for row in free]):.1f} tokens on average")
    return f"{start} {result.questions(name)} questions {' and '.join(told)}."


def _followed(name: str, block: dict, base: dict | None) -> list[str]:
    """Whether the length follows what is asked for; nothing where nothing is, or where it is asked only once."""
    found = block["rank_correlation"]
    if found is None:
        return []
    word = next((word for least, word in FOLLOWS if found >= least), FOLLOWS[-1][1])
    if all(row["budget"] is None for row in block["rows"]):
        word = word.replace("budget", "effort")
    before = base and base["rank_correlation"]
    told = f"the rank correlation within a question is {number(found, 3)}"
    told += f" (the base's: {number(before, 3)})" if before is not None else ""
    modes = {mode: one for mode, one in block["overall"].items() if one["mean_abs_error"] is not None}
    for mode, one in modes.items():
        where = f" in mode {mode}" if len(modes) > 1 else ""
        told += f"; the mean absolute error{where} is {percent(one['mean_abs_error'])} % of the budget, and "
        told += f"{percent(one['over_budget'])} % of the completions are over it"
    return [f"{SUBJECTS[name][1] if name in SUBJECTS else 'Its length'} {word}: {told}."]


def _correct(block: dict, base: dict | None, file: str | None = None) -> list[str]:
    """Accuracy over all rows, and against the base's, or that of the first `file`, on the same questions."""
    graded = [row for row in block["rows"] if row["accuracy"] is not None]
    if not graded:
        return []
    whole = sum(row["accuracy"] * row["n"] for row in graded) / sum(row["n"] for row in graded)
    said = f"{percent(whole)} % over the whole sweep"
    if len(graded) == 1:
        said = accuracy(graded[0]).replace(" ", " % ", 1)
    pair = base and paired_difference(base.get("by_question") or {}, block.get("by_question") or {})
    if not pair:
        return [f"Accuracy is {said}."]
    low, difference, high = (f"{100 * pair[name]:+.1f}" for name in ("low", "difference", "high"))
    whose = "the base's" if file is None else f"that of `{file}` on the {pair['n']} questions that both have"
    against = f"not clearly different from {whose} ({difference} points, {low} to {high})"
    if pair["low"] > 0 or pair["high"] < 0:
        away = "above" if pair["low"] > 0 else "below"
        against = f"{abs(100 * pair['difference']):.1f} points {away} {whose} ({low} to {high}, paired by question)"
    share = _share_of_rows(base, block) if file is None else share_of_tokens(base["by_question"], block["by_question"])
    tokens = f", with {percent(share, 0)} % of its tokens" if share is not None else ""
    return [f"Accuracy is {said}: {against}{tokens}."]


def _share_of_rows(base: dict, block: dict) -> float | None:
    """Tokens of a completion as a share of the base's, over the rows of the modes that both have."""
    means = []
    for one in (block, base):
        rows = [row for row in one["rows"] if row["mode"] in block["overall"] and row["mode"] in base["overall"]]
        total = sum(row["n"] for row in rows)
        means.append(sum(row["mean_length"] * row["n"] for row in rows) / total if total else 0.0)
    return means[0] / means[1] if means[1] else None


def warnings(result: Result, block: dict) -> list[str]:
    """What a reader has to know before the figures are believed."""
    found = [*result.details.get("warnings", []), *few(result)]
    if result.labels.get("per_prompt_cap") is not None:
        found.append("rows were cut at a multiple of their budget, and some figures are bounds")
    found += warnings_of_rows(block)
    base = result.blocks.get("baseline")
    cut = 0 if base is None or base is block else most_cut(base["rows"])
    if cut > MANY:
        found.append(f"up to {percent(cut, 0)} % of the base's completions of a row were cut before their end")
    control = result.blocks.get("control_constant_length", {}).get("rank_correlation")
    if control is not None and control > 0.3:
        found.append(f"the control, asked for one length alone, has a rank correlation of {number(control, 3)}")
    return found + left_out(result)


def warnings_of_rows(block: dict) -> list[str]:
    """What the rows of one block warn of."""
    found, rows = [], block["rows"]
    cut = most_cut(rows)
    if cut > MANY:
        found.append(f"up to {percent(cut, 0)} % of the completions of a row were cut before their end")
    over = (block["overall"].get("max") or {}).get("over_budget")
    if over is not None and over > 0.5:
        found.append("more than half of the completions are longer than their maximum")
    spread, asked = block["spread_ratio"], block["asked_spread_ratio"]
    if "exact" in block["overall"] and spread is not None and spread - 1 < (asked - 1) / 2:
        found.append(f"the longest answers are {number(spread)} times the shortest, and {number(asked)} was asked for")
    if all(row["accuracy"] is None for row in rows):
        found.append("nothing was graded")
    return found


def most_cut(rows: list[dict]) -> float:
    """The largest share of a row's completions that were cut before their end."""
    return max((row.get("truncated") or 0 for row in rows), default=0)


def left_out(result: Result) -> list[str]:
    """The warning of files of predictions of which many rows are not among the figures."""
    notes = result.details.get("files") or []
    lost = sum(note["skipped"] + sum(note.get("lost", {}).values()) for note in notes)
    total = lost + sum(note["n"] for note in notes)
    return [f"{lost} of {total} rows of the files were left out"] if total and lost / total > MANY else []

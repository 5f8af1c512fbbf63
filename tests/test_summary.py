"""A report begins with what it comes to, and has no column that no row fills."""

import dataclasses
import json
import re

import pytest

from rlred.cli import main as rlred
from rlred.evaluation.markdown import filled
from rlred.evaluation.measures import measure
from rlred.evaluation.report import adherence
from rlred.evaluation.results import Result, kind_of, to_markdown, write_result
from rlred.evaluation.side_by_side import compare
from rlred.evaluation.summary import summary

LABELS = {"model": "m", "adapter": "a", "seed": 0, "n_questions": 60, "temperature": 1.0}
BUDGETS = (10, 20, 40)


def block(length, correct=lambda q, b: 1.0, mode="exact", budgets=BUDGETS, **more):
    """The measures of 60 questions at three budgets; `length` and `correct` of question and budget."""
    about = {"mode": mode, "truncated": False, "completion": "x", **more}
    asked = [(q, b) for q in range(60) for b in budgets]
    return measure(
        [{**about, "question_id": q, "budget": b, "length": length(q, b), "correct": correct(q, b)} for q, b in asked]
    )


def obeying(q, b):
    return b + q % 2


def constant(q, b):
    return 20 + q % 3


def result(labels=LABELS, details=None, **blocks):
    return adherence(labels, blocks, details=details)


def test_tokens_are_weighed_by_rows_as_accuracy_is():
    """Three rows at 20 tokens and one at 100 against four at 40: 160 of 160, where means of modes make 120 of 80."""
    free = {"mode": "free", "budgets": (None,)}
    outcomes = [
        {"mode": mode, "budget": b, "question_id": q, "length": n, "correct": 1.0, "truncated": False, "completion": ""}
        for q in range(60)
        for mode, b, n in (("exact", 10, 20), ("exact", 20, 20), ("exact", 40, 20), ("free", None, 100))
    ]
    base = measure([{**one, "length": 40, "correct": float(one["question_id"] > 30)} for one in outcomes])
    assert "with 100 % of its tokens" in summary(result(baseline=base, trained=measure(outcomes)))[0]
    # a mode that the base was not asked in is not among its tokens
    alone = block(lambda q, b: 40, lambda q, b: float(q > 30))
    assert "with 50 % of its tokens" in summary(result(baseline=alone, trained=measure(outcomes)))[0]
    alone = block(lambda q, b: 40, lambda q, b: float(q > 30), **free)
    assert "with 250 % of its tokens" in summary(result(baseline=alone, trained=measure(outcomes)))[0]


def test_a_trained_model_is_held_against_its_base():
    base, trained = block(constant, lambda q, b: float(q % 4 > 0)), block(obeying)
    [text] = summary(result(baseline=base, trained=trained))
    assert text == (
        "The trained model answers 60 questions at 3 budgets from 10 to 40 tokens. Its length follows the budget: the "
        "rank correlation within a question is 1.000 (the base's: 0.000); the mean absolute error is 2.9 % of the "
        "budget, and 50.0 % of the completions are over it. Accuracy is 100.0 % over the whole sweep: 25.0 points "
        "above the base's (+14.0 to +36.0, paired by question), with 113 % of its tokens."
    )  # a token over at every second question: (1/10 + 1/20 + 1/40) / 3 / 2; lengths 23.8 and 21


@pytest.mark.parametrize(
    "after, said",
    [
        (lambda q, b: float(q % 4 > 0), "Accuracy is 75.0 % over the whole sweep: 25.0 points below the base's ("),
        (lambda q, b: float(q > 0), "not clearly different from the base's (-1.7 points, -4.9 to +1.6)"),
        (lambda q, b: 1.0, "not clearly different from the base's (+0.0 points, +0.0 to +0.0)"),
    ],
    ids=["worse", "one question", "the same"],
)
def test_a_difference_that_may_be_chance_is_called_none(after, said):
    assert said in " ".join(summary(result(baseline=block(constant), trained=block(obeying, after))))


@pytest.mark.parametrize(
    "length, word",
    [
        (obeying, "Its length follows the budget: "),
        (lambda q, b: b if q % 3 else 20, "Its length follows the budget in part: "),
        (constant, "Its length does not follow the budget: "),
        (lambda q, b: 50 - b, "Its length does not follow the budget: "),
    ],
    ids=["obeys", "mostly", "constant", "opposite"],
)
def test_the_words_are_those_of_the_rank_correlation(length, word):
    assert word in summary(result(trained=block(length)))[0]


def test_efforts_and_free_rows_are_named_as_what_they_are():
    effort = block(lambda q, b: 30, mode="effort", budgets=(None,), effort=0.25)
    text = summary(result(trained=effort))[0]
    assert "at 1 effort, 0.25 (low)." in text and "budget" not in text
    text = summary(result(baseline=block(constant, mode="free", budgets=(None,))))[0]
    assert text.startswith(
        "The base answers 60 questions without a budget in 21.0 tokens on average. Accuracy is 100.0 % (94.0"
    )
    assert "follow" not in text and "error" not in text


WARNED = [
    # what is measured, the warning, and the same where there is nothing to warn of
    ({"labels": {**LABELS, "n_questions": 49}, "trained": obeying}, "49 questions are few", {"trained": obeying}),
    (
        {"labels": {**LABELS, "per_prompt_cap": 2.0}, "trained": obeying},
        "rows were cut at a multiple of their budget",
        {"labels": {**LABELS, "per_prompt_cap": None}, "trained": obeying},
    ),
    (
        {"trained": block(obeying, truncated=True)},
        "up to 100 % of the completions of a row were cut before their end",
        {"trained": block(obeying, truncated=False)},
    ),
    (
        {"baseline": block(constant, truncated=True), "trained": obeying},
        "up to 100 % of the base's completions of a row were cut before their end",
        {"baseline": block(constant, truncated=False), "trained": obeying},
    ),
    (
        {"trained": block(lambda q, b: b + 1, mode="max")},
        "more than half of the completions are longer than their maximum",
        {"trained": block(lambda q, b: b + 1, mode="exact")},
    ),
    (
        {"trained": block(lambda q, b: 20 + b // 10)},
        "the longest answers are 1.14 times the shortest, and 4.00 was asked for",
        {"trained": block(lambda q, b: 20 + b // 10, mode="max", budgets=(30, 60))},
    ),
    (
        {"trained": obeying, "control_constant_length": obeying},
        "the control, asked for one length alone, has a rank correlation of 1.000",
        {"trained": obeying, "control_constant_length": constant},
    ),
    ({"trained": block(obeying, lambda q, b: None)}, "nothing was graded", {"trained": obeying}),
]


def made(given):
    given = {name: block(one) if callable(one) else one for name, one in given.items()}
    return result(**given)


@pytest.mark.parametrize("given, said, harmless", WARNED, ids=[one[1][:20] for one in WARNED])
def test_what_is_worth_a_warning_is_said_and_nothing_else(given, said, harmless):
    [_, text] = summary(made(given))
    assert text.startswith("Worth a warning: ") and said in text and text.count(";") == 0
    assert not any(said[:12] in text for text in summary(made(harmless)))


@pytest.fixture
def predictions(tmp_path):
    """A file of completions that were asked for nothing, and some rows that cannot be read."""
    path = tmp_path / "saved.jsonl"
    rows = [
        {"question": f"{q}+1", "answer": str(q + 1), "completion": f"\\boxed{{{q + 1}}}", "length": 9}
        for q in range(60)
    ]
    rows += [{"question": "1+1", "answer": "2"}] * 6
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_free_predictions_have_no_columns_of_budgets(predictions, tmp_path, capsys):
    assert (
        rlred(["evaluate", "--predictions", str(predictions), "--modes", "free", "--output", str(tmp_path / "out")])
        == 0
    )
    page = (tmp_path / "out" / "adherence.md").read_text()
    first = page.splitlines()[2]
    assert first.startswith("The saved predictions answer 60 questions without a budget in 9.0 tokens on average.")
    assert "Worth a warning: 6 of 66 rows of the files were left out." in page
    for absent in ("budget |", "mean error", "RMSE", "over budget", "Rank correlation", "percentages of the budget"):
        assert absent not in page, absent
    assert "| mode | mean tokens | accuracy |" in page and page.count("| free | 9.0 | 100.0 (") == 1
    assert not [line for line in page.splitlines() if re.fullmatch(r"\|( -? ?\|)+", line)]
    saved = json.loads((tmp_path / "out" / "adherence.json").read_text())
    [row] = saved["blocks"]["predictions"]["rows"]
    assert {"budget", "mean_error", "rmse", "over_budget"} <= set(row)  # programs find what they found

    assert rlred(["report", str(tmp_path / "out")]) == 0
    html = (tmp_path / "out" / "report.html").read_text()
    assert html.index("The saved predictions answer") < html.index("<table>") and "over budget" not in html
    assert html.count("The saved predictions answer") == 1


def test_a_column_that_one_row_fills_stays():
    mixed = result(baseline=block(constant, mode="free", budgets=(None,)), trained=block(obeying))
    page = to_markdown(mixed)
    assert "| mode | budget | mean tokens | mean error |" in page and "| free | - | 21.0 | - |" in page
    assert "| exact | all |" in page
    table = compare([("run", mixed)])
    assert "rank corr." in table and "rollouts" not in table
    assert "rank corr." not in compare([("run", result(baseline=block(constant, mode="free", budgets=(None,))))])
    assert filled(["a", "b"], []) == (["a", "b"], [])  # a table without rows keeps its head
    assert filled(["a", "b"], [[0, "-"], [0.0, ""]]) == (["a"], [[0], [0.0]])  # a zero is a value


def test_a_page_of_several_runs_names_each_in_its_summary(tmp_path):
    for name, length in (("one", obeying), ("two", constant)):
        write_result(dataclasses.replace(result(trained=block(length))), tmp_path / name)
    assert rlred(["report", str(tmp_path / "one"), str(tmp_path / "two"), "--output", str(tmp_path / "page")]) == 0
    html = (tmp_path / "page" / "report.html").read_text()
    assert html.index("one: The trained model") < html.index("two: The trained model") < html.index("<table>")


def kind(name, labels, details=None, **blocks):
    """The beginning of a page of another kind."""
    found = Result(name, {**LABELS, **labels}, blocks, details or {}, {})
    assert to_markdown(found)
    return kind_of(found).summary(found)


GRADE = {"accuracy_low": 0.4, "accuracy_high": 0.6, "truncated": 0.0, "n": 60, "mean_length": 9.0}


def interrupted(fraction, accuracy, leak=0.0, mode="exact", budget=40):
    told = {"mode": mode, "budget": budget, "fraction": fraction, "accuracy": accuracy, "leak": leak, **GRADE}
    zero = ("leak_share", "panic", "mean_thinking_length", "mean_answer_length")
    return {**told, "less_than_uncut": None, **dict.fromkeys(zero, 0.0)}


def test_interruptions_begin_with_a_cut_in_the_middle_of_the_longest_thinking():
    rows = [
        interrupted(0.25, 0.1),
        interrupted(0.5, 0.5, 3.0),
        interrupted(1.0, 0.75),
        interrupted(0.5, 0.2, budget=10),
    ]
    blocks = {
        "baseline": {"title": "before (untrained base)", "rows": rows},
        "a": {
            "title": "data/a",
            "rows": [interrupted(0.4, 0.3, 0.01, "free", None), interrupted(1.0, 0.6, 0.0, "free", None)],
        },
    }
    assert kind("interruptions", {}, **blocks) == [
        "Before (untrained base), mode exact 40: with 50 % of the thinking 50.0 % are correct, with all of it 75.0 %; "
        "the answer is 3.0 tokens longer than behind the whole thinking. "
        "data/a, mode free: with 40 % of the thinking 30.0 % are correct, with all of it 60.0 %; "
        "the answer is as long as behind the whole thinking."
    ]
    uncut = {"baseline": {"title": "before", "rows": [interrupted(1.0, 0.75)]}}
    assert kind("interruptions", {}, **uncut) == []
    ungraded = {"a": {"title": "a", "rows": [interrupted(0.5, None), interrupted(1.0, None)]}}
    [said] = kind("interruptions", {}, **ungraded)
    assert said.startswith("A, mode exact 40: with 50 % of the thinking the answer")


def compressed(ratio, achieved, accuracy, lost=None):
    told = {"ratio": ratio, "achieved": achieved, "accuracy": accuracy, "less_than_full": lost, **GRADE}
    return {**told, "mean_thinking_length": 9.0, "mean_answer_length": 1.0, "seconds": None}


def test_ratios_begin_with_how_far_they_are_from_what_was_asked():
    lost = {"difference": -0.05, "low": -0.1, "high": 0.01}
    rows = [
        compressed(1, 1.0, 0.9),
        compressed(0.8, 0.82, 0.9),
        compressed(0.5, 0.46, 0.5, lost),
        compressed(0.3, 0.9, 0),
    ]
    labels = {"max_completion_length": 64, "batch_size": 8, "trained_ratios": [0.5, 0.8, 1]}
    said = kind("ratios", {**labels, "n_questions": 8}, question={"title": "trained on question", "rows": rows})
    assert said == [
        "Trained on question: asked for ratios from 0.5 to 0.8, it is 0.030 away from them on average; at 0.5 it is "
        "correct in 50.0 % (40.0-60.0), -5.0 (-10.0 to +1.0) points against ratio 1.",
        "Worth a warning: 8 questions are few, and the intervals are wide.",
    ]
    assert kind("ratios", labels, question={"title": "trained on question", "rows": rows[:1]}) == []


def test_pictures_begin_with_what_the_trained_policy_reads():
    def row(stage, ratio, accuracy, **more):
        line = {"stage": stage, "keep_ratio": ratio, "accuracy": accuracy, "wordings": "test", "by_level": {}, **GRADE}
        return {**line, **more}

    fixed = [row("base", 0.5, 0.8, choice="<look-1/2>"), row("base", 1.0, 0.96, choice="<look-1>")]
    own = {"choice": "policy", "blind_accuracy": 0.7}
    policy = [
        row("base", 0.9, 0.9, decoding="greedy", **own),
        row("trained", 0.2, 0.5, decoding="sampled", **own),
        row("trained", 0.25, 0.95, decoding="greedy", **own),
    ]
    blocks = {"fixed": {"title": "fixed", "rows": fixed}, "policy": {"title": "policy", "rows": policy}}
    assert kind("visual", {}, **blocks) == [
        "The policy (trained, greedy) reads 25.0 % of the visual tokens and is correct in 95.0 % (40.0-60.0); the best "
        "choice that does not see the question has 70.0 % at that share, and 100 % of every picture 96.0 %."
    ]
    assert kind("visual", {}, fixed=blocks["fixed"]) == []

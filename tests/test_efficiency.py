"""What accuracy costs in tokens: against closed forms, scipy, and numbers worked out by hand."""

import json
import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from rlred.evaluation.efficiency import (
    aes,
    area,
    efficiency,
    majority,
    natural_maximum,
    ock_score,
    pass_at_k,
    repetition,
    sampled,
    spectrum,
)
from rlred.evaluation.evaluate import evaluate
from rlred.evaluation.measures import measure, row
from rlred.evaluation.predictions import measure_predictions
from rlred.evaluation.report import adherence
from rlred.evaluation.results import read_result, to_markdown, write_result
from rlred.evaluation.settings import Evaluation
from tests.paths import ROOT

LABELS = {"model": "m", "n_questions": 2}


def outcome(question_id, length, correct=1.0, mode="max", budget=20, **more):
    about = {"question_id": question_id, "mode": mode, "budget": budget, "truncated": False}
    return {**about, "length": length, "correct": correct, **more}


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_scipys(case):
    n, correct, k = case
    assert pass_at_k(n, correct, k) == pytest.approx(1 - special.comb(n - correct, k) / special.comb(n, k))


@pytest.mark.parametrize("n, correct, k", [(5, 2, 1), (5, 2, 3), (5, 0, 5), (5, 4, 2), (6, 3, 4)])
def test_pass_at_k_is_the_share_of_the_draws_that_hold_a_correct_one(n, correct, k):
    draws = list(combinations([1] * correct + [0] * (n - correct), k))
    assert pass_at_k(n, correct, k) == pytest.approx(sum(map(any, draws)) / len(draws))


@pytest.mark.parametrize("case", [(4, 1, 0), (4, 1, 5), (4, 5, 1), (4, -1, 1)])
def test_pass_at_k_refuses_what_cannot_be_drawn(case):
    with pytest.raises(ValueError, match="pass@k: needs 1 <= k <= n"):
        pass_at_k(*case)


points = st.lists(st.tuples(st.integers(1, 500), st.floats(0, 1)), min_size=2, max_size=8, unique_by=lambda p: p[0])


@given(points)
def test_the_area_is_numpys_trapezoid_over_the_logarithm(found):
    tokens, accuracy = zip(*sorted(found), strict=True)
    x = np.log(tokens)
    assert area(found) == pytest.approx(np.trapezoid(accuracy, x) / (x[-1] - x[0]), abs=1e-9)
    assert 0 <= area(found) <= 1


@pytest.mark.parametrize(
    "found, expected",
    [
        ([(10, 0.3), (1000, 0.3)], 0.3),  # a constant
        ([(10, 0.0), (100, 0.0), (1000, 1.0)], 0.25),
        ([(10, 0.0), (10, 1.0), (20, 0.5)], 0.5),  # two of one length: their mean
        ([(10, None), (20, 0.5)], None),
        ([], None),
    ],
)
def test_areas_by_hand(found, expected):
    assert area(found) == (expected if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    "base, line, expected",
    [
        ((100, 0.5), (60, 0.5), 0.4),
        ((100, 0.5), (60, 0.6), 0.4 + 3 * 0.2),
        ((100, 0.5), (60, 0.4), 0.4 - 5 * 0.2),
        ((100, 0.5), (150, 0.5), -0.5),
        ((100, 0.0), (50, 0.5), None),  # of a base that is never correct nothing is a share
        ((100, None), (50, 0.5), None),
        ((100, 0.5), (50, None), None),
    ],
)
def test_aes(base, line, expected):
    found = aes(*({"mean_length": length, "accuracy": accuracy} for length, accuracy in (base, line)))
    assert found == (expected if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    "accuracy, tokens, expected", [(1.0, 0, 100.0), (0.0, 0, 0.0), (0.75, 10_000 * (math.e - 1), 65.0)]
)
def test_ock_score_has_a_natural_logarithm(accuracy, tokens, expected):
    assert ock_score(accuracy, tokens) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    "tokens, size, expected",
    [
        ([1, 2, 3, 4, 5], 4, 0.0),
        ([1, 2, 3, 4] * 2, 4, 0.2),  # 5 grams, of which the first comes again
        ([7] * 10, 4, 6 / 7),
        ([1, 2, 3], 4, None),
        ([1, 1, 1], 1, 2 / 3),
        ([], 4, None),
    ],
)
def test_repetition(tokens, size, expected):
    assert repetition(tokens, size) == (expected if expected is None else pytest.approx(expected))


class TestRows:
    def test_lengths_are_told_apart_by_correctness_and_what_has_no_grade_counts_in_neither(self):
        rows = [outcome(0, 10), outcome(1, 20), outcome(2, 60, 0.0), outcome(3, 999, None)]
        line = efficiency(rows)
        assert (line["correct_length"], line["incorrect_length"], line["tokens_per_correct"]) == (15, 60, 45)
        assert line["ock_score"] == pytest.approx(200 / 3 - 10 * math.log(30 / 10_000 + 1))
        assert "samples" not in line and line["repetition"] is None

    def test_what_nobody_got_right_has_no_price(self):
        line = efficiency([outcome(0, 10, 0.0)])
        assert line["correct_length"] is line["tokens_per_correct"] is None and line["incorrect_length"] == 10
        nothing = efficiency([outcome(0, 10, None)])
        assert {nothing[name] for name in ("correct_length", "tokens_per_correct", "ock_score")} == {None}

    def test_repetition_is_of_tokens_where_they_are_known_and_of_words_else(self):
        text = "a b c d a b c d"
        assert efficiency([outcome(0, 8, completion=text)])["repetition"] == pytest.approx(0.2)
        ids = [1, 2, 3, 4, 5]
        assert efficiency([outcome(0, 8, completion=text, completion_ids=ids)])["repetition"] == 0
        assert efficiency([outcome(0, 8, completion=None)])["repetition"] is None

    def test_several_samples_of_a_question(self):
        rows = [outcome(0, 9, c) for c in (1.0, 0.0, 0.0, 1.0)] + [outcome(1, 9, c) for c in (0.0, 0.0, 0.0, 1.0)]
        found = sampled(rows)
        assert found["samples"] == 4 and found["mean_at_k"] == 0.375
        assert found["pass_at_k"] == {"1": 0.375, "2": pytest.approx((1 - 1 / 6 + 0.5) / 2), "4": 1.0}
        uneven = sampled([*rows, outcome(1, 9), outcome(1, 9)])  # six of one: k is what all have
        assert uneven["samples"] == 4 and uneven["mean_at_k"] == pytest.approx((0.5 + 0.5) / 2)
        three = sampled([row for number, row in enumerate(rows) if number % 4])
        assert three["samples"] == 3 and list(three["pass_at_k"]) == ["1", "2", "3"]
        assert sampled(rows[::4]) == {} and sampled([outcome(0, 9, None)] * 2) == {} and sampled([]) == {}

    @pytest.mark.parametrize(
        "answers, expected",
        [
            ("4 4 5", 1.0),
            ("4 5 5", 0.0),
            ("4 5", 0.5),  # a tie is decided by chance
            ("4 5 6", 1 / 3),
            ("4 - -", 1.0),  # no answer is no vote
            ("- - -", 0.0),
            ("1/2=4 0.5=4 5", 1.0),  # correct in two spellings
            ("5 5 6 7 4 4", 0.5),
        ],
    )
    def test_the_majority(self, answers, expected):
        rows = []
        for answer in answers.split():
            said, _, value = answer.rpartition("=")
            text = "well" if answer == "-" else f"\\boxed{{{said or value}}}"
            rows.append(outcome(0, 9, float(value == "4"), completion=text))
        assert majority(rows) == pytest.approx(expected)


class TestCaps:
    ROWS = [outcome(q, n, c) for q, n, c in ((0, 4, 1.0), (1, 8, 1.0), (2, 16, 0.0), (3, 64, 1.0), (4, 9, None))]

    def test_a_completion_over_the_cap_is_incorrect_and_one_of_its_length_is_not(self):
        found = spectrum(self.ROWS, 64)
        assert found["caps"] == [64, 32, 16, 8, 4] and found["accuracies"] == [0.75, 0.5, 0.5, 0.5, 0.25]
        assert "majorities" not in found
        assert spectrum(self.ROWS, 63)["accuracies"][0] == 0.5

    def test_a_small_maximum_has_fewer_caps(self):
        assert spectrum(self.ROWS, 3)["caps"] == [3, 2, 1] and spectrum(self.ROWS, 1)["area"] is None

    def test_votes_are_cast_within_the_cap(self):
        rows = [outcome(0, 10, 1.0), *[outcome(0, 40, 0.0, completion="\\boxed{7}")] * 2]
        assert spectrum(rows, 40)["majorities"] == [0.0, 1.0, 1.0, 0.0, 0.0]

    def test_the_largest_cap_is_the_bases(self):
        rows = [outcome(0, 30), {**outcome(1, 99), "truncated": True}]
        assert natural_maximum(rows) == 30 and natural_maximum(rows[1:]) == 99 and natural_maximum([]) is None
        assert measure(rows)["spectrum"]["max"]["caps"][0] == 30
        assert measure(rows, 80)["spectrum"]["max"]["caps"] == [80, 40, 20, 10, 5]

    def test_a_mode_is_capped_at_its_largest_budget(self):
        rows = [outcome(0, 5, 0.0, budget=10), outcome(0, 40, budget=80), outcome(0, 30, mode="free", budget=None)]
        found = measure(rows)
        assert found["spectrum"]["max"]["accuracies"] == [1.0, 0.0, 0.0, 0.0, 0.0]
        assert set(found["spectrum"]) == set(found["area"]) == {"max", "free"}
        assert found["area"] == {"max": 0.5, "free": None}


def levelled(budgets=(20, 40), mode="max", level=("easy", "hard")):
    return [
        outcome(q, b // 2, float(q == 0), mode, b, level=level[q], completion="x") for q in range(2) for b in budgets
    ]


def test_levels_at_the_largest_maximum_are_in_the_report_and_only_there():
    page = to_markdown(adherence(LABELS, {"trained": measure(levelled())}))
    assert "## By difficulty at the largest maximum budget" in page
    assert "| after RL | 40 | easy | 1 | 20.0 | 100.0 |" in page and "| after RL | 20 | easy |" not in page
    for other in (levelled(mode="exact"), levelled(level=(None, None))):
        assert "largest maximum" not in to_markdown(adherence(LABELS, {"trained": measure(other)}))
    rows = measure([*levelled(), *levelled((90,), "exact")])["rows"]
    assert [(line["mode"], line["budget"]) for line in rows if "by_level" in line] == [("max", 40)]


def test_the_page_says_what_accuracy_costs_and_holds_it_against_the_base(tmp_path):
    base = measure([outcome(q, 40) for q in range(4)])
    trained = measure([outcome(q, 20, float(q > 0)) for q in range(4)], base["natural_maximum"])
    elsewhere = {**trained, "title": "other questions", "comparable": False}
    result = adherence(LABELS, {"baseline": base, "trained": trained, "more": elsewhere})
    write_result(result, tmp_path)
    page = (tmp_path / "adherence.md").read_text()
    assert read_result(tmp_path) == result and page == to_markdown(result)
    assert "| after RL | max | 20 | 20.0 | 20.0 | 26.7 | 74.98 | -0.75 |" in page  # 1/2 - 5/4
    assert "| before (untrained base) | max | 20 | 40.0 | - | 40.0 | 99.96 | - |" in page
    assert "| other questions | max | 20 | 20.0 | 20.0 | 26.7 | 74.98 | - |" in page
    assert "| after RL | max | 40 | 75.0 | 75.0 | 0.0 | 0.0 | 0.0 |" in page and "mean@k" not in page


def test_a_page_of_several_samples_says_so():
    rows = [outcome(0, 10, c, completion=f"\\boxed{{{int(c)}}}") for c in (1.0, 0.0, 0.0)]
    page = to_markdown(adherence(LABELS, {"baseline": measure(rows)}))
    assert "| k | mean@k | pass@k | majority accuracy |" in page and "| 3 | 33.3 | 100.0 | 0.0 |" in page


@pytest.mark.parametrize("adapter", ["l1_exact", "l1_maxlen"])
def test_trap_results_without_these_measures_have_no_lines_for_them(adapter):
    page = to_markdown(read_result(ROOT / "data" / adapter))
    assert not any(title in page for title in ("## Efficiency", "## Accuracy under a cap", "largest maximum"))


def test_measures_of_before_are_what_they_were():
    line = row(levelled()[::2])
    assert list(line)[:2] == ["mode", "budget"] and line["accuracy"] == 0.5 and line["mean_length"] == 10
    assert list(line).index("over_budget") < list(line).index("correct_length")


def test_saved_predictions_have_them_too(tmp_path):
    said = ["It is \\boxed{4}.", "The answer is 5.", "The answer is 5.", "I see \\boxed{6}"]
    rows = [{"question": "2+2", "answer": "4", "completion": text, "tokens": 10 + n} for n, text in enumerate(said)]
    path = tmp_path / "predictions.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    result, _ = measure_predictions([path], columns={"length": "tokens", "completion": "completion"})
    [line] = result.rows("predictions")
    assert line["samples"] == 4 and line["mean_at_k"] == 0.25 and line["pass_at_k"]["2"] == 0.5
    assert line["majority_accuracy"] == 0  # two say 5, in words
    assert (line["correct_length"], line["incorrect_length"], line["tokens_per_correct"]) == (10, 12, 46)
    assert result.blocks["predictions"]["spectrum"]["free"]["caps"][0] == 13
    assert "## Efficiency" in to_markdown(result)


def test_an_evaluation_caps_every_model_by_the_longest_completion_of_the_base(tmp_path):
    settings = Evaluation(
        adapter=[str(ROOT / "data" / "l1_maxlen")],
        budgets=[24],
        modes=["max"],
        num_questions=4,
        num_samples=2,
        max_completion_length=96,
    )
    result = evaluate(settings, tmp_path)
    base, trained = result.blocks["baseline"], result.blocks["trained"]
    assert base["natural_maximum"] == trained["natural_maximum"] == trained["spectrum"]["max"]["caps"][0]
    assert base["rows"][0]["samples"] == 2 and set(base["rows"][0]["by_level"]) <= {"easy", "medium", "hard"}

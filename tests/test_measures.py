"""The measures, against numbers worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rlred.evaluation.measures import measure, rank_correlation, row, step_metrics, wilson


def outcome(question_id, budget, length, correct=1.0, mode="exact"):
    about = {"question_id": question_id, "mode": mode, "budget": budget}
    return {**about, "length": length, "correct": correct, "truncated": False}


def test_a_row_of_the_table():
    line = row([outcome(0, 10, 8), outcome(1, 10, 12), outcome(2, 10, 16, 0.0), outcome(3, 10, 10, None)])
    assert line["n"] == 4 and line["mean_length"] == 11.5
    assert line["mean_error"] == pytest.approx(0.15)
    assert line["mean_abs_error"] == pytest.approx(0.25)
    assert line["rmse"] == pytest.approx((0.04 + 0.04 + 0.36 + 0) ** 0.5 / 2)
    assert line["over_budget"] == 0.5
    assert line["accuracy"] == pytest.approx(2 / 3)  # the unreadable gold answer has no opinion


def test_trap_a_signed_mean_cannot_see_a_constant_length():
    constant = measure([outcome(q, budget, 40) for q in range(8) for budget in (20, 40, 80)])
    dial = measure([outcome(q, budget, budget) for q in range(8) for budget in (20, 40, 80)])
    assert constant["rank_correlation"] == 0 and constant["spread_ratio"] == 1
    assert dial["rank_correlation"] == pytest.approx(1) and dial["spread_ratio"] == dial["asked_spread_ratio"] == 4
    assert constant["overall"]["exact"]["mean_abs_error"] == pytest.approx(0.5)


def test_the_correlation_is_within_a_question():
    # Long for question 1, short for question 0, whatever the budget: no dial, though pooled lengths vary.
    outcomes = [outcome(q, budget, 100 * q) for q in range(2) for budget in (10, 20)]
    assert measure(outcomes)["rank_correlation"] == 0


def test_accuracy_at_full_length_leaves_out_early_stops_and_completions_that_were_cut():
    outcomes = [outcome(0, 10, 5, 0.0), outcome(0, 20, 30, 1.0), outcome(1, 10, 40, 0.0), outcome(1, 20, 8, 1.0)]
    outcomes.append({**outcome(0, 30, 99, 0.0), "truncated": True})
    full = measure(outcomes)["full_length"]
    assert full["n"] == 2 and full["mean_length"] == 35 and full["accuracy"] == 0.5


def test_free_rows_have_no_errors():
    report = measure([outcome(0, None, 33, mode="free"), outcome(0, 10, 10), outcome(0, 20, 20)])
    free = next(line for line in report["rows"] if line["mode"] == "free")
    assert free["budget"] is None and free["mean_error"] is None and free["mean_length"] == 33
    assert report["overall"]["free"]["mean_abs_error"] is None and report["overall"]["free"]["mean_length"] == 33


def test_step_metrics():
    rows = [outcome(0, 10, 10), outcome(0, 20, 30), outcome(1, 40, 30, mode="max"), outcome(1, 20, 10, mode="max")]
    metrics = step_metrics([*rows, outcome(2, None, 5, mode="free")])
    assert metrics["adherence/mean_abs_error"] == pytest.approx((0 + 0.5 + 0.25 + 0.5) / 4)
    assert metrics["adherence/over_budget"] == 0.25
    assert metrics["adherence/max/over_budget"] == 0
    assert metrics["adherence/batch_rank_correlation"] == pytest.approx(1)
    assert metrics["adherence/rank_correlation"] == pytest.approx(1)
    # Upper half: 40 alone (30 tokens), lower: 10, 20, 20 (10, 30, 10); asked 2.4 times as much, used 1.8 times.
    assert metrics["adherence/spread_ratio"] == pytest.approx((1.8 - 1) / (2.4 - 1))
    assert step_metrics([outcome(0, None, 5, mode="free")]) == {}


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=3, max_size=30))
def test_rank_correlation_is_scipys(pairs):
    x, y = zip(*pairs, strict=True)
    if len(set(x)) > 1 and len(set(y)) > 1:
        assert rank_correlation(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    else:
        assert rank_correlation(x, y) == 0


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_wilson_interval_is_scipys(counts):
    k, n = counts
    expected = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-4)

"""Budgets: wording, sampling, rows and headroom."""

import random

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from rlred.data.budgets import WORDINGS, BudgetSampler, Wording, check_headroom, make_wording, training_rows

QUESTIONS = Dataset.from_list([{"question_id": i, "question": f"{i}+{i}=?", "solution": str(2 * i)} for i in range(10)])


def test_the_wording_of_l1_is_the_default():
    asked = "1+1=? Let's think step by step and output the final answer within \\boxed{}."
    assert Wording().ask("1+1=?", 512, "exact") == asked + " Think for exactly 512 tokens."
    assert Wording().ask("1+1=?", 512, "max") == asked + " Think for maximum 512 tokens."
    assert Wording().ask("1+1=?", None, "free") == asked
    assert WORDINGS["l1_released"].ask("1+1=?", 512, "exact") == asked + " Think for 512 tokens."


def test_a_question_keeps_its_own_braces():
    question = "Is {budget} or {question} in \\{x\\}?"
    assert question in Wording().ask(question, 10, "max")


@pytest.mark.parametrize(
    "templates, message",
    [
        ({"exact": "Think for {budget} tokens."}, "wording.exact has no {question}"),
        ({"exact": "{question} Think."}, "wording.exact needs the placeholder {budget}"),
        ({"free": "{question} {budget}"}, "wording.free must not contain"),
        ({"exact": "{question} {budget}", "max": "{question} {budget}"}, "the same sentence"),
        ({"exact": "{question} Think for maximum {budget} tokens, please."}, "wording.exact says 'maximum'"),
        ({"max": "{question} Think for exactly {budget} tokens, please."}, "wording.max says 'exactly'"),
        ({"soft": "{question}"}, "unknown mode 'soft'"),
        ("l2", "no preset named 'l2'"),
    ],
)
def test_trap_a_wording_that_contradicts_its_mode(templates, message):
    with pytest.raises(ValueError, match=message.replace("{", r"\{").replace("}", r"\}")):
        make_wording(templates)


@pytest.mark.parametrize(
    "budget, mode", [(None, "exact"), (0, "max"), (-5, "exact"), (1.5, "max"), (True, "max"), (5, "free"), (5, "some")]
)
def test_trap_no_sentinel_budgets(budget, mode):
    with pytest.raises(ValueError, match="budget|mode"):
        Wording().ask("?", budget, mode)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"low": 10, "high": 10}, "budget_low must be below"),
        ({"low": 0, "high": 10}, "budget must be a whole number"),
        ({"low": 1.5, "high": 10}, "budget must be a whole number"),
        ({"distribution": "normal"}, "budget_distribution"),
        ({"distribution": "choices"}, "budget_choices is empty"),
        ({"distribution": "choices", "choices": (5, -1)}, "budget must be a whole number"),
        ({"modes": {"soft": 1}}, "modes: must be among"),
        ({"modes": {"exact": 0}}, "at least one"),
        ({"modes": {}}, "at least one"),
        ({"modes": {"exact": -1}}, "weight"),
        ({"modes": {"exact": float("nan")}}, "weight"),
    ],
)
def test_a_sampler_that_cannot_draw(settings, message):
    with pytest.raises(ValueError, match=message):
        BudgetSampler(**settings)


@given(st.integers(1, 500), st.integers(1, 500), st.sampled_from(["uniform", "log_uniform"]), st.integers())
def test_budgets_stay_in_their_range(low, width, distribution, seed):
    sampler = BudgetSampler(low, low + width, distribution, modes={"exact": 1, "max": 2, "free": 1})
    rng = random.Random(seed)
    for mode, budget in (sampler.draw(rng) for _ in range(20)):
        assert (budget is None) == (mode == "free")
        assert budget is None or low <= budget <= low + width
    assert sampler.grid(5)[0] == low and sampler.grid(5)[-1] == low + width


def test_log_uniform_draws_each_doubling_as_often_as_the_next():
    sampler, rng = BudgetSampler(100, 1600, "log_uniform"), random.Random(0)
    drawn = [sampler.draw(rng)[1] for _ in range(4000)]
    shares = [sum(low <= budget < 2 * low for budget in drawn) / len(drawn) for low in (100, 200, 400, 800)]
    assert all(abs(share - 0.25) < 0.03 for share in shares)


def test_choices_and_modes_are_drawn_by_weight():
    sampler, rng = (
        BudgetSampler(distribution="choices", choices=(8, 32), modes={"exact": 1, "max": 3}),
        random.Random(0),
    )
    drawn = [sampler.draw(rng) for _ in range(2000)]
    assert {budget for _, budget in drawn} == {8, 32} and sampler.bounds == (8, 32) and sampler.grid() == [8, 32]
    assert abs(sum(mode == "max" for mode, _ in drawn) / 2000 - 0.75) < 0.04


def test_training_rows_are_seeded_and_drawn_afresh_each_epoch():
    def rows(seed):
        return training_rows(
            QUESTIONS, Wording(), BudgetSampler(16, 9999), num_rows=60, budgets_per_question=2, seed=seed
        )

    first, again, other = rows(0), rows(0), rows(1)
    assert list(first) == list(again) != list(other)
    assert first.column_names == ["question_id", "question", "solution", "prompt", "budget", "mode"]
    epochs = [first.select(range(start, start + 20)) for start in (0, 20, 40)]
    for epoch in epochs:
        assert sorted(epoch["question_id"]) == sorted([*range(10)] * 2)  # every question once, at two budgets
        assert epoch["question_id"][::2] == epoch["question_id"][1::2]  # which are neighbours
    assert len({tuple(epoch["question_id"]) for epoch in epochs}) == 3
    assert len(set(first["budget"])) > 50
    for row in first:
        assert row["prompt"][0]["content"].endswith(f"Think for exactly {row['budget']} tokens.")


def test_training_rows_of_nothing():
    with pytest.raises(ValueError, match="no questions"):
        training_rows(QUESTIONS.select([]), Wording(), BudgetSampler(), num_rows=4)
    with pytest.raises(ValueError, match="budgets_per_question"):
        training_rows(QUESTIONS, Wording(), BudgetSampler(), num_rows=4, budgets_per_question=0)


@pytest.mark.parametrize("cap, fits", [(64, False), (70, False), (71, True), (80, True)])
def test_trap_a_completion_cap_close_to_the_largest_budget(cap, fits):
    if fits:
        check_headroom(64, cap)
    else:
        with pytest.raises(ValueError, match="set it to 71 or more"):
            check_headroom(64, cap)

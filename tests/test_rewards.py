"""The rewards as pure functions: tables worked out by hand, properties, and the bugs that others shipped."""

import copy
import pickle
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlred.rewards import REWARDS, ByMode, Correctness, ExactLength, Length, MaxLength, SlackLength, make_reward

RIGHT, WRONG = "</think>\\boxed{4}", "</think>\\boxed{5}"


def score(reward, correct, n, budget, mode="exact"):
    """One reward for a completion of n tokens."""
    [value] = reward(
        completions=[RIGHT if correct else WRONG],
        completion_ids=[[7] * n],
        solution=["4"],
        budget=[budget],
        mode=[mode],
    )
    return value


@pytest.mark.parametrize(
    "alpha, correct, n, budget, expected",
    [
        (3e-4, True, 1000, 1000, 1.0),
        (3e-4, True, 1100, 1000, 0.97),
        (3e-4, True, 900, 1000, 0.97),
        (3e-4, False, 1100, 1000, -0.03),
        (3e-4, True, 0, 1000, 0.7),
        (1 / 3000, True, 4000, 1000, 0.0),  # the released code's scale: 3000 tokens off costs the whole answer
        (1 / 3000, False, 4000, 1000, -1.0),
        (0.05, True, 66, 16, -1.5),  # unbounded below, as in the paper
    ],
)
def test_exact_length_is_correctness_minus_the_price_of_the_distance(alpha, correct, n, budget, expected):
    assert score(ExactLength(alpha=alpha), correct, n, budget) == pytest.approx(expected)


@pytest.mark.parametrize(
    "alpha, correct, n, budget, expected",
    [
        (1e-3, True, 1000, 1000, 0.5),
        (1e-3, True, 500, 1000, 1.0),
        (1e-3, True, 100, 1000, 1.0),
        (1e-3, True, 1250, 1000, 0.25),
        (1e-3, True, 1500, 1000, 0.0),
        (1e-3, True, 4000, 1000, 0.0),
        (1e-3, False, 100, 1000, 0.0),
        (3e-4, True, 2000, 1000, 0.2),  # the paper's alpha is a ramp of 3,333 tokens
        (1e-3, True, 0, 400, 0.9),
    ],
)
def test_max_length_is_a_ramp_gated_by_correctness(alpha, correct, n, budget, expected):
    assert score(MaxLength(alpha=alpha), correct, n, budget) == pytest.approx(expected)


def test_relative_deviation_costs_the_same_at_every_budget():
    exact, maximum = ExactLength(alpha=0.5, deviation="relative"), MaxLength(alpha=2.0, deviation="relative")
    for budget in (20, 200, 2000):
        assert score(exact, True, budget * 3 // 2, budget) == pytest.approx(0.75)
        assert score(maximum, True, budget * 11 // 10, budget) == pytest.approx(0.3)


def test_the_penalty_can_be_bounded():
    assert score(ExactLength(alpha=0.05, max_penalty=2.0), False, 1000, 10) == -2.0


def test_presets_are_the_papers_and_the_released_codes():
    assert ExactLength.preset("paper") == ExactLength() == ExactLength(alpha=3e-4)
    assert ExactLength.preset("released").alpha == 1 / 3000
    assert MaxLength.preset("released") == MaxLength() == MaxLength(alpha=1e-3, delta=0.5)
    assert MaxLength.preset("paper").alpha == 3e-4


def test_trap_sigmoid_sign_bug_distance_is_never_rewarded():
    # L1's refactored sigmoid Exact grows with |N - n|.
    values = [score(ExactLength(alpha=0.01), True, n, 100) for n in range(0, 201, 20)]
    assert values.index(max(values)) == 5 and values == values[::-1]


def test_trap_additive_max_a_short_wrong_answer_earns_nothing():
    # L1's multiplier-off Max adds its ramp to correctness, which pays short wrong answers up to 1.
    assert score(MaxLength(), False, 1, 4000) == 0.0
    assert score(ByMode(), False, 1, 4000, mode="max") == 0.0


def test_trap_multiplied_exact_keeps_a_gradient():
    # L1's multiplier flag turns every exact reward into max(0, -alpha * distance) * c = 0.
    assert len({score(ByMode(), True, n, 1000, mode="exact") for n in (900, 950, 1000)}) == 3


def test_trap_no_sentinels_the_mode_is_a_column_not_a_sign():
    with pytest.raises(ValueError, match="mode must be"):
        score(ByMode(), True, 10, 10, mode=-1)


def test_a_reward_inside_by_mode_is_named_as_text_or_as_a_mapping():
    nested = make_reward({"name": "by_mode", "exact": "exact_length", "max": {"name": "max_length", "alpha": 0.1}})
    assert (nested.exact, nested.max) == (ExactLength(), MaxLength(alpha=0.1))
    for wrong, message in (
        ("exact_lenght", "no reward is named 'exact_lenght'"),
        (3, "by_mode.exact must be a reward"),
    ):
        with pytest.raises(ValueError, match=message):
            make_reward({"name": "by_mode", "exact": wrong})


def test_by_mode_follows_each_row():
    reward = ByMode(exact=ExactLength(alpha=0.01), max=MaxLength(alpha=0.05))
    values = reward(
        completions=[RIGHT, RIGHT, RIGHT, WRONG, WRONG],
        completion_ids=[[0] * 20] * 5,
        solution=["4"] * 5,
        budget=[10, 10, None, 30, 30],
        mode=["exact", "max", "free", "max", "exact"],
        trainer_state=object(),
        other_column=[1, 2, 3, 4, 5],
    )
    assert values == pytest.approx([0.9, 0.0, 1.0, 0.0, -0.1])


def test_rows_without_a_budget_are_scored_by_correctness_alone():
    for reward in (ExactLength(alpha=1.0), MaxLength(alpha=1.0)):
        assert score(reward, True, 500, None) == 1.0
        assert score(reward, False, 500, None) == 0.0


def test_an_unreadable_solution_is_no_opinion():
    for reward in (Correctness(), ExactLength(), MaxLength(), ByMode()):
        values = reward(
            completions=[RIGHT], completion_ids=[[1]], solution=[""], budget=[10], mode=["exact"], unused=[None]
        )
        assert values == [None]


def test_empty_completions_and_empty_batches():
    for reward in (Correctness(), ExactLength(), MaxLength(), ByMode()):
        [value] = reward(completions=[""], completion_ids=[[]], solution=["4"], budget=[10], mode=["max"])
        assert value <= 0
        assert reward(completions=[], completion_ids=[], solution=[], budget=[], mode=[]) == []


def test_columns_of_different_lengths_are_an_error():
    with pytest.raises(ValueError):
        ExactLength()(completions=[RIGHT], completion_ids=[[1], [2]], solution=["4"], budget=[1])


lengths = st.integers(0, 5000)
budgets = st.integers(1, 5000)


@given(lengths, budgets, st.floats(0, 1), st.booleans())
def test_exact_length_is_highest_at_the_budget_and_symmetric(n, budget, alpha, correct):
    reward = ExactLength(alpha=alpha)
    assert reward.score(correct, n, budget) <= reward.score(correct, budget, budget) == correct
    mirrored = 2 * budget - n
    if mirrored >= 0:
        assert reward.score(correct, n, budget) == pytest.approx(reward.score(correct, mirrored, budget))
    assert reward.score(1.0, n, budget) - reward.score(0.0, n, budget) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "correct, n, expected",
    [
        (1.0, 4, 0.96),  # a tenth of the price for each tenth of the budget
        (1.0, 40, 0.6),
        (1.0, 41, -0.5),  # the ramp has ended, and the overrun is penalised
        (0.0, 40, 0.0),  # a short incorrect completion earns nothing of the price
        (0.0, 4, 0.0),
        (0.0, 41, -0.5),  # trap: without the penalty it would be the same as staying within
    ],
)
def test_a_maximum_as_a_bound_has_a_price_and_holds_incorrect_completions_back(correct, n, expected):
    reward = MaxLength(alpha=1.0, delta=1.0, price=0.4, over_penalty=0.5)
    assert reward.score(correct, n, 40) == pytest.approx(expected)


def test_what_follows_a_decided_overrun_changes_nothing():
    reward, row = MaxLength(alpha=0.25, delta=0.5, over_penalty=0.5), {"solution": "4", "budget": 40}
    decided = reward.decided_after(row)
    assert decided == 42 and reward.score(1.0, decided - 1, 40) > reward.score(0.0, decided - 1, 40)
    assert {reward.score(c, n, 40) for c in (0.0, 1.0) for n in range(decided, 60)} == {-0.5}


@given(lengths, budgets, st.floats(0, 1), st.floats(0, 1))
def test_max_length_is_bounded_and_never_rewards_one_more_token(n, budget, alpha, delta):
    reward = MaxLength(alpha=alpha, delta=delta)
    assert 0 <= reward.score(1.0, n + 1, budget) <= reward.score(1.0, n, budget) <= 1
    assert reward.score(1.0, budget, budget) == pytest.approx(delta)
    assert reward.score(0.0, n, budget) == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 50), st.integers(1, 50)), min_size=2, max_size=8))
def test_rewards_do_not_depend_on_the_order_of_the_batch(rows):
    for reward in (ExactLength(alpha=0.1), MaxLength(alpha=0.1)):
        forward = [score(reward, *row) for row in rows]
        together = reward(
            completions=[RIGHT if correct else WRONG for correct, _, _ in rows][::-1],
            completion_ids=[[1] * n for _, n, _ in rows][::-1],
            solution=["4"] * len(rows),
            budget=[budget for _, _, budget in rows][::-1],
        )
        assert together[::-1] == forward


def test_length_counts_tokens_end_of_sequence_included():
    assert Length()([1, 2, 3]) == 3
    assert Length(count="thinking", end_of_thinking=9)([1, 2, 9, 4, 9]) == 2
    assert Length(count="thinking", end_of_thinking=9)([1, 2, 3]) == 3
    with pytest.raises(ValueError, match="needs length.end_of_thinking"):
        Length(count="thinking")([1, 2, 3])  # nobody has told it
    assert score(ExactLength(alpha=1.0, length=Length("thinking", 7)), True, 5, 0 + 1) == 0.0


NEEDED = {
    "cosine_length": {"max_length": 100},
    "soft_overlong": {"max_length": 100, "cache": 20},
    "length_bonus": {"targets": [10, 20, 30]},
}


@pytest.mark.parametrize("name", sorted(REWARDS))
def test_rewards_are_frozen_picklable_comparable_and_named(name):
    reward = make_reward({"name": name, **NEEDED.get(name, {})})
    assert pickle.loads(pickle.dumps(reward)) == reward == copy.deepcopy(reward)
    assert reward.__name__ == name
    assert isinstance(hash(reward), int)
    with pytest.raises(AttributeError):
        reward.alpha = 1


@pytest.mark.parametrize(
    "spec, message",
    [
        ("nonsense", "no reward is named 'nonsense'"),
        (3, "expected a name"),
        ({"alpha": 1.0}, "no reward is named None"),
        ({"name": "exact_length", "alfa": 1}, "alfa"),
        ({"name": "exact_length", "alpha": -1}, "exact_length.alpha"),
        ({"name": "exact_length", "alpha": float("nan")}, "exact_length.alpha"),
        ({"name": "exact_length", "max_penalty": -1}, "exact_length.max_penalty"),
        ({"name": "exact_length", "deviation": "percent"}, "deviation must be"),
        ({"name": "exact_length", "preset": "mine"}, "no preset 'mine'"),
        ({"name": "exact_length", "preset": "paper", "alpha": 1}, "'paper' fixes"),
        ({"name": "max_length", "delta": 2}, "max_length.delta"),
        ({"name": "max_length", "price": 1}, "max_length.price must be 0 or more and below 1, got 1"),
        ({"name": "max_length", "over_penalty": -1}, "max_length.over_penalty"),
        ({"name": "max_length", "length": {"count": "words"}}, "length.count"),
        ({"name": "max_length", "length": {"count": "thinking", "end_of_thinking": "</think>"}}, "a token's id"),
        ({"name": "correctness", "seconds": 60}, "correctness.seconds"),
        ({"name": "correctness", "end_of_thinking": 5}, "end_of_thinking must be a text or None"),
        ({"name": "no_such_module.reward"}, "cannot import"),
        ({"name": "math.floor_of_nothing"}, "cannot import"),
        ({"name": "math.floor", "alpha": 1}, "takes no parameters"),
        ({"name": "correctness", "preset": "paper"}, "correctness"),
    ],
)
def test_a_wrong_reward_in_yaml_is_one_clear_line(spec, message):
    with pytest.raises(ValueError, match=message) as raised:
        make_reward(spec)
    assert "\n" not in str(raised.value)


def test_a_dotted_name_is_imported():
    import math

    assert make_reward("math.floor") is math.floor
    assert make_reward({"name": "rlred.rewards.ExactLength", "alpha": 0.5}) == ExactLength(alpha=0.5)


def test_a_window_without_a_grade_leaves_the_gate_of_slack_length_as_it_was():
    log = [{"rewards/correctness/mean": value} for value in (0.5, None)]
    reward, state = SlackLength(tolerance=0.1), SimpleNamespace(log_history=log)
    assert reward.is_open([1.0, 0.0], state) and not reward.is_open([0.0, 0.0], state)

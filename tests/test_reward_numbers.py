"""Every number that a reward takes: what is none, what is not finite or out of range, and what weighs nothing."""

import dataclasses
import math
import typing

import pytest
from trl import GRPOConfig

from rlred.checks.audit import audit_rewards
from rlred.checks.audit_weights import audit_weights
from rlred.rewards import REWARDS, make_reward
from rlred.rewards.base import Reward, TokenCost

NEEDED = {
    "cosine_length": {"max_length": 64},
    "length_bonus": {"targets": [8]},
    "soft_overlong": {"max_length": 64, "cache": 16},
    "truncation": {"limit": 8},
    "visual_sparsity": {"reference_length": 8},
}
# Fields that take values below 0, and those that take 0; every other number is to be above it.
BELOW = {
    "cosine_length": "correct_short correct_long incorrect_short incorrect_long exceed",
    "difficulty_length": "low",
    "effort_length": "over",
    "grpo_lead": "incorrect",
    "length_bonus": "incorrect no_answer",
    "length_efficiency": "low high",
    "thinkless": "incorrect",
    "uncertainty_budget": "easy",
}
ZERO = {
    "adapt_think": "delta",
    "difficulty_length": "weight quantile",
    "effort_length": "quantile alpha delta",
    "exact_length": "alpha",
    "gr3": "alpha",
    "group_sigmoid": "alpha ends",
    "grpo_lead": "alpha",
    "kimi_length": "weight warmup_steps",
    "laconic": "rate ceiling initial",
    "lead": "alpha momentum floor initial",
    "length_bonus": "bonus",
    "length_efficiency": "accuracy_weight",
    "max_length": "alpha delta price over_penalty",
    "request_threshold": "penalty threshold",
    "shortest_correct": "correct alpha",
    "slack_length": "slack weight tolerance",
    "soft_overlong": "weight",
    "solve_rate_penalty": "alpha",
    "thinkless": "thinking",
    "toggle": "accuracy quantile",
    "truncation": "beyond ends",
    "turn_cost": "output input turns",
    "uncertainty_budget": "easy_budget hard_budget stretch",
    "visual_sparsity": "visual_weight text_weight",
}


def types_in(hint) -> set:
    inner = typing.get_args(hint)
    return set().union(*map(types_in, inner)) if inner else {hint}


NOT_ABOVE = {name: f"{BELOW.get(name, '')} {ZERO.get(name, '')}" for name in REWARDS}
NUMBERS = [
    (name, item.name)
    for name, kind in sorted(REWARDS.items())
    for item in dataclasses.fields(kind)
    if types_in(item.type) & {int, float}
]


def made(name: str, field: str, value) -> Reward:
    """A reward with one number in a field, as a YAML would have it."""
    placed = {"targets": [value], "ends": [value], "stages": [[0, value]]}.get(field, value)
    told = {**NEEDED.get(name, {}), field: placed}
    if field == "stages":
        del told["limit"]
    return make_reward({"name": name, **told})


def test_most_rewards_take_numbers():
    assert len(NUMBERS) > 80 and len({name for name, _ in NUMBERS}) > 25


@pytest.mark.parametrize("name, field", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "0.1", "x", True, [0.5]], ids=str)
def test_what_is_no_finite_number_is_one_clear_line(name, field, value):
    ends = {("length_efficiency", "low"): -math.inf, ("length_efficiency", "high"): math.inf}
    if ends.get((name, field)) == value:  # no bound
        assert made(name, field, value)
        return
    if field in ("targets", "ends", "stages") and isinstance(value, list):
        value = [["x"]]
    with pytest.raises(ValueError) as raised:
        made(name, field, value)
    text = str(raised.value)
    assert text.startswith(f"{name}.{field} must ") and "\n" not in text


@pytest.mark.parametrize("name, field", NUMBERS)
@pytest.mark.parametrize("value, taken", [(-1, BELOW), (0, NOT_ABOVE)], ids=["below", "zero"])
def test_a_value_out_of_range_is_one_clear_line(name, field, value, taken):
    """Named by the field, or by another of the same reward that it does not go with."""
    if field in taken.get(name, "").split():
        assert made(name, field, value)
        return
    with pytest.raises(ValueError, match=rf"^{name}\.\w+[^\n]* got [^\n]*$"):
        made(name, field, value)


@pytest.mark.parametrize(
    "spec, message",
    [
        ({"name": "shortest_correct", "alpha": "1e-3"}, r"alpha must be a number, got '1e-3' \(YAML .* 1.0e-3 is"),
        ({"name": "laconic", "budget": 10.5}, "laconic.budget must be a whole number, got 10.5"),
        ({"name": "length_bonus", "targets": "64"}, "length_bonus.targets must be a list of numbers, got '64'"),
        ({"name": "by_mode", "max": {"name": "max_length", "alpha": math.nan}}, "max_length.alpha must be a finite"),
    ],
)
def test_the_line_says_what_would_be_right(spec, message):
    with pytest.raises(ValueError, match=message):
        make_reward(spec)


def test_whole_numbers_may_be_written_as_either():
    assert make_reward({"name": "laconic", "budget": 64.0}).budget == 64
    assert make_reward({"name": "shortest_correct", "alpha": 1}).alpha == 1


def test_a_reward_of_ones_own_is_checked_too():
    @dataclasses.dataclass(frozen=True)
    class Mine(Reward):
        strength: float = 0.5
        words: tuple[str, ...] = ("a",)
        most: int | None = None
        __name__ = "mine"

    assert Mine(most=None).strength == 0.5 and Mine(words=("b",))
    with pytest.raises(ValueError, match="mine.strength must be a finite number, got nan"):
        Mine(math.nan)


def findings(spec, longest=100):
    """The audit's words on the weight of length in a run."""
    config = GRPOConfig("unused", use_cpu=True, bf16=False, max_completion_length=longest, report_to="none")
    return [str(one) for one in audit_rewards(config, [make_reward(spec)], {"free"}) if "reward." in str(one)]


SCALED = [(name, kind.length_factor) for name, kind in sorted(REWARDS.items()) if kind.length_factor]


@pytest.mark.parametrize("name, field", SCALED)
def test_a_weight_of_nothing_is_warned_of(name, field):
    spec = {"name": name, **NEEDED.get(name, {}), "group_size": 4}
    if "group_size" not in {item.name for item in dataclasses.fields(REWARDS[name])}:
        del spec["group_size"]
    [line] = findings({**spec, field: 0}, longest=2_000)
    assert f"reward.{field}" in line and "correctness alone is left" in line
    assert findings({**spec, field: 0.5}, longest=2_000) == []


@pytest.mark.parametrize(
    "spec, longest, said",
    [
        ({"alpha": 0}, 100, "costs 0, next to nothing beside the 2 of a correct answer"),
        ({"alpha": 0.0009}, 100, "costs 0.09, next to nothing"),
        ({"alpha": 0.001}, 100, None),
        ({"alpha": 0.03}, 96, None),  # the board's
        ({"alpha": 0.001}, 16384, None),  # the paper's
        ({"alpha": 0.2}, 100, None),
        ({"alpha": 0.201}, 100, "costs 20.1, a correct answer gives 2: a short guess is worth more"),
        ({"alpha": 1e9}, 100, "a short guess is worth more"),
        ({"correct": 0}, 100, "a correct answer is worth nothing; raise it above 0"),
    ],
)
def test_the_alpha_of_shortest_correct_has_bounds(spec, longest, said):
    found = findings({"name": "shortest_correct", **spec, "group_size": 4}, longest)
    assert len(found) == (said is not None) and all(said in line for line in found)


def test_per_token_penalties_are_bounded_where_alpha_is_per_token():
    assert len(SCALED) > 10
    [line] = findings({"name": "solve_rate_penalty", "alpha": 0.2, "group_size": 4})
    assert "costs 20, a correct answer gives 1" in line
    assert len(findings({"name": "exact_length", "alpha": 0.2})) == 1
    assert findings({"name": "exact_length", "alpha": 0.2, "max_penalty": 2.0}) == []
    assert findings({"name": "exact_length", "alpha": 20.0, "deviation": "relative"}) == []


def test_a_reward_of_ones_own_declares_its_weight_as_any_other():
    @dataclasses.dataclass(frozen=True)
    class Mine(Reward):
        price: float = 0.0
        __name__ = "mine"
        length_factor = "price"

        def token_cost(self):
            return TokenCost(correct=1.0, alpha=0.5)

        def __call__(self, completions, **kwargs):
            return [0.0 for _ in completions]

    found = [str(one) for one in audit_weights([Mine()], 100)]
    assert len(found) == 2 and "takes length out of mine" in found[0] and "costs 50" in found[1]
    assert len(list(audit_weights([Mine(price=1.0)], 10))) == 0


@pytest.mark.parametrize(
    "spec, field",
    [
        ({"name": "laconic"}, "budget"),
        ({"name": "length_mask"}, "limit"),
        ({"name": "truncation", "limit": 4000}, "limit"),
        ({"name": "truncation", "stages": [[0, 4000], [10, 101]]}, "stages"),
        ({"name": "length_bonus", "targets": [101]}, "targets"),
        ({"name": "soft_overlong", "max_length": 200, "cache": 50}, "max_length"),
    ],
)
def test_a_term_of_length_that_no_completion_reaches_is_warned_of(spec, field):
    [line] = findings(spec, longest=100)
    assert line.startswith(f"reward.{field}=") and "no completion has more than 100" in line
    assert findings(spec, longest=16_384) == []


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "truncation", "limit": 100},  # the cap itself cuts there, as in DLER
        {"name": "truncation", "stages": [[0, 4000], [10, 64]]},
        {"name": "soft_overlong", "max_length": 120, "cache": 60},
        {"name": "length_bonus", "targets": [25, 40, 600], "group_size": 4},
    ],
)
def test_a_term_of_length_that_some_reach_is_not(spec):
    assert findings(spec, longest=100) == []

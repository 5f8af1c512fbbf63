"""Findings about the weight of length beside correctness: nothing, next to nothing, or more than any answer."""

from collections.abc import Callable, Iterable, Iterator

from rlred.checks.findings import Finding, warning
from rlred.rewards import (
    DifficultyLength,
    ExactLength,
    Gr3,
    GroupSigmoid,
    GrpoLead,
    KimiLength,
    Laconic,
    Lead,
    LengthBonus,
    ShortestCorrect,
    SlackLength,
    SoftOverlong,
    SolveRatePenalty,
    TurnCost,
)
from rlred.rewards.base import Reward, find

# Kinds whose whole effect of length hangs on one factor: the field, and its value.
FACTORS: dict[type, tuple[str, Callable]] = {
    DifficultyLength: ("weight", lambda reward: reward.weight),
    Gr3: ("alpha", lambda reward: reward.alpha),
    GroupSigmoid: ("alpha", lambda reward: reward.alpha),
    GrpoLead: ("alpha", lambda reward: reward.alpha),
    KimiLength: ("weight", lambda reward: reward.weight),
    Laconic: ("ceiling", lambda reward: reward.ceiling),
    Lead: ("alpha", lambda reward: reward.alpha),
    LengthBonus: ("bonus", lambda reward: reward.bonus),
    SlackLength: ("weight", lambda reward: reward.weight),
    SoftOverlong: ("weight", lambda reward: reward.weight),
    TurnCost: ("output", lambda reward: reward.output),
}
LEAST, MOST = 0.05, 10.0  # what the longest completion costs, as a share of a correct answer
# Kinds that take alpha off for each token: what a correct answer gives, whether alpha is per token in this one, and the
# least share; an exact length has none, whose cost is that of a deviation.
PER_TOKEN: dict[type, tuple[Callable, Callable, float]] = {
    ExactLength: (lambda reward: 1.0, lambda reward: (reward.deviation, reward.max_penalty) == ("absolute", None), 0.0),
    ShortestCorrect: (lambda reward: reward.correct, lambda reward: True, LEAST),
    SolveRatePenalty: (lambda reward: 1.0, lambda reward: True, LEAST),
}


def audit_weights(scoring: Iterable[Reward], longest: int) -> Iterator[Finding]:
    """Findings about the rewards of a run whose completions have `longest` tokens at most."""
    parts = list(dict.fromkeys(part for reward in scoring for part in find(reward, *FACTORS, *PER_TOKEN)))
    for part in parts:
        if type(part) in FACTORS:
            yield from _factor(part, *FACTORS[type(part)])
        else:
            yield from _per_token(part, longest, *PER_TOKEN[type(part)])


def _factor(reward: Reward, field: str, value_of: Callable) -> Iterator[Finding]:
    if value_of(reward) == 0:
        # The term of length is multiplied by it.
        advice = f"takes length out of {reward.__name__}, and correctness alone is left; raise it, or use correctness"
        yield warning(f"reward.{field}", value_of(reward), advice)


def _per_token(
    reward: Reward, longest: int, correct_of: Callable, applies: Callable, least: float
) -> Iterator[Finding]:
    correct, cost = correct_of(reward), reward.alpha * longest
    if not applies(reward):
        return
    if correct == 0:
        # Without the answer's own value the shortest completion is the best one, whatever it says.
        yield warning("reward.correct", correct, "a correct answer is worth nothing; raise it above 0")
    elif cost < least * correct:
        # docs/BOARD.md: 1.44 times the answer at the cap made it short at no loss; a twentieth is within the noise.
        advice = (
            f"the longest completion ({longest} tokens) costs {cost:.3g}, next to nothing beside the {correct:g} of a "
            "correct answer; 2 divided by the mean length was enough on the board"
        )
        yield warning("reward.alpha", reward.alpha, advice)
    elif cost > MOST * correct:
        # An incorrect answer of one token is then worth more than any thinking: the policy stops thinking.
        advice = (
            f"the longest completion ({longest} tokens) costs {cost:.3g}, and a correct answer gives {correct:g}: a "
            "short guess is worth more than an answer that is thought through; lower alpha"
        )
        yield warning("reward.alpha", reward.alpha, advice)

"""The audit's findings about advantages: who gives them, and what dividing them by a std makes of a length term.

A part says by `gives_advantages` that its advantages take the place of TRL's (rlred/training/trainer.py).
"""

from collections.abc import Callable, Iterator, Sequence

from trl import GRPOConfig

from rlred.checks.audit import Finding, error, warning
from rlred.rewards.base import declared

GDPO = "normalize_then_sum"  # TRL's name for it


def audit_advantages(training: GRPOConfig, rewards: Sequence[Callable], parts: Sequence) -> Iterator[Finding]:
    """Findings about parts that give advantages, beside each other and beside TRL's own settings."""
    weights, names = training.reward_weights, [declared(reward).__name__ for reward in rewards]
    if weights is not None and len(weights) != len(rewards):
        # TRL 1.16 refuses them as well, but only when the trainer is made: after the hindsight start.
        yield error("reward_weights", weights, f"needs {len(names)} numbers, one for each of {', '.join(names)}")
        return
    giving = [type(part).__name__ for part in parts if part.gives_advantages]
    if len(giving) > 1:
        # Parts whose weights are multiplied go together; advantages are a value of their own, not a weight.
        advice = f"each of {', '.join(giving)} takes the place of all advantages, which one alone can; keep one of them"
        yield error("parts", giving, advice)
    if training.multi_objective_aggregation == GDPO:
        yield from _gdpo(training, rewards, giving)
    elif giving and training.scale_rewards != "none":
        # What TRL divides is replaced afterwards (rlred/training/trainer.py).
        advice = f"changes nothing, for {giving[0]} gives the advantages and is not divided by a std; set it to 'none'"
        yield warning("scale_rewards", training.scale_rewards, advice)


def _gdpo(training: GRPOConfig, rewards: Sequence[Callable], giving: Sequence[str]) -> Iterator[Finding]:
    if giving:
        # TRL's sum of normalised rewards is replaced afterwards (rlred/training/trainer.py).
        advice = f"changes nothing, for {giving[0]} gives the advantages; leave one of the two out"
        yield error("multi_objective_aggregation", GDPO, advice)
        return
    weights = training.reward_weights or [1.0] * len(rewards)
    weighed = [declared(reward) for reward, weight in zip(rewards, weights, strict=True) if weight]
    if len(weighed) == 1 and not weighed[0].grades:
        # One reward less its mean over its std, group by group: that is scale_rewards="group", under another name.
        advice = (
            f"one reward alone, {weighed[0].__name__}, is divided by its group's std, as by scale_rewards='group'; "
            "give correctness a weight of its own (reward_weights: [1.0, 1.0]), or leave it at 'sum_then_normalize'"
        )
        yield warning("multi_objective_aggregation", GDPO, advice)
    # Arora & Zanette (2502.04463) of the std of an all-correct group; here each reward has a std of its own.
    for reward in [reward for reward in weighed if not reward.grades]:
        advice = (
            f"where all answers of a group are correct, only the length term of {reward.__name__} is left, and it is "
            "divided by its own std: a difference of one token counts as much as one of a thousand, and a small alpha "
            "as much as a large one; only a lower reward_weights holds it back"
        )
        yield warning("reward_weights", training.reward_weights, advice)

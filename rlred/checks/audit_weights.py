"""Findings about the weight of length beside correctness: nothing, next to nothing, or more than any answer.

A reward declares what is asked here: `length_factor`, `acts_from` and `token_cost` (rewards/base.py).
"""

from collections.abc import Iterable, Iterator

from rlred.checks.findings import Finding, warning
from rlred.rewards.base import Reward, TokenCost, declared

LEAST, MOST = 0.05, 10.0  # what the longest completion costs, as a share of a correct answer


def audit_weights(scoring: Iterable[Reward], longest: int) -> Iterator[Finding]:
    """Findings about the rewards of a run whose completions have `longest` tokens at most."""
    for part in dict.fromkeys(part for reward in scoring for part in declared(reward).parts()):
        if part.without_length:
            # The reward's own formula: its term of length is multiplied by this number.
            advice = f"takes length out of {part.__name__}, and correctness alone is left; raise it, or use correctness"
            yield warning(f"reward.{part.length_factor}", 0, advice)
        if part.acts_from and part.acts_from[1] > longest:
            # The reward's own formula: up to there all completions have the same.
            field, tokens = part.acts_from
            advice = (
                f"the term of length of {part.__name__} begins at {tokens} tokens, and no completion has more than "
                f"{longest}; lower it, or raise max_completion_length"
            )
            yield warning(f"reward.{field}", tokens, advice)
        cost = part.token_cost()
        if cost is not None:
            yield from _per_token(cost, longest)


def _per_token(cost: TokenCost, longest: int) -> Iterator[Finding]:
    total = cost.alpha * longest
    if cost.correct == 0:
        # Without the answer's own value the shortest completion is the best one, whatever it says.
        yield warning("reward.correct", cost.correct, "a correct answer is worth nothing; raise it above 0")
    elif total < LEAST * cost.correct and not cost.of_deviation:
        # docs/BOARD.md: 1.44 times the answer at the cap made it short at no loss; a twentieth is within the noise.
        advice = (
            f"the longest completion ({longest} tokens) costs {total:.3g}, next to nothing beside the {cost.correct:g} "
            "of a correct answer; 2 divided by the mean length was enough on the board"
        )
        yield warning("reward.alpha", cost.alpha, advice)
    elif total > MOST * cost.correct:
        # An incorrect answer of one token is then worth more than any thinking: the policy stops thinking.
        advice = (
            f"the longest completion ({longest} tokens) costs {total:.3g}, a correct answer gives {cost.correct:g}: a "
            "short guess is worth more than an answer that is thought through; lower alpha"
        )
        yield warning("reward.alpha", cost.alpha, advice)

"""Adaptive length penalty (ALP): every token costs, and more where the model solves the question more often."""

from dataclasses import dataclass, field
from statistics import fmean

from .base import Reward, TokenCost
from .correctness import Correctness
from .exact_length import check_non_negative
from .groups import check_group_size, groups_of
from .length import Length


@dataclass(frozen=True)
class SolveRatePenalty(Reward):
    r"""Correctness minus a penalty per token that is scaled by the group's solve rate.

    r = c - alpha * n * max(p, 1 / K), where p is the share of correct completions in the group of K. Correct or
    incorrect, a completion is penalised; on a question that is never solved, by a K-th of it.

    Range: (-inf, 1]. A row whose solution cannot be parsed is None. Raises `ValueError` for a negative alpha and for
    groups of one.

    Source: ALP (2506.05256), where alpha is beta / N with N a constant that makes lengths comparable. The default here
    takes 1/10 from an always-solved answer of 1,000 tokens; it is ours.

    >>> reward = SolveRatePenalty(alpha=0.01)
    >>> reward(["q"] * 4, ["\\boxed{4}"] * 2 + ["\\boxed{5}"] * 2, [[0] * 10] * 4, solution=["4"] * 4)
    [0.95, 0.95, -0.05, -0.05]
    """

    alpha: float = 1e-4
    group_size: int | None = None
    correctness: Correctness = field(default_factory=Correctness)
    length: Length = field(default_factory=Length)

    __name__ = "solve_rate_penalty"
    needs = ("solution",)
    group_relative = True

    def __post_init__(self):
        super().__post_init__()
        check_non_negative("solve_rate_penalty.alpha", self.alpha)
        check_group_size("solve_rate_penalty", self.group_size)

    def token_cost(self) -> TokenCost:
        return TokenCost(correct=1.0, alpha=self.alpha)

    def __call__(self, prompts, completions, completion_ids, solution, **kwargs) -> list[float | None]:
        grades = self.correctness(completions, solution=solution)
        rewards = list(grades)
        for group in groups_of(prompts, self.group_size):
            rate = max(fmean([grades[index] or 0.0 for index in group]), 1 / len(group))
            for index in group:
                if grades[index] is not None:
                    rewards[index] = grades[index] - self.alpha * self.length(completion_ids[index]) * rate
        return rewards

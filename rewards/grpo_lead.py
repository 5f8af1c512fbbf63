"""GRPO-LEAD: a correct answer counts exponentially less the longer it is among its group's correct ones."""

import math
from dataclasses import dataclass, field
from statistics import fmean, stdev

from .base import Reward
from .correctness import Correctness
from .exact_length import check_non_negative
from .groups import check_group_size, groups_of
from .length import Length


@dataclass(frozen=True)
class GrpoLead(Reward):
    r"""exp(-alpha * z) for a correct answer, `incorrect` for another one.

    z = (n - mean) / (std + 1e-6), mean and sample std over the lengths of the group's *correct* completions. The only
    correct one of a group has z = 0 and earns 1, whatever its length.

    Range: [incorrect, exp(alpha * sqrt(k))) with k correct completions. A row whose solution cannot be parsed is None.
    Raises `ValueError` for a negative alpha, `incorrect` above 0, and for groups of one.

    Source: GRPO-LEAD (2504.09696), where an incorrect answer has -1 (0 in its first version, second-hand), and its
    released code, which has alpha 0.05, the sample std, and leaves groups alone whose three shortest completions have
    4,000 tokens or less on average. This follows the paper, which has no such threshold. The paper's second half, a
    weight of the advantage by the group's accuracy, is no reward: `parts: {difficulty_weight: {}}` of a recipe.

    >>> reward = GrpoLead(alpha=0.5)
    >>> values = reward(["q"] * 3, ["\\boxed{4}"] * 2 + ["\\boxed{5}"], [[0] * 9, [0] * 11, [0] * 9], ["4"] * 3)
    >>> [round(value, 4) for value in values]  # z is -1 / sqrt(2) and 1 / sqrt(2)
    [1.4241, 0.7022, -1.0]
    """

    alpha: float = 0.05
    incorrect: float = -1.0
    group_size: int | None = None
    correctness: Correctness = field(default_factory=Correctness)
    length: Length = field(default_factory=Length)

    __name__ = "grpo_lead"
    needs = ("solution",)
    group_relative = True
    length_factor = "alpha"

    def __post_init__(self):
        super().__post_init__()
        check_non_negative("grpo_lead.alpha", self.alpha)
        if not -math.inf < self.incorrect <= 0:
            raise ValueError(f"grpo_lead.incorrect must be a finite number, 0 or less, got {self.incorrect!r}")
        check_group_size("grpo_lead", self.group_size)

    def __call__(self, prompts, completions, completion_ids, solution, **kwargs) -> list[float | None]:
        grades = self.correctness(completions, solution=solution)
        rewards = [grade if grade is None else self.incorrect for grade in grades]
        for group in groups_of(prompts, self.group_size):
            correct = {index: self.length(completion_ids[index]) for index in group if grades[index]}
            if correct:
                mean = fmean(correct.values())
                std = stdev(correct.values()) if len(correct) > 1 else 1.0
                for index, n in correct.items():
                    rewards[index] = math.exp(-self.alpha * (n - mean) / (std + 1e-6))
        return rewards

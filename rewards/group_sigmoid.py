"""Group-relative sigmoid (Arora & Zanette): a correct answer gets less the longer it is in its group."""

import math
from dataclasses import dataclass, field
from statistics import fmean, pstdev

from .base import Reward
from .correctness import Correctness
from .groups import check_ends, check_group_size, groups_of
from .length import Length


@dataclass(frozen=True)
class GroupSigmoid(Reward):
    r"""Correctness, less a share that grows with the length relative to the group's other correct answers.

    r = c * (1 - alpha * sigmoid((n - mean) / (std + 1e-7))), mean and population std over the lengths of the *correct*
    completions of the group. The only correct one of a group gets 1 - alpha / 2. `ends` are the ids of which one must
    close a completion, so that a truncated one gets nothing; without them, a cut is seen only by its
    missing answer.

    Range: [0, 1]. A row whose solution cannot be parsed is None. Raises `ValueError` for alpha outside [0, 1], and for
    groups of one. Needs `scale_rewards="none"`: divided by the group's std, an all-correct group's advantages do not
    depend on alpha, and lengths collapse.

    Source: 2502.04463, section 3, and its released code (alpha 0.05 to 0.4, RLOO).

    >>> reward = GroupSigmoid(alpha=0.2)
    >>> reward(["q"] * 3, ["\\boxed{4}"] * 2 + ["\\boxed{5}"], [[0] * 9] * 3, solution=["4"] * 3)
    [0.9, 0.9, 0.0]
    """

    alpha: float = 0.1
    ends: tuple[int, ...] = ()
    group_size: int | None = None
    correctness: Correctness = field(default_factory=Correctness)
    length: Length = field(default_factory=Length)

    __name__ = "group_sigmoid"
    needs = ("solution",)
    group_relative = True
    length_factor = "alpha"

    def __post_init__(self):
        super().__post_init__()
        check_ends("group_sigmoid", self.ends)
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"group_sigmoid.alpha must be between 0 and 1, got {self.alpha!r}")
        check_group_size("group_sigmoid", self.group_size)

    def __call__(self, prompts, completions, completion_ids, solution, **kwargs) -> list[float | None]:
        grades = self.correctness(completions, solution=solution)
        if self.ends:
            grades = [
                grade and float(bool(len(ids)) and ids[-1] in self.ends)
                for grade, ids in zip(grades, completion_ids, strict=True)
            ]
        rewards = list(grades)
        for group in groups_of(prompts, self.group_size):
            right = {index: self.length(completion_ids[index]) for index in group if grades[index]}
            if right:
                mean, std = fmean(right.values()), pstdev(right.values())
                for index, n in right.items():
                    rewards[index] = 1 - self.alpha / (1 + math.exp(-(n - mean) / (std + 1e-7)))
        return rewards

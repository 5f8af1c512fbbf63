"""The length reward of Kimi k1.5: from the group's shortest to its longest, a line from +1/2 to -1/2."""

from dataclasses import dataclass, field

from .base import Reward
from .correctness import Correctness
from .exact_length import check_non_negative
from .groups import check_group_size, groups_of
from .length import Length


@dataclass(frozen=True)
class KimiLength(Reward):
    r"""Correctness plus a share of where the length lies between the group's shortest and longest.

    With l = 1/2 - (n - min) / (max - min) over all completions of the group: r = c + weight * l for a correct answer
    and c + weight * min(0, l) for an incorrect one; a group of equal lengths has l = 0. For the first `warmup_steps`
    optimiser steps r = c, as the paper trains before it penalises.

    Range: [-weight / 2, 1 + weight / 2]. A row whose solution cannot be parsed is None. Raises `ValueError` for a
    negative weight or warm-up, and for groups of one.

    Source: Kimi k1.5 (2501.12599), section 2.3.3. It states no weight; Laser (2505.15612) tried 0.05 to 0.4.

    >>> reward = KimiLength(weight=0.4)
    >>> reward(["q"] * 3, ["\\boxed{4}"] * 2 + ["\\boxed{5}"], [[0] * 10, [0] * 30, [0] * 30], solution=["4"] * 3)
    [1.2, 0.8, -0.2]
    """

    weight: float = 0.2
    warmup_steps: int = 0
    group_size: int | None = None
    correctness: Correctness = field(default_factory=Correctness)
    length: Length = field(default_factory=Length)

    __name__ = "kimi_length"
    needs = ("solution",)
    group_relative = True
    length_factor = "weight"

    def __post_init__(self):
        super().__post_init__()
        check_non_negative("kimi_length.weight", self.weight)
        check_non_negative("kimi_length.warmup_steps", self.warmup_steps)
        check_group_size("kimi_length", self.group_size)

    def __call__(
        self, prompts, completions, completion_ids, solution, trainer_state=None, **kwargs
    ) -> list[float | None]:
        grades = self.correctness(completions, solution=solution)
        if trainer_state is not None and trainer_state.global_step < self.warmup_steps:
            return grades
        rewards = list(grades)
        for group in groups_of(prompts, self.group_size):
            lengths = {index: self.length(completion_ids[index]) for index in group}
            shortest, spread = min(lengths.values()), max(lengths.values()) - min(lengths.values())
            for index, n in lengths.items():
                if grades[index] is not None and spread:
                    line = 0.5 - (n - shortest) / spread
                    rewards[index] = grades[index] + self.weight * (line if grades[index] else min(0.0, line))
        return rewards

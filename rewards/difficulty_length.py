"""FAST: short answers to easy questions, long ones allowed where a hard one was not solved."""

from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from .base import Reward
from .correctness import Correctness
from .exact_length import check_non_negative
from .groups import check_group_size, groups_of
from .length import Length


@dataclass(frozen=True)
class DifficultyLength(Reward):
    r"""Correctness plus a length term whose sign depends on how hard the question is for the model now.

    difficulty = (1 - p) * x, p the group's share of correct answers and x the picture's complexity in [0, 1] (column
    `complexity`; 1 where there is none). A question is hard if its difficulty is above the `quantile` of the batch.
    With n tokens and L their mean over the batch, r = c + weight * t, where

        t = max(1 - n/L, low)    easy and correct
        t = min(n/L - 1, 1)      hard and incorrect
        t = 0                    otherwise

    so a short correct answer to an easy question gains, and so does a long incorrect one to a hard question. Without
    `low` (the released code) a correct answer of four times the mean length gets less than an incorrect one.

    Range: [-weight, 1 + weight]. A row whose solution cannot be parsed is None. Raises `ValueError` for a negative
    weight, a quantile outside [0, 1], low outside [-1, 0], and groups of one. The batch is what TRL hands over: the
    rollouts of one process.

    Source: FAST (2504.18458) and its released code, weight 0.5, quantile 0.8. The code counts characters, rewards only
    the first four fifths of a group, and has 0.5 for every picture's complexity; its format reward is left to a reward
    of its own. `low` is ours.

    >>> reward = DifficultyLength()
    >>> rows = {"solution": ["4"] * 4}
    >>> reward(["q"] * 4, ["\\boxed{4}"] * 4, [[0] * 10, [0] * 30, [0] * 20, [0] * 20], **rows)
    [1.25, 0.75, 1.0, 1.0]
    """

    weight: float = 0.5
    quantile: float = 0.8
    low: float = -0.5
    group_size: int | None = None
    correctness: Correctness = field(default_factory=Correctness)
    length: Length = field(default_factory=Length)

    __name__ = "difficulty_length"
    needs = ("solution",)
    group_relative = True
    length_factor = "weight"

    def __post_init__(self):
        super().__post_init__()
        check_non_negative("difficulty_length.weight", self.weight)
        check_group_size("difficulty_length", self.group_size)
        if not 0 <= self.quantile <= 1:
            raise ValueError(f"difficulty_length.quantile must be between 0 and 1, got {self.quantile!r}")
        if not -1 <= self.low <= 0:
            raise ValueError(f"difficulty_length.low must be between -1 and 0, got {self.low!r}")

    def __call__(self, prompts, completions, completion_ids, solution, complexity=None, **kwargs) -> list[float | None]:
        grades = self.correctness(completions, solution=solution)
        lengths = [self.length(ids) for ids in completion_ids]
        mean = max(fmean(lengths), 1)
        groups = groups_of(prompts, self.group_size)
        difficulties = [
            (1 - fmean([grades[index] or 0.0 for index in group])) * (complexity[group[0]] if complexity else 1)
            for group in groups
        ]
        hard = float(np.quantile(difficulties, self.quantile))
        rewards = list(grades)
        for group, difficulty in zip(groups, difficulties, strict=True):
            for index in group:
                if grades[index] is not None:
                    ratio = lengths[index] / mean
                    rewards[index] = grades[index] + self.weight * self._term(grades[index], difficulty > hard, ratio)
        return rewards

    def _term(self, correct: float, hard: bool, ratio: float) -> float:
        if correct and not hard:
            return max(1 - ratio, self.low)
        if not correct and hard:
            return min(ratio - 1, 1.0)
        return 0.0

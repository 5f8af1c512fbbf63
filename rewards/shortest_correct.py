"""Shortest correct (ShorterBetter): the group's shortest correct answer is the length to aim at."""

from dataclasses import dataclass, field
from statistics import fmean

from .base import Reward, TokenCost
from .correctness import Correctness
from .exact_length import check_non_negative
from .groups import check_group_size, groups_of
from .length import Length


@dataclass(frozen=True)
class ShortestCorrect(Reward):
    r"""Correctness minus a penalty for the distance to the shortest correct length of the group.

    r = correct * c - alpha * |n - L|, where L is the length of the group's shortest correct completion, or its mean
    length where none is correct. Incorrect answers are penalised as well.

    Range: (-inf, correct]. A row whose solution cannot be parsed is None. Raises `ValueError` for a negative constant
    and for groups of one.

    Source: ShorterBetter (2504.21370) and its released code: correct 2.0, alpha 0.001.

    >>> reward = ShortestCorrect(alpha=0.01)
    >>> reward(["q"] * 3, ["\\boxed{4}"] * 2 + ["\\boxed{5}"], [[0] * 10, [0] * 30, [0] * 20], solution=["4"] * 3)
    [2.0, 1.8, -0.1]
    """

    correct: float = 2.0
    alpha: float = 0.001
    group_size: int | None = None
    correctness: Correctness = field(default_factory=Correctness)
    length: Length = field(default_factory=Length)

    __name__ = "shortest_correct"
    needs = ("solution",)
    group_relative = True

    def __post_init__(self):
        super().__post_init__()
        check_non_negative("shortest_correct.correct", self.correct)
        check_non_negative("shortest_correct.alpha", self.alpha)
        check_group_size("shortest_correct", self.group_size)

    def token_cost(self) -> TokenCost:
        return TokenCost(self.correct, self.alpha)

    def __call__(self, prompts, completions, completion_ids, solution, **kwargs) -> list[float | None]:
        grades = self.correctness(completions, solution=solution)
        rewards = list(grades)
        for group in groups_of(prompts, self.group_size):
            lengths = {index: self.length(completion_ids[index]) for index in group}
            right = [n for index, n in lengths.items() if grades[index]]
            aim = min(right) if right else fmean(lengths.values())
            for index, n in lengths.items():
                if grades[index] is not None:
                    rewards[index] = self.correct * grades[index] - self.alpha * abs(n - aim)
        return rewards

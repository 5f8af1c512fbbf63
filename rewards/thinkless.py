"""Thinkless: a correct answer without thinking gets more than one with, and an incorrect one loses either way."""

from dataclasses import dataclass, field

from .adapt_think import skips_thinking
from .base import Reward
from .correctness import Correctness, text_of


@dataclass(frozen=True)
class Thinkless(Reward):
    r"""1 for a correct answer without thinking, `thinking` for a correct one with, `incorrect` for any other.

    Range: [incorrect, 1]. A row whose solution cannot be parsed is None. Raises `ValueError` unless
    incorrect < thinking <= 1.

    Source: Thinkless (2505.13379), 1 - gamma for a correct answer with thinking; its released code has 0.5, later 0.8.

    >>> rows = ["</think>\\boxed{4}", "2+2</think>\\boxed{4}", "</think>\\boxed{5}"]
    >>> Thinkless()(rows, solution=["4"] * 3)
    [1.0, 0.5, -1.0]
    """

    thinking: float = 0.5
    incorrect: float = -1.0
    correctness: Correctness = field(default_factory=Correctness)

    __name__ = "thinkless"
    needs = ("solution",)

    def __post_init__(self):
        super().__post_init__()
        if not self.incorrect < self.thinking <= 1:
            raise ValueError(
                f"thinkless.thinking must be above incorrect and at most 1, got {self.thinking!r} and "
                f"incorrect={self.incorrect!r}"
            )

    def score(self, correct: float, skipped: bool) -> float:
        """The reward of one completion."""
        if not correct:
            return self.incorrect
        return 1.0 if skipped else self.thinking

    def __call__(self, completions, solution, **kwargs) -> list[float | None]:
        grades = self.correctness(completions, solution=solution)
        end = self.correctness.end_of_thinking
        return [
            grade if grade is None else self.score(grade, skips_thinking(text_of(text), end))
            for grade, text in zip(grades, completions, strict=True)
        ]

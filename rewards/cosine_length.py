"""Cosine length (Demystifying Long CoT): correct answers get more when short, incorrect ones lose less when long."""

import math
from dataclasses import dataclass, field

from .base import Reward
from .correctness import Correctness
from .length import Length


@dataclass(frozen=True)
class CosineLength(Reward):
    r"""A value between two ends of a half cosine over the length; another pair of ends for incorrect answers.

    r = long + (short - long) / 2 * (1 + cos(pi * n / max_length)) with the ends of a correct or of an incorrect answer,
    and `exceed` for a completion of max_length tokens or more, whose answer does not matter.

    Range: the hull of the five values. A row whose solution cannot be parsed is None. Raises `ValueError` for a
    max_length below 1. Incorrect answers are rewarded for length, which invites repetition: put
    `trl.rewards.get_repetition_penalty_reward` beside it, as the paper does.

    Source: appendix C.1 of 2502.03373 (correct 2 to 1, incorrect -10 to 0, exceed -10: `preset("paper", max_length)`).
    The defaults are the curve of `trl.rewards.get_cosine_scaled_reward`, which has no penalty for exceeding. That one
    is not called from here: it grades by itself, and hangs on a hostile answer outside the main thread (TRL 1.16).

    >>> reward = CosineLength(max_length=100, exceed=-10.0)
    >>> reward(["\\boxed{4}", "\\boxed{5}", "\\boxed{4}"], [[0] * 50, [0] * 50, [0] * 100], solution=["4"] * 3)
    [0.75, -0.75, -10.0]
    """

    max_length: int
    correct_short: float = 1.0
    correct_long: float = 0.5
    incorrect_short: float = -1.0
    incorrect_long: float = -0.5
    exceed: float | None = None
    correctness: Correctness = field(default_factory=Correctness)
    length: Length = field(default_factory=Length)

    __name__ = "cosine_length"
    needs = ("solution",)

    def __post_init__(self):
        super().__post_init__()
        if self.max_length < 1:
            raise ValueError(f"cosine_length.max_length must be 1 or more, got {self.max_length!r}")

    @classmethod
    def preset(cls, name: str, max_length: int = 4096) -> "CosineLength":
        """The constants of the `paper`, or of `trl`."""
        paper = {
            "correct_short": 2.0,
            "correct_long": 1.0,
            "incorrect_short": -10.0,
            "incorrect_long": 0.0,
            "exceed": -10.0,
        }
        return cls(max_length=max_length, **{"paper": paper, "trl": {}}[name])

    def score(self, correct: float, n: int) -> float:
        """The reward of one completion of `n` tokens."""
        if self.exceed is not None and n >= self.max_length:
            return self.exceed
        short, long = (
            (self.correct_short, self.correct_long) if correct else (self.incorrect_short, self.incorrect_long)
        )
        return long + (short - long) / 2 * (1 + math.cos(math.pi * min(n / self.max_length, 1.0)))

    def decided_after(self, row: dict) -> int | None:
        """The tokens after which a completion gets `exceed`, correct or not; None where there is no such length."""
        whole = self.exceed is not None and self.length.count == "completion"
        return self.max_length if whole and self.correctness.reads(row["solution"]) else None

    def __call__(self, completions, completion_ids, solution, **kwargs) -> list[float | None]:
        grades = self.correctness(completions, solution=solution)
        return [
            grade if grade is None else self.score(grade, self.length(ids))
            for grade, ids in zip(grades, completion_ids, strict=True)
        ]

"""PixelThink: a token budget that a question's difficulty sets and the model's uncertainty stretches."""

from dataclasses import dataclass, field

from .base import Reward
from .correctness import Correctness
from .exact_length import check_non_negative
from .length import Length


@dataclass(frozen=True)
class UncertaintyBudget(Reward):
    r"""Correctness times a ramp that falls from 1, at the question's own budget, to 0.

    r = c * clip(1 - (n - B) / span, 0, 1), n the completion's tokens. With difficulty d (column `difficulty`, 0 to 10)
    and uncertainty u in [0, 1] (column `uncertainty`; 0 where there is none),

        B = hard_budget + stretch * u    d >= hard
        no length term                   easy <= d < hard
        B = easy_budget                  d < easy

    u is the mean over the tokens of 1 - (p1 - p2), the gap between the two likeliest tokens.

    Range: [0, 1]. A row whose solution cannot be parsed is None. Raises `ValueError` for a span not above 0, a negative
    budget or stretch, easy above hard, and rows without a difficulty.

    Source: PixelThink (2505.23727) and its released code: span 500, budgets 96 and 256, stretch 25, limits 3.5 and 5.
    The code counts words of the whole response, takes a question without a difficulty for easy, and multiplies format
    points as well; a bonus below the budget that the paper describes is clipped away there too.

    >>> reward = UncertaintyBudget()
    >>> rows = {"solution": ["4"] * 2, "difficulty": [1, 7], "uncertainty": [0.5, 0.4]}
    >>> reward(["\\boxed{4}"] * 2, [[0] * 346] * 2, **rows)
    [0.5, 0.84]
    """

    span: float = 500.0
    easy_budget: int = 96
    hard_budget: int = 256
    stretch: float = 25.0
    easy: float = 3.5
    hard: float = 5.0
    correctness: Correctness = field(default_factory=Correctness)
    length: Length = field(default_factory=Length)

    __name__ = "uncertainty_budget"
    needs = ("solution", "difficulty")

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.span < float("inf"):
            raise ValueError(f"uncertainty_budget.span must be a finite number above 0, got {self.span!r}")
        for name in ("easy_budget", "hard_budget", "stretch"):
            check_non_negative(f"uncertainty_budget.{name}", getattr(self, name))
        if not self.easy <= self.hard:
            raise ValueError(f"uncertainty_budget.easy must not be above hard, got {self.easy!r} and {self.hard!r}")

    def budget(self, difficulty: float, uncertainty: float) -> float | None:
        """The token budget of a question; None in between easy and hard."""
        if difficulty >= self.hard:
            return self.hard_budget + self.stretch * min(max(uncertainty, 0.0), 1.0)
        return self.easy_budget if difficulty < self.easy else None

    def score(self, correct: float, n: int, difficulty: float, uncertainty: float) -> float:
        """The reward of one completion of `n` tokens."""
        budget = self.budget(difficulty, uncertainty)
        return correct * (1.0 if budget is None else min(max(1 - (n - budget) / self.span, 0.0), 1.0))

    def __call__(
        self, completions, completion_ids, solution, difficulty=None, uncertainty=None, **kwargs
    ) -> list[float | None]:
        if difficulty is None or any(value is None for value in difficulty):
            raise ValueError("uncertainty_budget needs the column 'difficulty', 0 to 10, in every row")
        grades = self.correctness(completions, solution=solution)
        return [
            grade if grade is None else self.score(grade, self.length(ids), hardness, doubt)
            for grade, ids, hardness, doubt in zip(
                grades, completion_ids, difficulty, uncertainty or [0.0] * len(grades), strict=True
            )
        ]

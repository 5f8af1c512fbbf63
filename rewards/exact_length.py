"""Exact length (LCPO-Exact): correctness minus a penalty for every token away from the budget."""

from dataclasses import dataclass, field

from .base import Reward, TokenCost
from .correctness import Correctness
from .length import Length


def check_non_negative(name: str, value: float | None) -> None:
    """Raises `ValueError` unless `value` is None or a finite number, 0 or more."""
    if value is not None and not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number, 0 or more, got {value!r}")


def check_deviation(name: str, value: str) -> None:
    """Raises `ValueError` unless `value` names a way to measure the distance to the budget."""
    if value not in ("absolute", "relative"):
        raise ValueError(f"{name} must be 'absolute' (tokens) or 'relative' (to the budget), got {value!r}")


@dataclass(frozen=True)
class ExactLength(Reward):
    r"""Correctness minus a penalty for the distance between the length and the budget.

    r = c - alpha * |n - N|, where c is 0 or 1, n the completion's tokens and N the budget. `deviation="relative"` uses
    |n - N| / N instead, so that alpha costs the same at every budget. `max_penalty` bounds the penalty; the paper's is
    unbounded. An incorrect answer is penalised as well. A row without a budget is scored by correctness alone; a row
    whose solution cannot be parsed is None.

    Range: (-inf, 1], or [-max_penalty, 1]. Raises `ValueError` for a negative alpha or max_penalty.

    Source: eq 8 of 2505.18227; eq 1 of L1 (2503.04697), alpha = 0.0003. The released code (before its refactoring)
    divides by 3000 instead: `ExactLength.preset("released")`. Its later `sigmoid` variant rewards the distance.

    >>> reward = ExactLength(alpha=0.01)
    >>> reward(["\\boxed{4}", "\\boxed{5}"], [[0] * 12, [0] * 7], solution=["4", "4"], budget=[10, 10])
    [0.98, -0.03]
    """

    alpha: float = 3e-4
    deviation: str = "absolute"
    max_penalty: float | None = None
    correctness: Correctness = field(default_factory=Correctness)
    length: Length = field(default_factory=Length)

    __name__ = "exact_length"
    needs = ("solution", "budget")

    def __post_init__(self):
        super().__post_init__()
        check_non_negative("exact_length.alpha", self.alpha)
        check_non_negative("exact_length.max_penalty", self.max_penalty)
        if self.max_penalty == 0:
            raise ValueError(
                "exact_length.max_penalty must be above 0, or empty for no bound, got 0: nothing would count"
            )
        check_deviation("exact_length.deviation", self.deviation)

    @classmethod
    def preset(cls, name: str) -> "ExactLength":
        """The constants of the `paper` (3e-4) or of the `released` code (1/3000)."""
        return cls(alpha={"paper": 3e-4, "released": 1 / 3000}[name])

    def score(self, correct: float, n: int, budget: int) -> float:
        """The reward of one completion of `n` tokens."""
        distance = abs(n - budget) / (budget if self.deviation == "relative" else 1)
        penalty = self.alpha * distance
        return correct - (penalty if self.max_penalty is None else min(penalty, self.max_penalty))

    def token_cost(self) -> TokenCost | None:
        if (self.deviation, self.max_penalty) != ("absolute", None):
            return None
        return TokenCost(correct=1.0, alpha=self.alpha, of_deviation=True)

    def __call__(self, completions, completion_ids, solution, budget, **kwargs) -> list[float | None]:
        grades = self.correctness(completions, solution=solution)
        return [
            grade if grade is None or asked is None else self.score(grade, self.length(ids), asked)
            for grade, ids, asked in zip(grades, completion_ids, budget, strict=True)
        ]

"""Maximum length (LCPO-Max): full reward well inside the budget, none well beyond it or if incorrect."""

from dataclasses import dataclass, field

from .base import Reward
from .correctness import Correctness
from .exact_length import check_deviation, check_non_negative
from .length import Length, first_length


@dataclass(frozen=True)
class MaxLength(Reward):
    r"""Correctness times a ramp that falls from 1 to 0 around the budget.

    r = c * clip(alpha * (N - n) + delta, 0, 1), where c is 0 or 1, n the completion's tokens and N the budget.
    `deviation="relative"` uses (N - n) / N. The product is the gate: an additive penalty rewards a short incorrect
    answer, and the policy collapses to the shortest text (L1, appendix A.7). A row without a budget is scored by
    correctness alone; a row whose solution cannot be parsed is None.

    Range: [0, 1]. Raises `ValueError` for a negative alpha, or delta outside [0, 1].

    Source: eq 9 of 2505.18227; eq 2 of L1 (2503.04697) with delta = 0.5 and no alpha of its own. The released code
    saturates 500 tokens away from the budget, which is alpha = 1e-3, the default here; `MaxLength.preset("paper")`
    takes the only alpha that the paper states, 3e-4, a ramp of 3,333 tokens.

    Two terms are ours and off by default. `price` p makes tokens within the budget cost something: the product is
    multiplied by 1 - p * min(n, N) / N, which leaves correct answers ahead of incorrect ones. `over_penalty` q is taken
    from every completion of more than N tokens, correct or not: without it a question that cannot be solved within N
    earns 0 on either side of N, and nothing holds the completion back. The range is then [-q, 1].

    >>> reward = MaxLength(alpha=0.05)
    >>> reward(["\\boxed{4}"] * 3, [[0] * 6, [0] * 10, [0] * 20], solution=["4"] * 3, budget=[10] * 3)
    [0.7, 0.5, 0.0]
    >>> bound = MaxLength(alpha=1, delta=1, price=0.2, over_penalty=0.5)  # correct at half the budget, at it; over it
    >>> bound.score(1.0, 5, 10), bound.score(1.0, 10, 10), bound.score(1.0, 11, 10), bound.score(0.0, 11, 10)
    (0.9, 0.8, -0.5, -0.5)
    """

    alpha: float = 1e-3
    delta: float = 0.5
    deviation: str = "absolute"
    price: float = 0.0
    over_penalty: float = 0.0
    correctness: Correctness = field(default_factory=Correctness)
    length: Length = field(default_factory=Length)

    __name__ = "max_length"
    needs = ("solution", "budget")

    def __post_init__(self):
        super().__post_init__()
        check_non_negative("max_length.alpha", self.alpha)
        check_deviation("max_length.deviation", self.deviation)
        if not 0 <= self.delta <= 1:
            raise ValueError(f"max_length.delta must be between 0 and 1, got {self.delta!r}")
        check_non_negative("max_length.over_penalty", self.over_penalty)
        if not 0 <= self.price < 1:
            raise ValueError(f"max_length.price must be 0 or more and below 1, got {self.price!r}")

    @classmethod
    def preset(cls, name: str) -> "MaxLength":
        """The constants of the `paper` (alpha 3e-4) or of the `released` code (alpha 1e-3); delta is 0.5 in both."""
        return cls(alpha={"paper": 3e-4, "released": 1e-3}[name])

    def score(self, correct: float, n: int, budget: int) -> float:
        """The reward of one completion of `n` tokens."""
        room = (budget - n) / (budget if self.deviation == "relative" else 1)
        ramp = min(max(self.alpha * room + self.delta, 0.0), 1.0)
        return correct * ramp * (1 - self.price * min(n, budget) / budget) - self.over_penalty * (n > budget)

    def decided_after(self, row: dict) -> int | None:
        """The tokens after which what follows changes nothing: N + delta / alpha, above N.

        None where more tokens can still matter: without a budget or an alpha, where only the thinking is counted (it
        may have ended long ago), and for a solution that cannot be parsed, where the reward is None and not 0.

        >>> MaxLength(alpha=0.05).decided_after({"solution": "4", "budget": 10})
        20
        """
        budget = row["budget"]
        if budget is None or not self.alpha or self.length.count != "completion":
            return None
        if not self.correctness.reads(row["solution"]):
            return None
        window = self.delta / self.alpha * (budget if self.deviation == "relative" else 1)
        return first_length(
            lambda n: n > budget and self.score(1.0, n, budget) == self.score(0.0, n, budget), budget + window
        )

    def __call__(self, completions, completion_ids, solution, budget, **kwargs) -> list[float | None]:
        grades = self.correctness(completions, solution=solution)
        return [
            grade if grade is None or asked is None else self.score(grade, self.length(ids), asked)
            for grade, ids, asked in zip(grades, completion_ids, budget, strict=True)
        ]

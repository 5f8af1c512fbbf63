"""Length efficiency (O1-Pruner): shorter than the reference model at no loss of accuracy."""

import math
from dataclasses import dataclass, field

from .base import Reward
from .correctness import Correctness
from .exact_length import check_non_negative
from .length import Length, first_length


@dataclass(frozen=True)
class LengthEfficiency(Reward):
    r"""How much shorter than the reference model a completion is, plus how much more often correct.

    r = L_ref / n - 1 + accuracy_weight * (c - A_ref), where L_ref and A_ref are the mean length and the accuracy of the
    reference model's own samples for the question: the columns `reference_length` and `reference_accuracy`, which
    `rlred reference` makes. With `normalise="reference"` the first term is (L_ref - n) / L_ref. `low` and `high` clip.

    Range: (-inf, inf) without the clip. A row whose solution cannot be parsed is None. Raises `ValueError` for a
    negative weight, an unknown `normalise`, low above high, and rows without the two columns.

    Source: eq 10 of 2505.18227, accuracy_weight 2. The released code of O1-Pruner (2501.12570) divides by L_ref, has
    weight 5, clips to [-2, 4] and then standardises over the whole dataset: `LengthEfficiency.preset("released")` is
    that without the last step, which `scale_rewards="batch"` comes close to.

    >>> reward = LengthEfficiency(accuracy_weight=2.0)
    >>> rows = {"solution": ["4"] * 2, "reference_length": [40.0] * 2, "reference_accuracy": [0.5] * 2}
    >>> reward(["\\boxed{4}", "\\boxed{5}"], [[0] * 20, [0] * 40], **rows)
    [2.0, -1.0]
    """

    accuracy_weight: float = 2.0
    normalise: str = "completion"
    low: float = float("-inf")
    high: float = float("inf")
    correctness: Correctness = field(default_factory=Correctness)
    length: Length = field(default_factory=Length)

    __name__ = "length_efficiency"
    needs = ("solution", "reference_length", "reference_accuracy")

    def __post_init__(self):
        super().__post_init__()
        check_non_negative("length_efficiency.accuracy_weight", self.accuracy_weight)
        if self.normalise not in ("completion", "reference"):
            raise ValueError(f"length_efficiency.normalise must be 'completion' or 'reference', got {self.normalise!r}")
        for name, never in (("low", math.inf), ("high", -math.inf)):
            if getattr(self, name) == never:
                raise ValueError(f"length_efficiency.{name} must not be {never}: every reward would be; leave it out")
        if not self.low <= self.high:
            raise ValueError(f"length_efficiency.low must not be above high, got {self.low!r} and {self.high!r}")

    @classmethod
    def preset(cls, name: str) -> "LengthEfficiency":
        """The constants of the `paper` or of the `released` code."""
        released = {"accuracy_weight": 5.0, "normalise": "reference", "low": -2.0, "high": 4.0}
        return cls(**{"paper": {}, "released": released}[name])

    def score(self, correct: float, n: int, reference_length: float, reference_accuracy: float) -> float:
        """The reward of one completion of `n` tokens."""
        if self.normalise == "reference":
            shorter = (reference_length - n) / reference_length
        else:
            shorter = reference_length / max(n, 1) - 1
        return min(max(shorter + self.accuracy_weight * (correct - reference_accuracy), self.low), self.high)

    def decided_after(self, row: dict) -> int | None:
        """The tokens after which even a correct answer is worth no more than `low`; None where there is no such length.

        >>> LengthEfficiency.preset("released").decided_after(
        ...     {"solution": "4", "reference_length": 10.0, "reference_accuracy": 1.0}
        ... )
        30
        """
        mean_length, accuracy = row["reference_length"], row["reference_accuracy"]
        room = self.low + 1 - self.accuracy_weight * (1 - accuracy)
        if self.normalise == "reference":
            near = mean_length * (2 - room)
        else:
            near = mean_length / room if room > 0 else math.inf
        if self.length.count != "completion" or not self.correctness.reads(row["solution"]):
            return None
        return first_length(lambda n: self.score(1.0, n, mean_length, accuracy) == self.low, near)

    def __call__(
        self, completions, completion_ids, solution, reference_length=None, reference_accuracy=None, **kwargs
    ) -> list[float | None]:
        for name, column in (("reference_length", reference_length), ("reference_accuracy", reference_accuracy)):
            if column is None or any(value is None for value in column):
                raise ValueError(
                    f"length_efficiency needs the column {name!r} in every row; `rlred reference` makes it"
                )
        grades = self.correctness(completions, solution=solution)
        return [
            grade if grade is None else self.score(grade, self.length(ids), mean_length, accuracy)
            for grade, ids, mean_length, accuracy in zip(
                grades, completion_ids, reference_length, reference_accuracy, strict=True
            )
        ]

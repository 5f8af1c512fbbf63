"""Masked truncation (The Art of Efficient Reasoning): what is learned from, by correctness and length."""

from dataclasses import dataclass, field
from statistics import fmean

from .base import Reward, declared
from .correctness import Correctness
from .length import Length

CELLS = ("correct_short", "correct_long", "incorrect_short", "incorrect_long")


@dataclass(frozen=True)
class LengthMask(Reward):
    r"""1 for a correct answer within the limit, 0 for others, and no opinion (None) of the cells that are masked.

    r = c * [n <= limit]. The four cells are correct_short, correct_long, incorrect_short and incorrect_long, short
    meaning n <= limit. A masked completion is left out of its group by TRL, mean included, and has no gradient. No
    other reward may stand beside this one: its opinion, even at weight 0, would bring masked completions back as a 0.
    So the accuracy is logged by this reward (`rewards/correctness/mean`).

        ()                                    vanilla truncation
        ("correct_long",)                     the paper's best accuracy, and the default
        ("incorrect_short", "incorrect_long") trap: only length is learned ("short is correct"), collapse
        ("correct_long", "incorrect_short")   trap: the same
        ("correct_long", "incorrect_long")    trap: nothing holds long completions back, and they are incorrect

    Range: {0.0, 1.0} or None. A row whose solution cannot be parsed is None. Raises `ValueError` for a limit below 1, a
    cell that is none of the four, and a masked correct_short, which would leave nothing to learn.

    Source: 2602.20945, section 5, table 1, with a limit of 4k tokens; second-hand, from notes on the paper.

    >>> reward = LengthMask(limit=20)
    >>> lengths = [[0] * 20, [0] * 21, [0] * 20, [0] * 21]
    >>> reward(["\\boxed{4}"] * 2 + ["\\boxed{5}"] * 2, lengths, solution=["4"] * 4)
    [1.0, None, 0.0, 0.0]
    """

    limit: int = 4000
    masked: tuple[str, ...] = ("correct_long",)
    correctness: Correctness = field(default_factory=Correctness)
    length: Length = field(default_factory=Length)

    __name__ = "length_mask"
    needs = ("solution",)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "masked", tuple(self.masked))
        if self.limit < 1:
            raise ValueError(f"length_mask.limit must be 1 or more, got {self.limit!r}")
        for name in self.masked:
            if name not in CELLS[1:]:
                raise ValueError(f"length_mask.masked must name some of {', '.join(CELLS[1:])}, got {name!r}")

    @property
    def acts_from(self) -> tuple[str, int]:
        return "limit", self.limit

    @property
    def masks(self) -> bool:
        return bool(self.masked)

    def cell(self, correct: float, n: int) -> str:
        """The cell of a completion of `n` tokens.

        >>> LengthMask(limit=20).cell(1.0, 20), LengthMask(limit=20).cell(0.0, 21)
        ('correct_short', 'incorrect_long')
        """
        return f"{'correct' if correct else 'incorrect'}_{'short' if n <= self.limit else 'long'}"

    def __call__(self, completions, completion_ids, solution, log_metric=None, **kwargs) -> list[float | None]:
        grades = self.correctness(completions, solution=solution)
        known = [grade for grade in grades if grade is not None]
        if log_metric is not None and known and self.masks:
            log_metric(f"rewards/{declared(self.correctness).__name__}/mean", fmean(known))
        rewards = []
        for grade, ids in zip(grades, completion_ids, strict=True):
            cell = None if grade is None else self.cell(grade, self.length(ids))
            rewards.append(None if cell is None or cell in self.masked else float(cell == "correct_short"))
        return rewards

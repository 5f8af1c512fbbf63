"""LACONIC: tokens over the budget have a penalty, and a controller sets it until the mean length is the budget."""

from dataclasses import dataclass, field
from statistics import fmean

from .base import Reward
from .correctness import Correctness
from .exact_length import check_non_negative
from .length import Length
from .logged import last_logged


@dataclass(frozen=True)
class Laconic(Reward):
    r"""Correctness minus a penalty for the share of the budget that is exceeded; the penalty follows the mean length.

    r = c - lambda * max(0, (n - B) / B), for correct and incorrect answers alike. After every batch

        lambda <- min(max(lambda + rate * (mean(n) / B - 1), 0), ceiling)

    so that the penalty rises while completions are longer than the budget B on average, and falls while they are
    shorter.
    lambda and mean(n) / B are in the trainer's log (`laconic/B/...`), which checkpoints keep: a resumed run goes on
    with its lambda. Log every step; where several are logged as one, lambda moves for all of them at once.

    Range: (-inf, 1]. A row whose solution cannot be parsed is None, and its length counts all the same. Raises
    `ValueError` for a budget below 1, a negative rate, and unless 0 <= initial <= ceiling.

    Source: LACONIC (2602.14468) and the text of its released code: lambda begins at 0, rate 0.002 and budget 1500 for a
    model of 1.5 billion parameters. The ceiling of its runs is not shown, and 1 is ours. The code also has a floor of
    lambda, a cap of the penalty and a penalty for reaching the generation's limit; this follows the paper, without.

    >>> from types import SimpleNamespace
    >>> state = SimpleNamespace(log_history=[{"step": 1, "laconic/20/multiplier": 0.1, "laconic/20/length_ratio": 3.0}])
    >>> reward = Laconic(budget=20, rate=0.05)  # 0.1 + 0.05 * (3 - 1) = 0.2
    >>> reward(["\\boxed{4}"] * 2, [[0] * 20, [0] * 30], solution=["4"] * 2, trainer_state=state)
    [1.0, 0.9]
    """

    budget: int = 1500
    rate: float = 0.002
    ceiling: float = 1.0
    initial: float = 0.0
    correctness: Correctness = field(default_factory=Correctness)
    length: Length = field(default_factory=Length)

    __name__ = "laconic"
    needs = ("solution",)
    length_factor = "ceiling"

    def __post_init__(self):
        super().__post_init__()
        if self.budget < 1:
            raise ValueError(f"laconic.budget must be 1 or more, got {self.budget!r}")
        check_non_negative("laconic.rate", self.rate)
        check_non_negative("laconic.ceiling", self.ceiling)
        if not 0 <= self.initial <= self.ceiling:
            raise ValueError(
                f"laconic.initial must be between 0 and laconic.ceiling ({self.ceiling}), got {self.initial!r}"
            )

    @property
    def acts_from(self) -> tuple[str, int]:
        return "budget", self.budget

    @property
    def logged(self) -> tuple[str, str]:
        """The names in the trainer's log: lambda, and mean(n) / B. Two budgets of one run have names of their own."""
        return f"laconic/{self.budget}/multiplier", f"laconic/{self.budget}/length_ratio"

    def multiplier_at(self, trainer_state) -> float:
        """lambda: the last one logged, moved by the mean length that was logged with it; at first `initial`."""
        multiplier, ratio = self.logged
        found = last_logged(trainer_state, ratio)
        if found is None:
            return self.initial
        entry, steps = found
        moved = entry.get(multiplier, self.initial) + self.rate * steps * (entry[ratio] - 1)
        return min(max(moved, 0.0), self.ceiling)

    def score(self, correct: float, n: int, multiplier: float) -> float:
        """The reward of one completion of `n` tokens."""
        return correct - multiplier * max(0.0, (n - self.budget) / self.budget)

    def __call__(
        self, completions, completion_ids, solution, trainer_state=None, log_metric=None, **kwargs
    ) -> list[float | None]:
        multiplier, lengths = self.multiplier_at(trainer_state), [self.length(ids) for ids in completion_ids]
        if log_metric is not None and lengths:
            for name, value in zip(self.logged, (multiplier, fmean(lengths) / self.budget), strict=True):
                log_metric(name, value)
        return [
            grade if grade is None else self.score(grade, n, multiplier)
            for grade, n in zip(self.correctness(completions, solution=solution), lengths, strict=True)
        ]

"""Soft overlong punishment (DAPO): nothing until the last stretch before the cap, then a slope down to -1."""

from dataclasses import dataclass, field

from .base import Reward
from .correctness import Correctness
from .exact_length import check_non_negative
from .length import Length


@dataclass(frozen=True)
class SoftOverlong(Reward):
    r"""Correctness plus TRL's soft overlong punishment.

    r = c + weight * p(n) with p = 0 for n <= max_length - cache, (max_length - cache - n) / cache up to max_length, and
    -1 beyond. An incorrect answer is penalised as well.

    Range: [-weight, 1]. A row whose solution cannot be parsed is None. Raises `ValueError` unless 0 < cache <
    max_length, and for a negative weight.

    Source: DAPO (2503.14476), eq 13 (max_length 20480, cache 4096); `trl.rewards.get_soft_overlong_punishment`.

    >>> reward = SoftOverlong(max_length=100, cache=20)
    >>> reward(["\\boxed{4}"] * 3, [[0] * 80, [0] * 90, [0] * 101], solution=["4"] * 3)
    [1.0, 0.5, 0.0]
    """

    max_length: int
    cache: int
    weight: float = 1.0
    correctness: Correctness = field(default_factory=Correctness)
    length: Length = field(default_factory=Length)

    __name__ = "soft_overlong"
    needs = ("solution",)
    length_factor = "weight"

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.cache < self.max_length:
            raise ValueError(
                f"soft_overlong.cache must be above 0 and below max_length ({self.max_length}), got {self.cache!r}"
            )
        check_non_negative("soft_overlong.weight", self.weight)

    @property
    def acts_from(self) -> tuple[str, int]:
        return "max_length", self.max_length - self.cache

    def __call__(self, completions, completion_ids, solution, **kwargs) -> list[float | None]:
        from trl.rewards import get_soft_overlong_punishment

        grades = self.correctness(completions, solution=solution)
        # TRL's counts the ids that it is given: as many as the length that rewards and metrics share.
        counted = [range(self.length(ids)) for ids in completion_ids]
        punishments = get_soft_overlong_punishment(self.max_length, self.cache)(counted)
        return [
            grade if grade is None else grade + self.weight * punishment
            for grade, punishment in zip(grades, punishments, strict=True)
        ]

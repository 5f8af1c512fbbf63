"""Truncation (ThinkPrune, DLER): a correct answer counts only where it comes within the limit."""

from dataclasses import dataclass, field

from .base import Reward
from .correctness import Correctness
from .groups import check_ends
from .length import Length


@dataclass(frozen=True)
class Truncation(Reward):
    r"""Correctness within a limit of tokens, a share of it beyond.

    r = c for n <= limit, beyond * c for n > limit. Generation cut at the limit does the same and costs less: then set
    `max_completion_length` to the limit and leave `limit` out; `ends` are the ids of which one must close a completion
    that was not cut. Keep `mask_truncated_completions` off: it removes the gradient that this reward is made of.

    `stages` tightens the limit as training goes on: pairs (optimiser step, limit), the last one whose step is reached
    holds. A resumed run is in the stage of its step.

    Range: [0, 1]. A row whose solution cannot be parsed is None. Raises `ValueError` for a limit below 1, `beyond`
    outside [0, 1], stages whose steps do not grow from 0, and a limit beside stages.

    Source: ThinkPrune (2504.01296), `beyond` 0; DLER (2510.15110) says the same, and its released code multiplies by
    0.1 instead (`preset("dler_released")`), which is cheaper than an incorrect answer only where an incorrect one
    scores 0.

    >>> reward = Truncation(limit=20)
    >>> reward(["\\boxed{4}"] * 2, [[0] * 20, [0] * 21], solution=["4"] * 2)
    [1.0, 0.0]
    """

    limit: int | None = None
    stages: tuple[tuple[int, int], ...] = ()
    beyond: float = 0.0
    ends: tuple[int, ...] = ()
    correctness: Correctness = field(default_factory=Correctness)
    length: Length = field(default_factory=Length)

    __name__ = "truncation"
    needs = ("solution",)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "ends", tuple(self.ends))
        check_ends("truncation", self.ends)
        if not all(isinstance(stage, tuple | list) and len(stage) == 2 for stage in self.stages):
            raise ValueError(f"truncation.stages must be pairs [step, limit], got {self.stages!r}")
        object.__setattr__(self, "stages", tuple(map(tuple, self.stages)))
        for limit in [self.limit, *(limit for _, limit in self.stages)]:
            if limit is not None and limit < 1:
                raise ValueError(f"truncation.limit must be 1 or more, got {limit!r}")
        steps = [step for step, _ in self.stages]
        if steps and (steps[0] != 0 or steps != sorted(set(steps)) or self.limit is not None):
            raise ValueError(
                f"truncation.stages must be pairs (step, limit) with growing steps from 0, without a limit; got "
                f"{self.stages!r} and limit={self.limit!r}"
            )
        if not 0 <= self.beyond <= 1:
            raise ValueError(f"truncation.beyond must be between 0 and 1, got {self.beyond!r}")

    @property
    def acts_from(self) -> tuple[str, int] | None:
        if self.stages:
            return "stages", min(limit for _, limit in self.stages)
        return None if self.limit is None else ("limit", self.limit)

    @classmethod
    def preset(cls, name: str) -> "Truncation":
        """`paper` (nothing beyond the limit) or DLER's released code (a tenth)."""
        return cls(beyond={"paper": 0.0, "dler_released": 0.1}[name])

    def limit_at(self, step: int) -> int | None:
        """The limit that holds at an optimiser step.

        >>> [Truncation(stages=((0, 60), (30, 45))).limit_at(step) for step in (0, 29, 30)]
        [60, 60, 45]
        """
        return next((limit for start, limit in reversed(self.stages) if step >= start), self.limit)

    def decided_after(self, row: dict) -> int | None:
        """One token past the limit of the row's `trainer_state`: nothing is given there; None where a share is.

        >>> Truncation(limit=20).decided_after({"solution": "4"}), Truncation(limit=20, beyond=0.1).decided_after({})
        (21, None)
        """
        limit = self.limit_at(getattr(row.get("trainer_state"), "global_step", 0))
        if limit is None or self.beyond or self.length.count != "completion":
            return None
        return limit + 1 if self.correctness.reads(row["solution"]) else None

    def __call__(self, completions, completion_ids, solution, trainer_state=None, **kwargs) -> list[float | None]:
        limit = self.limit_at(getattr(trainer_state, "global_step", 0))
        rewards = []
        for grade, ids in zip(self.correctness(completions, solution=solution), completion_ids, strict=True):
            over = limit is not None and self.length(ids) > limit
            cut = bool(self.ends) and (not len(ids) or ids[-1] not in self.ends)
            rewards.append(grade * self.beyond if grade and (over or cut) else grade)
        return rewards

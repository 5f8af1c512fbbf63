"""One model, every mode: the reward that follows each row's `mode`."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from .base import OLD_MODES, Reward, bind, declared
from .correctness import Correctness
from .exact_length import ExactLength
from .max_length import MaxLength

MODES = ("exact", "max", "effort", "free")


def check_mode(mode: str) -> None:
    """Raises `ValueError` for a mode that is none of these."""
    if mode in OLD_MODES:
        raise ValueError(f"mode: {mode!r} is now called {OLD_MODES[mode]!r}")
    if mode not in MODES:
        raise ValueError(f"mode must be 'exact', 'max', 'effort' or 'free', got {mode!r}")


@dataclass(frozen=True)
class ByMode(Reward):
    r"""Scores `exact` rows by one reward, `max`, `effort` and `free` rows by one of their own each.

    This is the dual objective of L1-Max (2503.04697, section 3.2): eq 1 where the prompt asks for an exact length, eq 2
    where it asks for a maximum. The released code tells the modes apart by the sign of the budget; here they are a
    column. The parts take TRL's arguments and are asked only about their own rows.

    Range: that of the parts. Raises `ValueError` for a mode that is none of these, and a part that is no reward.

    >>> reward = ByMode(exact=ExactLength(alpha=0.01), max=MaxLength(alpha=0.05))
    >>> rows = {"solution": ["4"] * 3, "budget": [10, 10, None], "mode": ["exact", "max", "free"]}
    >>> reward(["\\boxed{4}"] * 3, [[0] * 20] * 3, **rows)
    [0.9, 0.0, 1.0]
    """

    exact: Callable = field(default_factory=ExactLength)
    max: Callable = field(default_factory=MaxLength)
    free: Callable = field(default_factory=Correctness)
    effort: Callable | None = None
    """None where no row asks for an effort, since its reward needs columns that other rows lack: `effort_length`."""

    __name__ = "by_mode"

    def __post_init__(self):
        super().__post_init__()
        for name in MODES:
            if not callable(getattr(self, name)) and (name, getattr(self, name)) != ("effort", None):
                raise ValueError(f"by_mode.{name} must be a reward, got {getattr(self, name)!r}")

    @property
    def needs(self) -> tuple[str, ...]:
        """The mode, and what the parts need."""
        return tuple(dict.fromkeys(["mode", *(name for part in self._own() for name in part.needs)]))

    @property
    def group_relative(self) -> bool:
        """Whether a part compares a completion with its group."""
        return any(part.group_relative for part in self._own())

    def parts(self) -> Iterator[Reward]:
        yield self
        for part in self._own():
            yield from part.parts()

    def for_mode(self, mode: str) -> Reward:
        """The part that scores the rows of a mode. Raises `ValueError` for a mode that is none of these."""
        return declared(self._of(mode)).for_mode(mode)

    def decided_after(self, row: dict) -> int | None:
        """What the part that scores this row says.

        >>> ByMode(max=MaxLength(alpha=0.05)).decided_after({"solution": "4", "budget": 10, "mode": "max"})
        20
        """
        return self.for_mode(row["mode"]).decided_after(row)

    def bind(self, group_size: int | None, ends: Iterable[int]) -> "ByMode":
        given = [name for name in MODES if getattr(self, name) is not None]
        return replace(self, **{name: bind(getattr(self, name), group_size, ends) for name in given})

    def _own(self) -> list[Reward]:
        return [declared(part) for part in (self.exact, self.max, self.free, self.effort) if part is not None]

    def _of(self, mode: str) -> Callable:
        check_mode(mode)
        if getattr(self, mode) is None:
            raise ValueError(f"by_mode.{mode}: rows ask for an effort, and no reward is named; name effort_length")
        return getattr(self, mode)

    def __call__(self, completions, completion_ids, mode, **columns) -> list[float | None]:
        rewards: list[float | None] = [None] * len(completions)
        for name in sorted(set(mode), key=str):
            part = self._of(name)
            rows = [index for index, value in enumerate(mode) if value == name]
            # One value per row is cut down to these rows; what the trainer passes beside the columns is handed on.
            own = {
                key: [value[i] for i in rows] if isinstance(value, list) and len(value) == len(mode) else value
                for key, value in columns.items()
            }
            scores = part(
                completions=[completions[i] for i in rows],
                completion_ids=[completion_ids[i] for i in rows],
                mode=[name] * len(rows),
                **own,
            )
            for index, score in zip(rows, scores, strict=True):
                rewards[index] = score
        return rewards

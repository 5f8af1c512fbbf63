"""What a reward may declare, with defaults. Trainer, audit and recipes ask a reward these questions and no others.

    @dataclass(frozen=True)
    class MyReward(Reward):
        group_size: int | None = None        told by `bind`, as is `ends`
        __name__ = "my_reward"               the name in the logs, unique among the rewards of a run
        needs = ("solution", "difficulty")   the columns that its call takes
        group_relative = True                whether a completion is compared with its group

`declared(reward)` answers for any callable: a `Reward` for itself, and `Foreign` for a function of one's own, one of
TRL's rewards, or an object with some of these attributes.
"""

import dataclasses
import functools
import typing
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .fields import check_fields
from .length import Length

# Old name -> new name: of a mode, and of a parameter. Both are refused with the new one.
OLD_MODES = {"none": "free"}
OLD_PARAMETERS = OLD_MODES | {
    "right": "correct",
    "wrong": "incorrect",
    "right_short": "correct_short",
    "right_long": "correct_long",
    "wrong_short": "incorrect_short",
    "wrong_long": "incorrect_long",
}


class TokenCost(typing.NamedTuple):
    """A cost that grows with every token, for the audit: beside a long completion it can be nothing, or everything."""

    correct: float
    """What a correct answer gives."""
    alpha: float
    """What a token costs."""
    of_deviation: bool = False
    """Whether the tokens are those away from the budget, of which there may be few."""


class Reward:
    """The base class of every reward. What it declares holds for all of it, the rewards inside it included."""

    needs: tuple[str, ...] = ()
    """Dataset columns that the call takes, beside TRL's prompts, completions and completion_ids."""
    group_relative: bool = False
    """Whether a completion is compared with its group, which then has to be whole on one process."""
    grades: bool = False
    """Whether the value is the grade itself: 1.0 for a correct answer, 0.0 for an incorrect one, None for unknown."""
    masks: bool = False
    """Whether a None leaves a graded completion out of its group, so that no other reward may have an opinion of it."""
    correctness: Any = None
    """What grades the answers, where the reward asks another object for it."""
    length: Length | None = None
    """What counts as length, where the reward counts it."""
    length_factor: str | None = None
    """The field that the whole term of length is multiplied by, so that 0 leaves correctness alone."""

    def __post_init__(self):
        """Raises `ValueError` for a field that holds what it cannot; a subclass's own checks come after."""
        if dataclasses.is_dataclass(self):
            own = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
            check_fields(type(self), own, self.__name__)

    @property
    def __name__(self) -> str:
        """The name in the logs; by default that of the class, as in TRL."""
        return type(self).__name__

    def parts(self) -> Iterator["Reward"]:
        """The reward itself, then every reward inside it, however deep."""
        yield self

    def for_mode(self, mode: str) -> "Reward":
        """The reward that scores the rows of a mode: itself, unless it hands rows on."""
        return self

    def decided_after(self, row: dict) -> int | None:
        """The number of tokens after which the value for `row` can no longer change, whatever follows; None: unknown.

        `row` holds what TRL passes for one completion: the dataset's columns, and `trainer_state`.
        """
        return None

    @property
    def acts_from(self) -> tuple[str, int] | None:
        """The field and the tokens up to which the term of length is the same for every completion; None: from 0 on."""
        return None

    @property
    def without_length(self) -> bool:
        """Whether the term of length is multiplied by 0."""
        return self.length_factor is not None and getattr(self, self.length_factor) == 0

    def token_cost(self) -> "TokenCost | None":
        """What each token costs beside a correct answer, where `alpha` is taken off for every one; None: it is not."""
        return None

    def bind(self, group_size: int | None, ends: Iterable[int]) -> "Reward":
        """A copy that knows what YAML cannot: completions per group, and the ids of which one ends a completion.

        They go into the fields `group_size` and `ends` where these are not set. A reward without them is returned as
        it is.
        """
        return _tell(self, group_size, ends)


class Grader(Reward):
    """A reward that is the grade itself, and what other rewards take as their `correctness`.

    It has `grade(text, solution)`, `reads(solution)`, and `end_of_thinking`, the text after which the answer stands.
    """

    needs = ("solution",)
    grades = True


@dataclasses.dataclass(frozen=True)
class Foreign(Reward):
    """What a callable that is no `Reward` declares: its attributes of the same names, and the defaults."""

    function: Callable
    needs: tuple[str, ...] = ()
    group_relative: bool = False
    grades: bool = False
    masks: bool = False
    correctness: Any = None
    length: Length | None = None

    @property
    def __name__(self) -> str:
        inner = _innermost(self.function)
        return getattr(inner, "__name__", type(inner).__name__)

    def decided_after(self, row: dict) -> int | None:
        own = getattr(_innermost(self.function), "decided_after", None)
        return None if own is None else own(row)

    def bind(self, group_size: int | None, ends: Iterable[int]) -> "Foreign":
        return dataclasses.replace(self, function=bind(self.function, group_size, ends))

    def __call__(self, *args, **kwargs):
        return self.function(*args, **kwargs)


def declared(reward: Callable) -> Reward:
    """The reward itself where it is a `Reward`, else what it declares as a `Foreign`.

    A function called `correctness` or `exact_match` is taken for a grade. Raises `ValueError` for an attribute that the
    protocol once had under another name.

    >>> def by_group(completions, **kwargs): ...
    >>> by_group.group_relative = True
    >>> declared(by_group).group_relative, declared(by_group).needs, declared(by_group).__name__
    (True, (), 'by_group')
    """
    if isinstance(reward, Reward):
        return reward
    inner, name = _innermost(reward), Foreign(reward).__name__
    for old, new in (("decided_at", "decided_after"), ("needs_reference", "needs, a tuple of columns")):
        if hasattr(inner, old):
            raise ValueError(f"reward: {name} declares {old}, which is now {new} (rewards/base.py)")
    own = {key: getattr(inner, key) for key in ("needs", "group_relative", "grades", "masks") if hasattr(inner, key)}
    own |= {"grades": name in ("correctness", "exact_match")} if "grades" not in own else {}
    if isinstance(getattr(inner, "length", None), Length):
        own["length"] = inner.length
    if hasattr(getattr(inner, "correctness", None), "grade"):
        own["correctness"] = inner.correctness
    return Foreign(reward, **own)


def bind(reward: Callable, group_size: int | None, ends: Iterable[int]) -> Callable:
    """`Reward.bind` for any callable: of one that is no `Reward`, its own `bind`, or its fields of these names.

    What comes back is of the kind that went in, so that TRL sees a function of one's own and not a stand-in.
    """
    if isinstance(reward, functools.partial):
        return functools.partial(bind(reward.func, group_size, ends), *reward.args, **reward.keywords)
    own = getattr(reward, "bind", None)
    return _tell(reward, group_size, ends) if own is None else own(group_size, ends)


def find(reward: Callable, *kinds: type) -> list:
    """The parts of a reward that are of one of these classes, for checks that only make sense for them."""
    return [part for part in declared(reward).parts() if isinstance(part, kinds)]


def correctness_of(reward: Callable, default):
    """The object that grades the answers of a reward: itself, or that of its first part that has one, or `default`."""
    for part in declared(reward).parts():
        if part.correctness is not None:
            return part.correctness
        if isinstance(part, Grader):
            return part
    return default


def length_of(reward: Callable) -> Length:
    """What a reward counts as length: that of its first part that counts one, or else the whole completion."""
    return next((part.length for part in declared(reward).parts() if isinstance(part.length, Length)), Length())


def columns_of(reward: Callable, modes: Iterable[str]) -> set[str]:
    """The columns that a reward needs to score the rows of these modes."""
    return {name for mode in modes for name in declared(reward).for_mode(mode).needs}


def masking(reward: Callable) -> list["Reward"]:
    """The parts of a reward of which a None leaves a graded completion out of its group."""
    return [part for part in declared(reward).parts() if part.masks]


def names_twice(names: Iterable[str]) -> list[str]:
    """The names that stand more than once: rewards of one run must differ in name, for TRL would log them as one.

    >>> names_twice(["max_length", "correctness", "max_length"])
    ['max_length']
    """
    return [name for name, count in Counter(names).items() if count > 1]


def _innermost(function: Callable) -> Callable:
    """What a `functools.partial` calls; TRL names a reward by it."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _tell(reward, group_size: int | None, ends: Iterable[int]):
    if not dataclasses.is_dataclass(reward):
        return reward
    told = {"group_size": group_size, "ends": tuple(sorted(ends))}
    fields = {field.name for field in dataclasses.fields(reward)}
    new = {name: value for name, value in told.items() if name in fields and not getattr(reward, name) and value}
    return dataclasses.replace(reward, **new) if new else reward

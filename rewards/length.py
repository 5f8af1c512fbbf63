"""What counts as length: the one function that rewards, metrics and evaluation share."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal


def find_end(ids: Sequence[int], ends: Sequence[Sequence[int]], begin: int = 0) -> tuple[int, int] | None:
    """Where the thinking of a completion ends: before token `start`, its mark going on to before `stop`; None: nowhere.

    `ends` are the token sequences that write the mark; the first place from `begin` on where one of them stands is
    taken, and of those that begin there the longest. Linear in the ids for each first token of a mark.

    >>> find_end([5, 6, 7, 99, 8], [(99,)]), find_end([5, 6, 7, 8], [(7, 9), (6,), (6, 7)]), find_end([5, 6], [(99,)])
    ((3, 4), (1, 3), None)
    >>> find_end([99, 5, 99], [(99,)], begin=1)
    (2, 3)
    """
    ids = ids if isinstance(ids, list) else list(ids)
    by_first: dict[int, list[list[int]]] = {}  # the longest first
    for end in sorted((list(end) for end in ends if end), key=len, reverse=True):
        by_first.setdefault(end[0], []).append(end)
    found, before = None, len(ids)  # another mark has to begin before that
    for first, marks in by_first.items():
        start = begin - 1
        while True:
            try:
                start = ids.index(first, start + 1, before)
            except ValueError:
                break
            mark = next((mark for mark in marks if ids[start : start + len(mark)] == mark), None)
            if mark is not None:
                found, before = (start, start + len(mark)), start
                break
    return found


@dataclass(frozen=True)
class Length:
    """Counts a completion's tokens, end-of-sequence token included.

    `count="completion"` counts everything that was generated, as LCPO does (2503.04697, section 3). `count="thinking"`
    counts the tokens before the first `end_of_thinking`, or all of them where it never comes. A policy penalised
    only for its thinking moves the reasoning into the answer (reference: length-control, section 1), so the whole
    completion is the default.

    `end_of_thinking` is a token's id, the ids of several tokens, or several such sequences, any of which is the end; a
    run tells it (rlred/data/prompts.py: `tell_end`), from the text that is given once. Raises `ValueError` for an
    unknown `count`, for an end that is none of these, and when it is to count the thinking and nobody has told it the
    end.

    >>> Length()([5, 6, 7, 99, 8, 2])
    6
    >>> Length(count="thinking", end_of_thinking=99)([5, 6, 7, 99, 8, 2])
    3
    >>> Length(count="thinking", end_of_thinking=[7, 99])([5, 6, 7, 99, 8, 2])
    2
    """

    count: Literal["completion", "thinking"] = "completion"
    end_of_thinking: int | tuple[int, ...] | tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self):
        if self.count not in ("completion", "thinking"):
            raise ValueError(f"length.count must be 'completion' or 'thinking', got {self.count!r}")
        end = self.end_of_thinking
        if isinstance(end, list | tuple):  # YAML's lists, frozen
            end = tuple(tuple(item) if isinstance(item, list | tuple) else item for item in end)
            object.__setattr__(self, "end_of_thinking", end)
        if any(not isinstance(token, int) or isinstance(token, bool) for ids in self.ends for token in ids):
            raise ValueError(f"length.end_of_thinking must be a token's id, or ids, got {end!r}")

    @property
    def ends(self) -> tuple[tuple[int, ...], ...]:
        """The token sequences that end the thinking."""
        end = self.end_of_thinking
        if end is None or end == ():
            return ()
        if not isinstance(end, tuple):
            return ((end,),)
        return end if all(isinstance(ids, tuple) for ids in end) else (end,)

    def __call__(self, completion_ids: list[int]) -> int:
        if self.count == "completion":
            return len(completion_ids)
        if self.end_of_thinking is None:
            raise ValueError("length.count='thinking' needs length.end_of_thinking, the id of the token that ends it")
        border = find_end(completion_ids, self.ends)
        return len(completion_ids) if border is None else border[0]


def first_length(holds: Callable[[int], bool], near: float) -> int | None:
    """The first length from `near` on for which `holds` is true; None beyond a billion tokens.

    A closed form can miss the boundary by a token in floating point; the reward itself is asked.

    >>> first_length(lambda n: 0.1 * n >= 0.3, near=2.9)
    3
    """
    if near > 1e9:
        return None
    n = max(1, math.floor(near))
    while not holds(n):
        n += 1
    return n

"""What counts as length: the one function that rewards, metrics and evaluation share."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Length:
    """Counts a completion's tokens, end-of-sequence token included.

    `count="completion"` counts everything that was generated, as LCPO does (2503.04697, section 3). `count="thinking"`
    counts the tokens before the first `end_of_thinking` token, or all of them where it never comes. A policy that pays
    only for its thinking moves the reasoning into the answer (reference: length-control, section 1), so the whole
    completion is the default.

    Raises `ValueError` for an unknown `count`, or `"thinking"` without the token's id.

    >>> Length()([5, 6, 7, 99, 8, 2])
    6
    >>> Length(count="thinking", end_of_thinking=99)([5, 6, 7, 99, 8, 2])
    3
    """

    count: Literal["completion", "thinking"] = "completion"
    end_of_thinking: int | None = None

    def __post_init__(self):
        if self.count not in ("completion", "thinking"):
            raise ValueError(f"length.count must be 'completion' or 'thinking', got {self.count!r}")
        if self.count == "thinking" and self.end_of_thinking is None:
            raise ValueError("length.count='thinking' needs length.end_of_thinking, the id of the token that ends it")

    def __call__(self, completion_ids: list[int]) -> int:
        ids = list(completion_ids)
        if self.count == "thinking" and self.end_of_thinking in ids:
            return ids.index(self.end_of_thinking)
        return len(ids)


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

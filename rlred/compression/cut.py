r"""Cutting: a text is scored once and cut at every ratio, to the ratio that the target tokenizer measures.

    score   one number per unit (rlred/compression/scores.py)
    order   atomic units first, then the others by score: one order for all ratios, so selections are nested
    cut     the longest stretch of that order whose text has at most ratio * tokens(text) tokens

What the atomic units alone take is reported: below that, no ratio can be reached, and none is claimed.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlred.compression.units import Unit, split_units

Spans = Sequence[tuple[int, int, float]]
"""`(start, end, score)` of character spans of the original text; those that do not overlap it leave 0."""


@dataclass(frozen=True)
class Cut:
    """A text at one ratio."""

    text: str
    ratio: float
    """The ratio that was asked for, of tokens kept."""
    achieved: float
    """Tokens of `text` over tokens of the original."""
    kept: tuple[int, ...]
    """Indices of the kept units."""
    forced: float
    """The share of tokens that the atomic units alone take; `achieved` is not below it."""


def unit_scores(units: Sequence[Unit], spans: Spans) -> list[float]:
    """The score of each unit: the mean over its characters of the spans that cover them.

    >>> unit_scores([Unit(0, 4, "word"), Unit(5, 7, "word")], [(0, 2, 1.0), (2, 4, 0.0), (5, 7, 0.8)])
    [0.5, 0.8]
    """
    scores, ordered = [], sorted(spans)
    starts = [start for start, _, _ in ordered]
    for unit in units:
        total = 0.0
        first, last = bisect_right(starts, unit.start) - 1, bisect_left(starts, unit.end)
        for start, end, score in ordered[max(0, first) : last]:
            total += score * max(0, min(end, unit.end) - max(start, unit.start))
        scores.append(total / (unit.end - unit.start))
    return scores


def render(text: str, units: Sequence[Unit], kept: Sequence[int]) -> str:
    """The kept units in their order, a blank before those that had one or would run into the one before.

    >>> text = "It is, then, 3 + 4 = 7."
    >>> render(text, split_units(text), [0, 1, 5, 6])
    'It is 3 + 4 = 7.'
    """
    parts: list[str] = []
    for index in kept:
        unit = units[index]
        before = parts[-1][-1] if parts else ""
        had_blank = text[unit.start - 1 : unit.start] in (" ", "\t") if parts else text[:1] in (" ", "\t")
        merges = before.isalnum() and text[unit.start].isalnum()  # "2:3" without its colon
        if (had_blank or merges) and unit.kind != "newline" and not before.isspace():
            parts.append(" ")
        parts.append(text[unit.start : unit.end])
    return "".join(parts)


def check_ratio(ratio: float) -> None:
    """Raises `ValueError` for a ratio outside (0, 1]."""
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio must be above 0 and at most 1 (the share that is kept), got {ratio!r}")


def cut(
    text: str, spans: Spans, ratios: Sequence[float], count: Callable[[str], int], *, protect: bool = True
) -> list[Cut]:
    """The text at each ratio; `count` gives the tokens of a text under the target tokenizer.

    Ratio 1 is the text itself. Without `protect`, atomic units have no privilege: they stay whole, and go by their
    score like any other, which is a control and what published pipelines do. Raises `ValueError` for a ratio outside
    (0, 1].

    >>> text = "So then she pays 3 + 4 = 7 dollars"
    >>> [part.text for part in cut(text, [(26, 34, 1.0)], [1.0, 0.8, 0.5], lambda text: len(text.split()))]
    ['So then she pays 3 + 4 = 7 dollars', 'So then 3 + 4 = 7 dollars', '3 + 4 = 7']
    """
    for ratio in ratios:
        check_ratio(ratio)
    units = split_units(text)
    scores, tokens = unit_scores(units, spans), max(1, count(text))
    atomic = [index for index, unit in enumerate(units) if protect and unit.atomic]
    free = sorted(set(range(len(units))) - set(atomic), key=lambda i: (-scores[i], i))
    forced = count(render(text, units, atomic)) / tokens

    def at(number: int) -> str:
        return render(text, units, sorted(atomic + free[:number]))

    cuts = []
    for ratio in ratios:
        if ratio == 1:
            cuts.append(Cut(text, 1.0, 1.0, tuple(range(len(units))), forced))
            continue
        low, high = 0, len(free)  # tokens grow with units, but for a merge here and there
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if count(at(middle)) <= ratio * tokens else (low, middle - 1)
        shorter = at(low)
        cuts.append(Cut(shorter, ratio, count(shorter) / tokens, tuple(sorted(atomic + free[:low])), forced))
    return cuts

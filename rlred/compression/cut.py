r"""Cutting: a text is scored once and cut at every ratio, to the ratio that the target tokenizer measures.

    score   one number per span (rlred/compression/scores.py)
    order   protected spans first, then the others by score: one order for all ratios, so selections are nested
    cut     the longest stretch of that order whose text has at most ratio * tokens(text) tokens

What the protected spans alone take is reported: below that, no ratio can be reached, and none is claimed.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlred.compression.spans import Span, split_spans

Scores = Sequence[tuple[int, int, float]]
"""`(start, end, score)` of stretches of the original text; a span that none of them covers has 0."""

RATIOS = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]
"""Shares of the thinking to keep where nothing else is said: TokenSkip's."""


@dataclass(frozen=True)
class Cut:
    """A text at one ratio."""

    text: str
    ratio: float
    """The ratio that was asked for, of tokens kept."""
    achieved: float
    """Tokens of `text` over tokens of the original."""
    kept: tuple[int, ...]
    """Indices of the kept spans."""
    forced: float
    """The share of tokens that the protected spans alone take; `achieved` is not below it."""


def span_scores(spans: Sequence[Span], scores: Scores) -> list[float]:
    """The score of each span: the mean over its characters of the scores that cover them.

    >>> span_scores([Span(0, 4, "word"), Span(5, 7, "word")], [(0, 2, 1.0), (2, 4, 0.0), (5, 7, 0.8)])
    [0.5, 0.8]
    """
    means, ordered = [], sorted(scores)
    starts = [start for start, _, _ in ordered]
    for span in spans:
        total = 0.0
        first, last = bisect_right(starts, span.start) - 1, bisect_left(starts, span.end)
        for start, end, score in ordered[max(0, first) : last]:
            total += score * max(0, min(end, span.end) - max(start, span.start))
        means.append(total / (span.end - span.start))
    return means


def render(text: str, spans: Sequence[Span], kept: Sequence[int]) -> str:
    """The kept spans in their order, a blank before those that had one or would run into the one before.

    >>> text = "It is, then, 3 + 4 = 7."
    >>> render(text, split_spans(text), [0, 1, 5, 6])
    'It is 3 + 4 = 7.'
    """
    parts: list[str] = []
    for position, index in enumerate(kept):
        span, before = spans[index], spans[kept[position - 1]] if position else None
        blank = text[span.start - 1 : span.start] in (" ", "\t") if before else text[:1] in (" ", "\t")
        if before and kept[position - 1] != index - 1:  # something went between them: "3", not its comma, "-4"
            merges = text[before.end - 1].isalnum() and text[span.start].isalnum()
            blank |= merges or (span.protected and span.kind != "close")
        if blank and span.kind != "newline" and not (before and before.kind in ("newline", "open")):
            parts.append(" ")
        parts.append(text[span.start : span.end])
    return "".join(parts)


def check_ratio(ratio: float) -> None:
    """Raises `ValueError` for a ratio outside (0, 1]."""
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio must be above 0 and at most 1 (the share that is kept), got {ratio!r}")


def cut(
    text: str, scores: Scores, ratios: Sequence[float], count: Callable[[str], int], *, protect: bool = True
) -> list[Cut]:
    """The text at each ratio; `count` gives the tokens of a text under the target tokenizer.

    Ratio 1 is the text itself. Without `protect`, protected spans have no privilege: they stay whole, and go by their
    score like any other, which is a control and what published pipelines do. Raises `ValueError` for a ratio outside
    (0, 1].

    >>> text = "So then she pays 3 + 4 = 7 dollars"
    >>> [part.text for part in cut(text, [(26, 34, 1.0)], [1.0, 0.8, 0.5], lambda text: len(text.split()))]
    ['So then she pays 3 + 4 = 7 dollars', 'So then 3 + 4 = 7 dollars', '3 + 4 = 7']
    """
    for ratio in ratios:
        check_ratio(ratio)
    spans = split_spans(text)
    means, tokens = span_scores(spans, scores), max(1, count(text))
    protected = [index for index, span in enumerate(spans) if protect and span.protected]
    free = sorted(set(range(len(spans))) - set(protected), key=lambda i: (-means[i], i))
    forced = count(render(text, spans, protected)) / tokens

    def at(number: int) -> str:
        return render(text, spans, sorted(protected + free[:number]))

    cuts = []
    for ratio in ratios:
        if ratio == 1:
            cuts.append(Cut(text, 1.0, 1.0, tuple(range(len(spans))), forced))
            continue
        low, high = 0, len(free)  # tokens grow with spans, but for a merge here and there
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if count(at(middle)) <= ratio * tokens else (low, middle - 1)
        shorter = at(low)
        cuts.append(Cut(shorter, ratio, count(shorter) / tokens, tuple(sorted(protected + free[:low])), forced))
    return cuts

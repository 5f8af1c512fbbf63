"""Which rows are trained on: short traces for easy questions, long ones for hard ones.

difficulties    how hard the question of each trace is, from 0 to 1
wanted_ratio    the ratio for a difficulty (LiteCoT's idea, 2505.19716)
mix             rows of which a share is cut and the rest whole
reweight        that share after a measurement (TL;DR, 2506.02678)
"""

import math
import random
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

DIFFICULTIES = ("failures", "length")


def check_difficulty(by: str | None) -> None:
    """Raises `ValueError` for a measure of difficulty that there is not."""
    if by not in (None, *DIFFICULTIES):
        raise ValueError(f"difficulty: none is called {by!r}; there are {', '.join(DIFFICULTIES)}")


def check_share(name: str, share: float | None) -> None:
    """Raises `ValueError` for a share that leaves no row on one side."""
    if share is not None and not 0 < share < 1:
        raise ValueError(f"{name} must be above 0 and below 1 (the share of rows that are cut), got {share!r}")


def difficulties(traces: Sequence[dict], by: str, count: Callable[[str], int]) -> list[float]:
    """How hard each question is: `failures`, the share of its samples that were not correct; `length`, the rank of its
    thinking's tokens among all traces, from 0 (shortest) to 1. Ties share their mean rank.

    Raises `ValueError` for an unknown measure, traces without `failure_rate`, and when all are equally hard.

    >>> traces = [{"thinking": "a " * n} for n in (10, 40, 20, 20)]
    >>> difficulties(traces, "length", lambda text: len(text.split()))
    [0.0, 1.0, 0.5, 0.5]
    """
    check_difficulty(by)
    if by == "failures":
        if not all("failure_rate" in trace for trace in traces):
            raise ValueError("difficulty=failures: the traces have no failure_rate; sample them anew, or take length")
        found = [trace["failure_rate"] for trace in traces]
    else:
        lengths = [count(trace["thinking"]) for trace in traces]
        ordered, last = sorted(lengths), max(1, len(lengths) - 1)
        found = [(bisect_left(ordered, n) + bisect_right(ordered, n) - 1) / (2 * last) for n in lengths]
    if len(set(found)) == 1:
        raise ValueError(f"difficulty={by}: all questions are equally hard; take more num_samples, or another measure")
    return found


def wanted_ratio(difficulty: float, ratios: Sequence[float]) -> float:
    """The ratio at that place among the ratios: the smallest for 0, the largest for 1, in even steps between.

    LiteCoT (2505.19716, abstract) has a teacher judge the difficulty and rewrite the trace to a length that fits it.

    >>> [wanted_ratio(difficulty, [1.0, 0.75, 0.5]) for difficulty in (0, 0.2, 0.3, 1)]
    [0.5, 0.5, 0.75, 1.0]
    """
    return sorted(ratios)[int(difficulty * (len(ratios) - 1) + 0.5)]


def mix(rows: Sequence[dict], share: float, rng: random.Random) -> list[dict]:
    """As many rows as can be had, none twice, of which `share` have a ratio below 1. Raises `ValueError` for a share
    outside (0, 1) and rows that are all cut or all whole.

    >>> rows = [{"ratio": 0.5}] * 6 + [{"ratio": 1.0}] * 2
    >>> sorted(row["ratio"] for row in mix(rows, 0.6, random.Random(0)))
    [0.5, 0.5, 0.5, 1.0, 1.0]
    """
    check_share("short_share", share)
    short, whole = ([row for row in rows if (row["ratio"] < 1) == cut] for cut in (True, False))
    if not short or not whole:
        raise ValueError(f"short_share={share}: {len(short)} rows are cut and {len(whole)} whole; both are needed")
    total = min(len(short) / share, len(whole) / (1 - share))
    taken = rng.sample(short, int(total * share + 1e-9)) + rng.sample(whole, int(total * (1 - share) + 1e-9))
    return rng.sample(taken, len(taken))


@dataclass(frozen=True)
class Bounds:
    """Mean thinking tokens and accuracy of a short thinker and a long one, on the same questions."""

    short_tokens: float
    long_tokens: float
    short_accuracy: float
    long_accuracy: float


def reweight(share: float, tokens: float, accuracy: float, bounds: Bounds, rate: float = 4.0) -> float:
    """The share of short rows once the model thinks for `tokens` at `accuracy`: TL;DR's rule (2506.02678).

    share' ~ share * exp(rate * b_short) against (1 - share) * exp(rate * b_long), mixed with an even share at 1e-4,
    b_short = max(0, (tokens - short_tokens) / |long_tokens - short_tokens|): what there is still to shorten,
    b_long = max(0, (long_accuracy - accuracy) / |long_accuracy - short_accuracy|): what accuracy there is to regain.
    Rate and mixing are those of the released code (zzli2022/TLDR, dynamic_callback.py, after DoReMi). A benefit
    is 0 where its bounds are equal; there the released code divides by zero.

    >>> bounds = Bounds(short_tokens=50, long_tokens=100, short_accuracy=0.5, long_accuracy=0.9)
    >>> round(reweight(0.5, 100, 0.9, bounds), 3), round(reweight(0.5, 75, 0.7, bounds), 3)
    (0.982, 0.5)
    """

    def benefit(gap: float, scale: float) -> float:
        return max(0.0, gap / abs(scale)) if scale else 0.0

    short = benefit(tokens - bounds.short_tokens, bounds.long_tokens - bounds.short_tokens)
    long = benefit(bounds.long_accuracy - accuracy, bounds.long_accuracy - bounds.short_accuracy)
    log_odds = math.log(share / (1 - share)) + rate * (short - long)
    return (1 - 1e-4) * (1 + math.tanh(log_odds / 2)) / 2 + 1e-4 / 2

r"""Dropping levels of a trace at random (Dualformer, 2410.09918): a model that learns from traces with parts left out.

| level | Dualformer drops of a search trace | here, of a chain of thought |
|---|---|---|
| 0 | nothing | nothing |
| 1 | the clauses that close a node | lines without a number, formula or other protected span |
| 2 | and the costs of those that create one | and the words of the other lines: equations are left |
| 3 | and 30 % of the clauses that create one | and each line with a chance of 0.3 |
| 4 | all of it | all of it |

A row asks for no ratio: how much is thought is chance, and the model's own choice afterwards. Dualformer draws anew in
every epoch; here a trace has as many rows, drawn one by one, as it is told to.
"""

import random
from collections.abc import Sequence
from statistics import fmean

from rlred.compression.cut import Cut, render
from rlred.compression.rows import Keep, RatioFormat, counter_of, row_of
from rlred.compression.spans import split_spans

LEVELS = 5


def check_levels(probabilities: Sequence[float]) -> None:
    """Raises `ValueError` for anything but five probabilities that add up to 1."""
    if len(probabilities) != LEVELS or min(probabilities) < 0 or abs(sum(probabilities) - 1) > 1e-6:
        raise ValueError(f"levels must be {LEVELS} probabilities, of levels 0 to 4, that add up to 1: {probabilities}")


def drop_level(text: str, level: int, rng: random.Random, drop: float = 0.3) -> tuple[int, ...]:
    r"""The spans of a text that a level leaves; see the table above. `drop` is the chance of a line at level 3.

    >>> text = "Let me think.\nShe has 3 + 4 = 7 eggs.\nSo 7 - 2 = 5."
    >>> for level in (1, 2, 4):
    ...     render(text, split_spans(text), drop_level(text, level, random.Random(0)))
    'She has 3 + 4 = 7 eggs.\nSo 7 - 2 = 5.'
    '3 + 4 = 7\n7 - 2 = 5'
    ''
    """
    spans = split_spans(text)
    if level in (0, 4):
        return tuple(range(len(spans))) if level == 0 else ()
    lines: list[list[int]] = [[]]
    for index, span in enumerate(spans):
        lines[-1].append(index)  # a line holds the newline at its end
        if span.kind == "newline":
            lines.append([])
    lines = [line for line in lines if any(spans[i].protected and spans[i].kind != "newline" for i in line)]
    if level >= 2:
        lines = [[i for i in line if spans[i].protected] for line in lines]
    if level == 3:
        lines = [line for line in lines if rng.random() >= drop]
    kept = [index for line in lines for index in line]
    if kept and spans[kept[-1]].kind == "newline":
        kept.pop()
    return tuple(kept)


def make_level_rows(
    traces: Sequence[dict],
    probabilities: Sequence[float],
    tokenizer,
    ratio_format: RatioFormat,
    *,
    draws: int = 1,
    seed: int = 0,
    keep: Keep = dict,
) -> tuple[list[dict], dict]:
    """Rows that ask for nothing, `draws` of each trace, each at a level drawn with these probabilities; and by level
    their number and mean achieved ratio. `keep` is that of `make_rows`. Raises `ValueError` for probabilities that are
    none and fewer than one draw.
    """
    check_levels(probabilities)
    if draws < 1:
        raise ValueError(f"ratios_per_question must be 1 or more, got {draws}")
    count, rng, rows = counter_of(tokenizer), random.Random(f"levels/{seed}"), []
    for trace in traces:
        text = trace["thinking"]
        spans, tokens = split_spans(text), max(1, count(text))
        for level in rng.choices(range(LEVELS), probabilities, k=draws):
            kept = drop_level(text, level, rng)
            left = text if level == 0 else render(text, spans, kept)
            achieved = count(left) / tokens
            one = Cut(left, achieved, achieved, kept, 0.0)
            rows.append(keep({**row_of(trace, one, tokenizer, ratio_format, ask_ratio=False), "level": level}))
    rng.shuffle(rows)
    by_level = []
    for level in range(LEVELS):
        own = [row["achieved"] for row in rows if row["level"] == level]
        by_level.append({"level": level, "n": len(own), "achieved": fmean(own) if own else None})
    return rows, {"rows": len(rows), "by_level": by_level}

r"""Traces cut at a random point, the end of thinking put in: a model that answers well after a hard cut.

A server ends the thinking at a number of tokens (`thinking_token_budget` and its like): it writes the end of thinking
wherever the model is. A model that has never seen that goes on thinking in its answer, or answers anything at once. So:

    cut     the first k tokens of the thinking, k drawn evenly from 0 to all but one of them
    insert  the end of thinking; it is in the row's ids and not in its loss, so nobody learns to stop there
    answer  the trace's own, correct answer and the end of sequence: what is trained on

This is what Nemotron 3 Ultra is said to do before RL; its report was not read, only notes on it: the random point, the
end that is masked from the loss and the answer that is kept are theirs. The distribution of the point and the mix with
whole traces are ours, and that the thinking before a cut is out of the loss too: there is an end behind every cut that
the row does not show, so a model that trained on that thinking and on no whole row stopped ending it (docs/LOG.md).
"""

import random
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from rlred.compression.cut import Cut
from rlred.compression.mixing import check_share, mix
from rlred.compression.rows import Keep, RatioFormat, row_of

WITHOUT_END = "without an end of thinking"


def make_cut_rows(
    traces: Sequence[dict],
    tokenizer,
    ratio_format: RatioFormat,
    *,
    draws: int = 1,
    short_share: float | None = None,
    seed: int = 0,
    keep: Keep = dict,
) -> tuple[list[dict], dict]:
    """Rows that ask for nothing, each trace cut at `draws` different places; and how many there are, and were dropped.

    A row's `inserted` are the characters of the completion that hold the inserted end of thinking; `ratio` and
    `achieved` are the share of the thinking's tokens before it. With `short_share`, every trace has a whole row too,
    and rows are left out until that share of them is cut. `keep` is that of `make_rows`.

    Raises `ValueError` for fewer than one draw, a share that is none, a format or a model without an end of thinking, a
    tokenizer that does not say where its tokens stand, and where no trace is left.
    """
    check_cut(draws, short_share, ratio_format)
    end, rng, rows, dropped = ratio_format.prompts.end, random.Random(f"random cut/{seed}"), [], Counter()
    if not tokenizer.is_fast:
        raise ValueError("cut=random needs a fast tokenizer, which says where in a text its tokens stand")
    for trace in traces:
        before, found, after = trace["separator"].partition(end)
        if not found:
            dropped[WITHOUT_END] += 1
            continue
        thinking = trace["thinking"]
        starts = [start for start, _ in _places(tokenizer, thinking)]
        if len(starts) < draws:
            dropped["cuts, of traces with fewer tokens"] += draws - len(starts)
        inserted = {**trace, "separator": end + after}
        for number in rng.sample(range(len(starts)), min(draws, len(starts))):
            kept = Cut(thinking[: starts[number]], number / len(starts), number / len(starts), (), 0.0)
            row = row_of(inserted, kept, tokenizer, ratio_format, ask_ratio=False)
            start = len(trace["opening"]) + starts[number]
            rows.append(keep({**row, "inserted": [start, start + len(end)]}))
        if short_share is not None:
            rows.append(keep(row_of(trace, Cut(thinking, 1.0, 1.0, (), 0.0), tokenizer, ratio_format)))
    if not rows:
        raise ValueError(f"cut=random: none of {len(traces)} traces has the end of thinking {end!r}, which a cut needs")
    rng.shuffle(rows)
    if short_share is not None:
        made = len(rows)
        rows = mix(rows, short_share, rng)
        dropped[f"rows, for a short_share of {short_share:g}"] = made - len(rows)
    shares = [row["achieved"] for row in rows if "inserted" in row]
    report = {
        "rows": len(rows),
        "cut": len(shares),
        "achieved": fmean(shares) if shares else None,
        "dropped": dict(dropped),
    }
    return rows, report


def check_cut(draws: int, short_share: float | None, ratio_format: RatioFormat) -> None:
    """Raises `ValueError` for settings that no row can be made with."""
    if draws < 1:
        raise ValueError(f"ratios_per_question must be 1 or more, got {draws}")
    check_share("short_share", short_share)
    if ratio_format.answer is not None:
        raise ValueError("ratio_format: writes its own answer, without an end of thinking; with cut=random take words")
    if not ratio_format.prompts.end:
        raise ValueError("end_of_thinking='' says that there is none; cut=random needs one to insert")


def _places(tokenizer, text: str) -> list[tuple[int, int]]:
    """Where each token of a text stands; tokens that share a character count once."""
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return list(dict.fromkeys((start, stop) for start, stop in found if stop > start))

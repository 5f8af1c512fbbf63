r"""Few-shot prompts pruned to a budget of tokens: more examples, each with fewer words (CoT-Influx, 2312.08901).

    coarse   the examples whose thinking scores highest per span, as many as fit once each is cut to `keep`
    fine     then the words of all of them, in one order by score, as many as the budget holds

CoT-Influx (abstract) learns both choices by reinforcement learning; here the scores of rlred/compression/scores.py
make them. It also prunes the questions; here questions, answers and what cut.py protects stay whole.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

from rlred.compression.cut import Scores, check_ratio, cut, render, span_scores
from rlred.compression.spans import split_spans
from rlred.compression.spool import Spool


def shot(trace: dict, thinking: str) -> str:
    r"""One example as text, a blank line after it.

    >>> shot({"question": "3+4=?", "answer": "\\boxed{7}"}, "3+4=7")
    '3+4=?\n3+4=7\n\\boxed{7}\n\n'
    """
    parts = (trace.get("asked") or trace["question"], thinking.strip(), trace["answer"].strip())
    return "\n".join(part for part in parts if part) + "\n\n"


def prune_shots(
    traces: Sequence[dict],
    spans: Sequence[Scores],
    budget: int,
    count: Callable[[str], int],
    *,
    keep: float = 0.5,
    num_shots: int | None = None,
) -> tuple[str, dict]:
    """The examples as one text of at most `budget` tokens, the most important first; and what was chosen and cut.

    At most one example of a question and `num_shots` of them. Raises `ValueError` for a ratio outside (0, 1], counts
    below 1, and a budget that no example fits.

    >>> traces = [{"question": "1+1", "thinking": "well so 1+1=2 now", "answer": "2"},
    ...           {"question": "2+2", "thinking": "hm so 2+2=4 then", "answer": "4"}]
    >>> spans = [[(8, 13, 1.0), (5, 7, 0.5)], [(6, 11, 1.0), (3, 5, 0.9)]]
    >>> text, report = prune_shots(traces, spans, 8, lambda text: len(text.split()), keep=0.5)
    >>> text.split(), report["tokens_whole"], report["tokens"], report["shots_that_fit_whole"]
    (['2+2', 'so', '2+2=4', '4', '1+1', 'so', '1+1=2', '2'], 12, 8, 1)
    """
    check_ratio(keep)
    for name, value in (("budget", budget), ("num_shots", num_shots)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be 1 or more, got {value}")
    spool, means, places = Spool(), {}, {}
    for n, (trace, own) in enumerate(zip(traces, spans, strict=True)):
        if found := span_scores(split_spans(trace["thinking"]), own):
            means[n] = fmean(found)
            text = shot(trace, cut(trace["thinking"], own, [keep], count)[0].text)
            places[n] = spool.add(json.dumps([trace["question"], text]))
    ranked = sorted(means, key=lambda n: (-means[n], n))
    shots = lambda: ((n, *json.loads(spool.read(places[n]))) for n in ranked)  # noqa: E731
    order = _that_fit(shots(), budget, count, num_shots)
    if not order:
        shortest = min((count(one) for _, _, one in shots() if not _fillable(one)), default=0)
        raise ValueError(f"budget: no example fits {budget} tokens; the shortest at {keep} takes {shortest}")
    chosen = {n: traces[n] for n in order}
    split = {n: split_spans(trace["thinking"]) for n, trace in chosen.items()}
    scores = {n: span_scores(split[n], spans[n]) for n in order}

    free = [(scores[n][i], n, i) for n in chosen for i, span in enumerate(split[n]) if not span.protected]
    free.sort(key=lambda one: (-one[0], order.index(one[1]), one[2]))

    def at(number: int) -> str:
        kept = {n: [i for i, span in enumerate(split[n]) if span.protected] for n in chosen}
        for _, n, i in free[:number]:
            kept[n].append(i)
        return "".join(shot(own, render(own["thinking"], split[n], sorted(kept[n]))) for n, own in chosen.items())

    text = at(_most(lambda number: count(at(number)) <= budget, len(free)))
    whole = [shot(trace, trace["thinking"]) for trace in chosen.values()]
    report = {
        "candidates": len(traces),
        "shots": len(chosen),
        "budget": budget,
        "tokens_whole": count("".join(whole)),
        "tokens": count(text),
        "shots_that_fit_whole": sum(count("".join(whole[: n + 1])) <= budget for n in range(len(whole))),
    }
    return text, report


def _that_fit(shots: Iterable[tuple[int, str, str]], budget: int, count, num_shots: int | None) -> list[int]:
    """The examples (number, question and text), in their order, that fit the budget together; no question twice."""
    chosen: list[int] = []
    asked: set[str] = set()
    text = ""
    for n, question, one in shots:
        if len(chosen) == num_shots:
            break
        if question not in asked and not _fillable(one) and count(text + one) <= budget:
            chosen.append(n)
            asked.add(question)
            text += one
    return chosen


def _fillable(text: str) -> bool:
    """Whether a wording would fill in something.

    >>> [_fillable(text) for text in ("a {budget}", "a {effort:03}", "a {set}")]
    [True, True, False]
    """
    return any(name in text.replace(":03}", "}") for name in ("{question}", "{budget}", "{effort}"))


def _most(fits: Callable[[int], bool], most: int) -> int:
    """The largest number up to `most` that fits, of numbers that fit until they do not; 0 is not asked."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low

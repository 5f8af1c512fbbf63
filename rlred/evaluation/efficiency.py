"""What accuracy costs in tokens: measures of one row, of one mode, and of a model against its base.

    efficiency     of a row: lengths by correctness, tokens per correct answer, OckScore, repetition, several samples
    spectrum       of a mode: accuracy where completions over a cap count as incorrect, for five caps
    area           under accuracy against the logarithm of tokens
    aes            accuracy and tokens of a row, held against the base's

The outcomes are those of rlred/evaluation/measures.py; docs/measures.md has every formula and its source.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean

import numpy as np

from rlred.rewards.correctness import boxed_answer

CAPS = (1, 2, 4, 8, 16)  # the natural maximum is divided by these
NGRAM = 4


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The chance that one of k completions, drawn from n of which some are correct, is correct: unbiased.

    1 - C(n - correct, k) / C(n, k) (2107.03374, eq 1). Raises `ValueError` unless 1 <= k <= n and 0 <= correct <= n.

    >>> pass_at_k(4, 1, 1), pass_at_k(4, 1, 2), pass_at_k(4, 3, 2)
    (0.25, 0.5, 1.0)
    """
    if not 1 <= k <= n or not 0 <= correct <= n:
        raise ValueError(f"pass@k: needs 1 <= k <= n and 0 <= correct <= n, got k={k}, n={n}, correct={correct}")
    return 1 - math.comb(n - correct, k) / math.comb(n, k)


def repetition(tokens: Sequence, size: int = NGRAM) -> float | None:
    """The share of n-grams that stand in the sequence already: 1 - distinct / all; None for one that is too short.

    >>> repetition("a b a b a b".split(), 2), repetition("a b c".split())
    (0.6, None)
    """
    grams = list(zip(*(tokens[start:] for start in range(size)), strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else None


def ock_score(accuracy: float, tokens: float) -> float:
    """OckScore: accuracy in per cent, less 10 ln(tokens / 10,000 + 1).

    >>> ock_score(0.5, 0), round(ock_score(0.5, 10_000), 3)
    (50.0, 43.069)
    """
    return 100 * accuracy - 10 * math.log(tokens / 10_000 + 1)


def aes(base: dict, line: dict, gain: float = 3.0, loss: float = 5.0) -> float | None:
    """The accuracy-efficiency score of a row held against a base's: share of tokens saved + gain or - loss of accuracy.

    (L0 - L) / L0 + 3 (A - A0) / A0 where accuracy is no lower, and - 5 (A0 - A) / A0 where it is. None where the base
    is never correct, or either was not graded.

    >>> base = {"mean_length": 100.0, "accuracy": 0.8}
    >>> aes(base, {"mean_length": 50.0, "accuracy": 0.8}), aes(base, {"mean_length": 50.0, "accuracy": 0.6})
    (0.5, -0.75)
    """
    if not base["accuracy"] or line["accuracy"] is None or not base["mean_length"]:
        return None
    shorter = (base["mean_length"] - line["mean_length"]) / base["mean_length"]
    better = (line["accuracy"] - base["accuracy"]) / base["accuracy"]
    return round(shorter + (gain if better >= 0 else loss) * better, 9)


def area(points: Iterable[tuple[float, float]]) -> float | None:
    """The area under accuracy against ln(tokens), over the width: the mean accuracy where tokens are logarithmic.

    Between two points the line is straight; points of one length count as their mean. None where all are of one length.

    >>> area([(10, 0.0), (100, 1.0)]), area([(10, 0.5), (20, 0.5), (40, 1.0)]), area([(10, 0.5)])
    (0.5, 0.625, None)
    """
    heights: dict[float, list[float]] = defaultdict(list)
    for tokens, accuracy in points:
        if tokens > 0 and accuracy is not None:
            heights[math.log(tokens)].append(accuracy)
    places = sorted(heights)
    if len(places) < 2:
        return None
    under = np.trapezoid([fmean(heights[place]) for place in places], places)
    return round(float(under) / (places[-1] - places[0]), 12)


def answer_of(outcome: dict) -> str | None:
    """What an outcome votes for; all correct ones vote alike, however they are written, and no answer is no vote.

    The box is looked for in `answer`, which of a thinking model is what follows its thinking, or else in `completion`.

    >>> [answer_of({"correct": c, "completion": t}) for c, t in ((1.0, "1/2"), (0.0, "so \\\\boxed{ 7 }"), (0.0, "so"))]
    ['correct', ': 7', None]
    """
    if outcome["correct"]:
        return "correct"
    said = outcome["answer"] if "answer" in outcome else boxed_answer(outcome.get("completion") or "")
    return f": {' '.join(said.split())}" if said and said.strip() else None


def majority(group: Sequence[dict]) -> float:
    """The chance that the answer which most samples of a question give is correct; several that tie share it.

    >>> rows = [{"correct": float(a == "4"), "answer": a} for a in ("4", "5", "5", "4", "6")]
    >>> majority(rows), majority(rows[:3]), majority(rows[:1])
    (0.5, 0.0, 1.0)
    """
    votes: dict[str, int] = defaultdict(int)
    for outcome in group:
        answer = answer_of(outcome)
        if answer is not None:
            votes[answer] += 1
    most = max(votes.values(), default=0)
    winners = [answer for answer, count in votes.items() if count == most]
    return ("correct" in winners) / len(winners) if winners else 0.0


def sampled(outcomes: Iterable[dict]) -> dict:
    """Of questions that were answered several times: mean@k, pass@k and the majority's accuracy; else nothing.

    k is the number of graded samples that every graded question has at least; pass@k is given for its powers of 2 too.
    """
    groups: dict[object, list[dict]] = defaultdict(list)
    for outcome in outcomes:
        if outcome["correct"] is not None:
            groups[outcome["question_id"]].append(outcome)
    samples = min(map(len, groups.values()), default=0)
    if samples < 2:
        return {}
    counts = [(len(group), sum(one["correct"] > 0 for one in group)) for group in groups.values()]
    sizes = sorted({*(2**power for power in range(samples.bit_length()) if 2**power <= samples), samples})
    return {
        "samples": samples,
        "mean_at_k": fmean(correct / n for n, correct in counts),
        "pass_at_k": {str(k): fmean(pass_at_k(n, correct, k) for n, correct in counts) for k in sizes},
        "majority_accuracy": fmean(map(majority, groups.values())),
    }


def efficiency(outcomes: Sequence[dict]) -> dict:
    """The measures of a row beside `measures.summary`; None for what cannot be known.

    >>> rows = [{"question_id": n, "length": n, "correct": c} for n, c in ((10, 1.0), (30, 0.0), (50, None))]
    >>> line = efficiency(rows)
    >>> line["correct_length"], line["incorrect_length"], line["tokens_per_correct"], line["repetition"]
    (10.0, 30.0, 40.0, None)
    """
    graded = [one for one in outcomes if one["correct"] is not None]
    correct = sum(one["correct"] > 0 for one in graded)
    tokens = sum(one["length"] for one in graded)
    return {
        "correct_length": mean(one["length"] for one in graded if one["correct"]),
        "incorrect_length": mean(one["length"] for one in graded if not one["correct"]),
        "tokens_per_correct": tokens / correct if correct else None,
        "ock_score": ock_score(correct / len(graded), tokens / len(graded)) if graded else None,
        "repetition": mean(map(_repeated, outcomes)),
        **sampled(outcomes),
    }


def _repeated(outcome: dict) -> float | None:
    """Of the tokens, or of the words where only the text was kept."""
    text = outcome.get("completion")
    tokens = outcome.get("completion_ids") or (text.split() if isinstance(text, str) else ())
    return repetition(tokens)


def natural_maximum(outcomes: Iterable[dict]) -> int | None:
    """Tokens of the longest completion that ended by itself, or of the longest of all where none did.

    >>> natural_maximum([{"length": n, "truncated": n > 80} for n in (20, 64, 90)])
    64
    """
    rows = list(outcomes)
    ended = [one["length"] for one in rows if not one["truncated"]] or [one["length"] for one in rows]
    return max(ended, default=None)


def spectrum(outcomes: Sequence[dict], longest: int) -> dict:
    """Accuracy under caps from `longest` down to a sixteenth: a completion of more tokens than the cap is incorrect.

    Computed from completions that were not cut there: one that is asked to be shorter may do better. `area` is over
    the caps; with several samples of a question, `majorities` is the accuracy of the majority under each cap.

    >>> rows = [{"question_id": n, "length": n, "correct": 1.0} for n in (4, 8, 16, 64)]
    >>> found = spectrum(rows, 64)
    >>> found["caps"], found["accuracies"], found["area"]
    ([64, 32, 16, 8, 4], [1.0, 0.75, 0.75, 0.5, 0.25], 0.65625)
    """
    caps = list(dict.fromkeys(max(1, round(longest / share)) for share in CAPS))
    capped = [[_capped(one, cap) for one in outcomes] for cap in caps]
    accuracies = [mean(one["correct"] for one in rows) for rows in capped]
    majorities = [sampled(rows).get("majority_accuracy") for rows in capped]
    known = {} if majorities[0] is None else {"majorities": majorities}
    return {"caps": caps, "accuracies": accuracies, **known, "area": area(zip(caps, accuracies, strict=True))}


def _capped(outcome: dict, cap: int) -> dict:
    """The outcome as it would have been under a cap, which leaves no answer."""
    if outcome["length"] <= cap or outcome["correct"] is None:
        return outcome
    return {**outcome, "correct": 0.0, "answer": None, "completion": None}

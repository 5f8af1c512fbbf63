"""Accuracy against visual tokens: a sweep over questions with pictures, and the lines of its tables.

sweep_pictures   every question once, by one choice for all or by the policy's own: the outcomes of every other
                 sweep (rlred/evaluation/sweep.py), with what was seen
row_of           outcomes -> one row: what every table has, and the visual tokens
fixed_rows       each choice for all questions: what spending comes to that does not see the question
"""

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlred.evaluation.measures import summary
from rlred.evaluation.sampling import Sampling
from rlred.evaluation.sweep import in_batches, open_completions, seeded, stop_ids
from rlred.rewards import ExactMatch
from rlred.vision.budget_policy import VisualBudgetPolicy
from rlred.vision.reduce import Reducer

POLICY = "policy"  # the choice of a row in which each question has its own
OWN = ("completion_ids", "mask", "budget_token", "answer", "visual_tokens", "full_visual_tokens")  # saved of a rollout


def sweep_pictures(
    policy: VisualBudgetPolicy,
    model,
    rows: Sequence[dict],
    sampling: Sampling,
    *,
    choice: str | None = None,
    correctness: Any = None,
    path: Path | None = None,
) -> list[dict]:
    """What each row's rollout came to: an outcome, in the rows' order.

    Its `level` is the question's family and its `length` the tokens that the policy chose; beside them stand the
    `budget_token` and the `visual_tokens` of the picture's `full_visual_tokens`. `choice` is one of the policy's
    choices for all rows; without it the policy chooses, at the sampling's temperature. The answer after a budget token
    is greedy, so that a row shows what the choice is worth. Each batch is seeded by itself. With `path`, rollouts are
    saved batch by batch, and those that are there are not made again; raises `ValueError` where that file was made of
    other questions or settings.
    """
    size, done = sampling.batch_size, []
    if path is not None:
        asked = [{"question": row["question"], "picture": _digest(row["image"])} for row in rows]
        done = open_completions(path, _settings(policy, model, sampling, choice), asked)

    def roll_out(start: int) -> list[dict]:
        some = rows[start : start + size]
        with seeded(sampling.seed + start):
            rollouts = policy(
                model,
                [[{"role": "user", "content": row["question"]}] for row in some],
                [row["image"] for row in some],
                None if choice is None else [choice] * len(some),
                temperature=sampling.temperature,
                answer_temperature=0.0,
                max_answer=sampling.max_completion_length,
            )
        return [{name: getattr(rollout, name) for name in OWN} for rollout in rollouts]

    found = in_batches(done, range(0, len(rows), size), roll_out, path, f"pictures: {choice or POLICY}")
    correctness, stops = correctness or ExactMatch(), stop_ids(model, policy.tokenizer)
    return [_outcome(number, *pair, correctness, stops) for number, pair in enumerate(zip(rows, found, strict=True))]


def _settings(policy: VisualBudgetPolicy, model, sampling: Sampling, choice: str | None) -> dict:
    """What decides on the rollouts of given questions, beside the weights; of the reducer, what is not the default."""
    reducer, default = model.sparse_vision.reducer, Reducer()
    changed = {} if reducer.strategy == default.strategy else {"strategy": reducer.strategy}
    if reducer.score != default.score:
        changed["score"] = getattr(reducer.score, "__name__", str(reducer.score))
    names = ("max_completion_length", "batch_size", "temperature", "seed")
    own = {name: getattr(policy, name) for name in ("budget_tokens", "thumbnail", "on_request")} | changed
    return {**{name: getattr(sampling, name) for name in names}, "choice": choice, **own, **policy.prompts.described()}


def _digest(image) -> str:
    return hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes()).hexdigest()[:16]


def _outcome(number: int, row: dict, own: dict, correctness, stops: set[int]) -> dict:
    return {
        "question_id": number,
        "level": row["family"],
        "mode": "free",
        "budget": None,
        "length": sum(own["mask"]),
        "correct": correctness.grade(own["answer"], row["solution"]),
        "truncated": own["completion_ids"][-1] not in stops,
        "completion": own["answer"],
        **{name: own[name] for name in ("completion_ids", "budget_token", "visual_tokens", "full_visual_tokens")},
    }


def line_of(outcomes: Sequence[dict]) -> dict:
    """What every line has, the mean keep ratio and visual tokens, and the share in which each budget token came.

    >>> outcome = {"length": 2, "truncated": False, "correct": 1.0, "budget_token": "1", "full_visual_tokens": 64}
    >>> line = line_of([{**outcome, "visual_tokens": 64}, {**outcome, "budget_token": None, "visual_tokens": 0}])
    >>> line["keep_ratio"], line["visual_tokens"], line["budget_tokens"]
    (0.5, 32.0, {'1': 0.5, 'none': 0.5})
    """
    n, tokens = len(outcomes), Counter(outcome["budget_token"] or "none" for outcome in outcomes)
    return {
        **summary(outcomes),
        "keep_ratio": sum(outcome["visual_tokens"] / outcome["full_visual_tokens"] for outcome in outcomes) / n,
        "visual_tokens": sum(outcome["visual_tokens"] for outcome in outcomes) / n,
        "budget_tokens": {token: count / n for token, count in tokens.most_common()},
    }


def row_of(outcomes: Sequence[dict], **labels) -> dict:
    """The row of a sweep: its labels, its line, and the line of each family under `by_level`."""
    families = defaultdict(list)
    for outcome in outcomes:
        families[outcome["level"]].append(outcome)
    return {
        **labels,
        **line_of(outcomes),
        "by_level": {family: line_of(some) for family, some in sorted(families.items())},
    }


def fixed_rows(
    policy: VisualBudgetPolicy,
    model,
    rows: Sequence[dict],
    sampling: Sampling,
    *,
    correctness: Any = None,
    path: Path | None = None,
    **labels,
) -> list[dict]:
    """A row for each choice, made for all questions, greedily, with the `seconds` that it took.

    The rollouts of choice number i are saved beside `path`, with "-i" after its name; a sweep that was interrupted has
    no time of its own (None).
    """
    found = []
    for number, choice in enumerate(policy.choices):
        own = path and path.with_name(f"{path.name}-{number}.completions.jsonl")
        resumed, start = own is not None and own.exists(), time.perf_counter()
        greedy = sampling.at(temperature=0.0)
        outcomes = sweep_pictures(policy, model, rows, greedy, choice=choice, correctness=correctness, path=own)
        seconds = None if resumed else time.perf_counter() - start
        found.append(row_of(outcomes, choice=choice, decoding="greedy", seconds=seconds, **labels))
    return found


def blind_accuracy(fixed: Sequence[dict], keep_ratio: float) -> float:
    """The best accuracy at a mean keep ratio of any mixture of fixed choices that does not see the question.

    >>> round(blind_accuracy([{"keep_ratio": 0.25, "accuracy": 0.6}, {"keep_ratio": 1.0, "accuracy": 0.9}], 0.5), 3)
    0.7
    """
    points = [(row["keep_ratio"], row["accuracy"]) for row in fixed if row["accuracy"] is not None]
    best = max((accuracy for cost, accuracy in points if cost <= keep_ratio + 1e-9), default=0.0)
    for low, at_low in points:
        for high, at_high in points:
            if low <= keep_ratio <= high and low < high:
                best = max(best, at_low + (at_high - at_low) * (keep_ratio - low) / (high - low))
    return best


def optima(fixed: Sequence[dict], visual_weight: float) -> dict[str, dict[str, float]]:
    """For each family, each choice's mean reward a (1 + w (1 - K/N)), best first: where a policy that learns should go.

    A choice none of whose answers could be graded is left out.

    >>> at = lambda choice, ratio, accuracy: {
    ...     "choice": choice, "by_level": {"dot": {"keep_ratio": ratio, "accuracy": accuracy}}
    ... }
    >>> optima([at("low", 0.25, 0.5), at("high", 1.0, 0.9)], 0.2)
    {'dot': {'high': 0.9, 'low': 0.575}}
    """
    found = {}
    for family in fixed[0]["by_level"]:
        lines = {row["choice"]: row["by_level"][family] for row in fixed}
        values = {
            choice: line["accuracy"] * (1 + visual_weight * (1 - min(line["keep_ratio"], 1)))
            for choice, line in lines.items()
            if line["accuracy"] is not None
        }
        found[family] = {choice: round(v, 6) for choice, v in sorted(values.items(), key=lambda item: -item[1])}
    return found


def position_map(
    policy: VisualBudgetPolicy, model, rows: Sequence[dict], choice: str, cells: int = 8
) -> list[list[float]]:
    """Where in the pictures the selected tokens lie: cells x cells shares, 1 = as many as if spread evenly.

    A score that favours the bottom of every picture, as text-to-image attention does, shows here.
    """
    counts = [[0.0] * cells for _ in range(cells)]
    for start in range(0, len(rows), 128):
        some = rows[start : start + 128]
        prompts = [[{"role": "user", "content": row["question"]}] for row in some]
        policy(model, prompts, [row["image"] for row in some], [choice] * len(some), temperature=0, max_answer=1)
        for seen in model.sparse_vision.seen:
            height, width = seen.grid
            for position in seen.index.tolist():
                y, x = divmod(position, width)
                counts[y * cells // height][x * cells // width] += 1
    total = sum(map(sum, counts))
    return [[count / total * cells**2 for count in row] for row in counts]

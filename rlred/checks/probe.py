"""What a model does by itself, before any training, and which budgets it could learn from that.

    free          every question, some completions, no budget: natural lengths, accuracy, share cut at the cap
    brief         asked with a request to be brief
    stopped       a free completion, cut at the end of a sentence and made to answer
    continued     a free completion that goes on after "Wait"

The last three are sources of a hindsight start (rlred/evaluation/trace_sources.py). What ended by itself is put into
bins of length, equally wide in the logarithm. A bin with enough correct completions can be learned; the longest row of
such bins is the range of budgets. Completions are kept in `<output>/completions/`, so an interrupted probe goes on.
"""

import dataclasses
import itertools
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlred.data.budgets import BudgetSampler
from rlred.data.prompts import Prompts
from rlred.evaluation.conditions import free
from rlred.evaluation.measures import wilson
from rlred.evaluation.sampling import Grading, Sampling
from rlred.evaluation.sweep import outcomes_of, stop_ids, sweep
from rlred.evaluation.trace_sources import ANSWER_LIMIT, SOURCES, Bins, Material, sample, table
from rlred.files import whole_lines, write_json

QUANTILES = (0, 5, 10, 25, 50, 75, 90, 95, 100)  # per cent
HEADROOM = 1.25  # the completion cap over the largest budget; half of that hides most overruns
TRACES_PER_BIN = 64  # what the suggested samples aim for; `spread` visits a trace four times, so these fill 256 places
MOST_SAMPLES = 8192  # of one source: a bin that would need more is left thin
LEAST_SAMPLES = 64


@dataclass(frozen=True)
class Probing:
    """How much is asked. `num_traces` is the number of completions of each source but `free`."""

    num_traces: int
    budget_low: int = 16
    num_bins: int = 8
    min_correct: int = 4

    def bins(self, cap: int) -> Bins:
        """The bins of length, up to the cap."""
        return Bins(self.budget_low, cap, self.num_bins)


def quantiles(lengths: Sequence[int]) -> dict[str, int]:
    """Quantiles in per cent; each is a length that occurs. Empty for no lengths.

    >>> quantiles([10, 20, 30, 40])["50"]
    20
    """
    if not lengths:
        return {}
    return {str(q): int(np.quantile(lengths, q / 100, method="inverted_cdf")) for q in QUANTILES}


def learnable(correct: Sequence[int], least: int) -> tuple[int, int] | None:
    """The first and last bin of the longest row of bins with at least so many correct completions; None for no bin.

    Of two rows of one length the one with more correct completions is taken.

    >>> learnable([0, 5, 9, 0, 7], 4), learnable([3, 0], 4)
    ((1, 2), None)
    """
    found, start = [], 0
    for good, group in itertools.groupby(correct, key=lambda number: number >= least):
        numbers = list(group)
        if good:
            found.append((len(numbers), sum(numbers), start))
        start += len(numbers)
    if not found:
        return None
    length, _, first = max(found, key=lambda row: (row[0], row[1], -row[2]))
    return first, first + length - 1


def suggested(correct: Sequence[dict[str, int]], sampled: dict[str, int]) -> dict[str, int]:
    """Completions to sample of each source, so that every bin gets `TRACES_PER_BIN` correct ones from its best source.

    `correct` are the correct completions of each bin by source, `sampled` all of a source. A multiple of 64, at most
    `MOST_SAMPLES`; of `free`, from which others are made, at least 64.

    >>> suggested([{"free": 32, "brief": 8}, {"stopped": 16}], {"free": 64, "brief": 64, "stopped": 64})
    {'free': 128, 'stopped': 256}
    """
    counts = {"free": LEAST_SAMPLES}
    for row in correct:
        shares = {name: number / sampled[name] for name, number in row.items() if number}
        if shares:
            best = max(shares, key=shares.get)
            needed = LEAST_SAMPLES * math.ceil(TRACES_PER_BIN / shares[best] / LEAST_SAMPLES)
            counts[best] = max(counts.get(best, 0), min(needed, MOST_SAMPLES))
    return {name: counts[name] for name in SOURCES if name in counts}


def check_asked(folder: Path, asked: dict) -> None:
    """Notes how a folder's completions are sampled. Raises `ValueError` where those there were sampled otherwise."""
    path = folder / "asked.json"
    sampled = any(folder.glob("*.jsonl"))  # else a probe that failed before it began left only the note
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() and sampled else asked
    for name in asked:
        if before.get(name) != asked[name]:
            raise ValueError(
                f"--{name} {asked[name]!r}, but the completions in {folder} were sampled with {before.get(name)!r}; "
                "name another --output, or say the same again"
            )
    write_json(path, asked)


def collect(
    model, tokenizer, questions: list[dict], prompts: Prompts, sampling: Sampling, probing: Probing, folder: Path
) -> tuple[list[dict], float | None]:
    """Outcomes of every source, each with its `source`, and the tokens per second at which the free ones were sampled.

    The speed is None where all of them were on disk. `prompts` are fitted to the tokenizer.
    """
    grading = Grading().fitted(prompts.end_of_thinking, tokenizer)
    path, start = folder / "free.jsonl", time.monotonic()
    before = _tokens_in(path)
    outcomes = sweep(
        model, tokenizer, questions, free(prompts), sampling=sampling, grading=grading, path=path, description="free"
    )
    sampled = _tokens_in(path) - before
    speed = round(sampled / (time.monotonic() - start), 1) if sampled else None
    outcomes = [{**outcome, "source": "free"} for outcome in outcomes]
    rows = {row["question_id"]: row for row in questions}
    traces = [{**rows[one["question_id"]], "completion_ids": one["completion_ids"]} for one in outcomes]
    stops, cap = frozenset(stop_ids(model, tokenizer)), sampling.max_completion_length
    material = Material(
        tokenizer,
        prompts,
        questions,
        BudgetSampler(probing.budget_low, cap),
        stops,
        sampling,
        asks_budgets=False,
        free=[trace for trace in traces if trace["completion_ids"]],
    )
    by_text = {row["question"]: row for row in questions}
    for source in SOURCES:
        if source != "free":
            kept = folder / f"{source}.jsonl"
            own = sample(source, model, material, probing.num_traces, kept, chunk=sampling.batch_size)
            asked = [by_text[trace["question"]] for trace in own]
            ids = [trace["completion_ids"] for trace in own]
            found = outcomes_of(asked, ids, tokenizer=tokenizer, stops=stops, grading=grading)
            outcomes += [{**outcome, "source": source} for outcome in found]
    return outcomes, speed


def _tokens_in(path: Path) -> int:
    """The tokens of the batches that a file of completions holds, but for one that was cut off by a crash."""
    return sum(len(ids) for line in whole_lines(path)[1:] for ids in json.loads(line))


def summary(outcomes: Sequence[dict]) -> dict:
    """What some completions did: how many, how many were cut, their lengths, how many are correct.

    Those whose answer cannot be graded are counted in `ungraded` and are no part of `accuracy`.
    """
    grades = [one["correct"] for one in outcomes if one["correct"] is not None]
    low, high = wilson(sum(grades), len(grades))
    return {
        "n": len(outcomes),
        "cut": sum(one["truncated"] for one in outcomes) / max(1, len(outcomes)),
        "ungraded": len(outcomes) - len(grades),
        "accuracy": sum(grades) / len(grades) if grades else None,
        "accuracy_low": low,
        "accuracy_high": high,
        "lengths": quantiles([one["length"] for one in outcomes]),
    }


def binned(outcomes: Sequence[dict], bins: Bins) -> list[dict]:
    """What ended by itself, by bin: completions, correct ones (`kept`) and their sources; the free ones beside."""
    ended = [one for one in outcomes if not one["truncated"]]
    rows = []
    for own in (ended, [one for one in ended if one["source"] == "free"]):
        correct = [one["correct"] == 1.0 for one in own]
        rows.append(table(own, [one["length"] for one in own], correct, bins))
        for row in rows[-1]:
            row["accuracy"] = row["kept"] / row["completions"] if row["completions"] else None
    for both, own in zip(*rows, strict=True):
        both["free"] = {name: own[name] for name in ("completions", "kept", "accuracy")}
    return rows[0]


def found_range(outcomes: Sequence[dict], bins: Bins, rows: Sequence[dict], least: int) -> tuple[int, int] | None:
    """The shortest and the longest correct completion of the bins that can be learned; None where there is no range."""
    run = learnable([row["kept"] for row in rows], least)
    if run is None:
        return None
    correct = [one["length"] for one in outcomes if one["correct"] == 1.0 and not one["truncated"]]
    inside = [length for length in correct if (of := bins.of(length)) is not None and run[0] <= of <= run[1]]
    return (min(inside), max(inside)) if min(inside) < max(inside) else None


def settings_of(outcomes: Sequence[dict], bins: Bins, rows: Sequence[dict], least: int) -> dict:
    """What a recipe takes; nothing where no range of budgets can be learned.

    The cap is `HEADROOM` times the largest budget and above the natural 95 % quantile.
    """
    found = found_range(outcomes, bins, rows, least)
    if found is None:
        return {}
    low, high = found
    first, last = learnable([row["kept"] for row in rows], least)
    own = [one for one in outcomes if one["source"] == "free"]
    counts = {name: sum(one["source"] == name for one in outcomes) for name in SOURCES}
    samples = suggested([row["sources"] for row in rows[first : last + 1]], counts)
    natural = quantiles([one["length"] for one in own])["95"]
    return {
        "budget_low": low,
        "budget_high": high,
        "budget_distribution": "log_uniform",
        "eval_budgets": BudgetSampler(low, high, "log_uniform").grid(7),
        "max_completion_length": max(math.ceil(HEADROOM * high), natural + 1),
        "hindsight_settings": {
            "num_samples": samples.pop("free"),
            "sources": samples,
            "num_bins": last - first + 1,
        },
    }


def by_question(outcomes: Sequence[dict]) -> list[dict]:
    """Lengths and accuracy of the free completions of each question."""
    groups: dict[object, list[dict]] = {}
    for one in outcomes:
        if one["source"] == "free":
            groups.setdefault(one["question_id"], []).append(one)
    found = []
    for name, own in groups.items():
        told = summary(own)
        lengths = [one["length"] for one in own]
        found.append({"question_id": name, "lengths": lengths, "cut": told["cut"], "accuracy": told["accuracy"]})
    return found


def sampled_tokens(report: dict) -> int | None:
    """Tokens that the suggested samples of a hindsight start take at most, from the mean lengths of this probe."""
    if not report["settings"]:
        return None
    told = report["settings"]["hindsight_settings"]
    means = {name: one["mean_length"] for name, one in report["sources"].items()}
    means["stopped"] = min(means["stopped"], ANSWER_LIMIT)  # the rest is given
    return round(sum(count * means[name] for name, count in {"free": told["num_samples"], **told["sources"]}.items()))


def report_of(outcomes: Sequence[dict], sampling: Sampling, probing: Probing) -> dict:
    """Everything that a probe found. Raises `ValueError` where no answer can be graded."""
    if all(one["correct"] is None for one in outcomes):
        raise ValueError("--questions: no question has an answer that can be graded, so nothing is known of accuracy")
    bins = probing.bins(sampling.max_completion_length)
    rows = binned(outcomes, bins)
    groups = {name: [one for one in outcomes if one["source"] == name] for name in SOURCES}
    sources = {
        name: summary(own) | {"mean_length": sum(one["length"] for one in own) / max(1, len(own))}
        for name, own in groups.items()
    }
    ended = [one for one in outcomes if not one["truncated"]]
    return {
        "sampling": dataclasses.asdict(sampling),
        "probing": dataclasses.asdict(probing),
        "sources": sources,
        "by_question": by_question(outcomes),
        "bins": rows,
        "outside_bins": sum(bins.of(one["length"]) is None for one in ended),
        "settings": settings_of(outcomes, bins, rows, probing.min_correct),
    }

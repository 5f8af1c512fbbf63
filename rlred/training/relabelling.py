"""What the hindsight start learns from: traces that are fit for it, as rows that ask for the lengths that they have."""

import dataclasses
import logging
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset

from rlred.data.budgets import BudgetSampler, hundredths
from rlred.data.prompts import Prompts, as_prompts, decode, end_ids, thinking_end
from rlred.evaluation.sampling import Grading
from rlred.evaluation.trace_sources import Bins, Material, described, sample, spread, table
from rlred.rewards import Correctness, Length
from rlred.rewards.effort_length import natural_length
from rlred.rewards.length import find_end
from rlred.training.counting import Counting
from rlred.training.hindsight_settings import Hindsight

logger = logging.getLogger(__name__)


def find_traces(
    model, material: Material, settings: Hindsight, grading: Grading, output: Path
) -> tuple[list[dict], list[dict]]:
    """The traces to learn from, the model's own and those of `settings.sources`, and the table of their bins.

    A completion that did not end by itself has no length of its own, and is dropped; with `only_correct` those are kept
    that end in their question's answer, with `prefer_correct` in the bins that have enough of them. Raises `ValueError`
    where too few are left, or a bin is empty that must not be.
    """
    found: list[dict] = []
    for source, count in {"free": settings.num_samples, **settings.sources}.items():
        path = output / ("traces.jsonl" if source == "free" else f"traces-{source}.jsonl")
        found += sample(source, model, material, count, path)
        if source == "free":
            material = dataclasses.replace(material, free=found)
    traces = [trace for trace in found if not trace.get("truncated")]
    cap = material.sampling.max_completion_length
    _enough(traces, found, settings, f"ended before max_completion_length={cap}; raise it")
    counting = Counting(settings.markers, material.tokenizer, as_prompts(material.prompts).end, grading.length)
    if settings.markers:
        ended, traces = traces, counting.countable(traces, cap)
        _enough(traces, ended, settings, "can be counted (see the log); change hindsight_settings.markers")
    lengths = counting.lengths(traces)
    bins, kept = Bins(*material.sampler.bounds, settings.num_bins), [True] * len(traces)
    if settings.only_correct or settings.prefer_correct or settings.cut_fraction:
        right = correct(traces, material, grading.correctness)
        traces = [{**trace, "correct": one} for trace, one in zip(traces, right, strict=True)]
        if settings.only_correct:
            kept = right
        elif settings.prefer_correct:
            kept = preferred(right, lengths, bins, settings.prefer_correct)
    rows = table(traces, lengths, kept, bins)
    if settings.only_correct or settings.prefer_correct:
        told = "correct (only_correct)" if settings.only_correct else "kept (prefer_correct)"
        logger.info("hindsight: %d of %d completions are %s", sum(kept), len(traces), told)
        ended, traces = traces, [trace for trace, keep in zip(traces, kept, strict=True) if keep]
        lengths = [n for n, keep in zip(lengths, kept, strict=True) if keep]
        _enough(traces, ended, settings, f"are {told}; raise num_samples, or keep them all")
    if settings.sources:
        inside = [trace for trace, n in zip(traces, lengths, strict=True) if bins.of(n) is not None]
        logger.info("hindsight: what there is of each length\n%s", described(rows))
        logger.info("hindsight: %d traces outside the budgets are left out", len(traces) - len(inside))
        _enough(
            inside,
            traces,
            settings,
            "have a length within the budgets; ask for others, or add to hindsight_settings.sources",
        )
        traces = inside
        empty = [f"{row['from']} to {row['to']}" for row in rows if not row["kept"]]
        if empty and settings.empty_bins == "stop":
            raise ValueError(
                f"hindsight: no trace of {', '.join(empty)} tokens to learn from; ask for budgets that have some, add "
                "to hindsight_settings.sources, or set hindsight_settings.empty_bins to shrink or warn"
            )
        if empty and settings.empty_bins == "shrink":
            low, high = learned_range(rows)
            told = "hindsight: no trace of %s tokens; budgets from %d to %d are learned, and no others are trained on"
            logger.warning(told, ", ".join(empty), low, high)
            inside = [low <= n <= high for n in counting.lengths(traces)]
            shrunk, traces = traces, [trace for trace, keep in zip(traces, inside, strict=True) if keep]
            _enough(traces, shrunk, settings, f"have {low} to {high} tokens; add to hindsight_settings.sources")
    return traces, rows


def learned_range(rows: Sequence[dict]) -> tuple[int, int]:
    """The lengths of the most bins side by side with a trace that is kept, of the longer ones where two runs tie.

    >>> bins = [(16, 24, 9), (24, 36, 0), (36, 54, 2), (54, 80, 7)]
    >>> learned_range([{"from": low, "to": high, "kept": kept} for low, high, kept in bins])
    (36, 80)
    """
    runs: list[list[int]] = [[]]
    for place, row in enumerate(rows):
        if row["kept"]:
            runs[-1].append(place)
        else:
            runs.append([])
    longest = max(runs, key=lambda run: (len(run), run))
    last = longest[-1] == len(rows) - 1  # only the last bin includes its upper end
    return rows[longest[0]]["from"], rows[longest[-1]]["to"] - (not last)


def _enough(traces, of, settings: Hindsight, what: str) -> None:
    if len(traces) < settings.batch_size:
        raise ValueError(
            f"hindsight: only {len(traces)} of {len(of)} sampled completions {what}, or turn the hindsight start off; "
            f"an update takes {settings.batch_size}"
        )


def correct(traces, material: Material, correctness: Correctness) -> list[bool]:
    """Whether each trace ends in its question's answer."""
    sought = {trace["question"] for trace in traces}
    solutions = {row["question"]: row["solution"] for row in material.questions if row["question"] in sought}
    own = [trace["completion_ids"] for trace in traces]
    texts = decode(material.tokenizer, own, thinking_end(correctness), as_prompts(material.prompts).markers)
    grades = correctness(texts, solution=[solutions[trace["question"]] for trace in traces])
    return [grade == 1.0 for grade in grades]


def preferred(right: Sequence[bool], lengths: Sequence[int], bins: Bins, enough: int) -> list[bool]:
    """Whether each trace is kept: the correct ones alone in a bin that has `enough` of them, all in any other.

    >>> preferred([True, True, False, False], [10, 12, 14, 40], Bins(8, 64, 2), enough=2)
    [True, True, False, True]
    """
    places = [bins.of(n) for n in lengths]
    found = Counter(place for place, one in zip(places, right, strict=True) if one)
    return [one or found[place] < enough for place, one in zip(places, right, strict=True)]


def epoch_of(lengths: list[int], sampler: BudgetSampler, settings: Hindsight, rng: random.Random) -> list[int]:
    """Indices of the traces in the order of one epoch: each once, or with `sources` evenly over the bins of length."""
    if not settings.sources:
        return rng.sample(range(len(lengths)), len(lengths))
    return spread(lengths, Bins(*sampler.bounds, settings.num_bins), rng)


def rivals_of(traces, lengths: Sequence[int]) -> list[list[int]]:
    """For each trace the indices of all traces of its question, the shortest first."""
    by_question: dict[tuple, list[int]] = {}
    for index in sorted(range(len(traces)), key=lengths.__getitem__):
        by_question.setdefault((traces[index]["question"], traces[index].get("system")), []).append(index)
    return [by_question[trace["question"], trace.get("system")] for trace in traces]


def within(
    budget: int, rivals: Sequence[int], lengths: Sequence[int], sampler: BudgetSampler, rng: random.Random
) -> tuple[int, int]:
    """A trace that keeps a maximum budget, and that budget: the shorter of two that are drawn from the rivals within.

    A budget below every rival is drawn again from those that one of them keeps; where none does, it is the shortest's
    own length.
    """
    shortest = lengths[rivals[0]]
    if budget < shortest:
        budget = sampler.budget(rng, shortest)
    if budget is None:
        return rivals[0], shortest
    fitting = [index for index in rivals if lengths[index] <= budget]
    return min(rng.choices(fitting, k=2), key=lengths.__getitem__), budget


def own_lengths(traces, lengths: Sequence[int], quantile: float | None) -> list[float]:
    """The own length of each trace's question: of the reference's correct answers, or else of its free traces.

    The first where the question came with the column `reference_correct_lengths`. The traces are those that are kept:
    with `only_correct` correct ones. A question without a free trace has that of all its traces.

    >>> traces = [{"question": "a"}, {"question": "a"}, {"question": "b", "reference_correct_lengths": [30, 50]}]
    >>> own_lengths(traces, [20, 40, 10], quantile=1.0)
    [40.0, 40.0, 50.0]
    """
    own: dict[tuple, list[list[int]]] = {}
    for trace, n in zip(traces, lengths, strict=True):
        free, every = own.setdefault((trace["question"], trace.get("system")), [[], []])
        every.append(n)
        if trace.get("source", "free") == "free":
            free.append(n)
    found = []
    for trace in traces:
        free, every = own[trace["question"], trace.get("system")]
        found.append(natural_length(trace.get("reference_correct_lengths") or free or every, quantile))
    return found


def check_traces_per_question(traces, settings: Hindsight) -> None:
    """Raises `ValueError` where most traces would be their question's own length, and teach nothing of efforts."""
    counts = Counter((one["question"], one.get("system")) for one in traces)
    told = [one for one in traces if not one.get("reference_correct_lengths")]
    alone = sum(counts[one["question"], one.get("system")] == 1 for one in told)
    if alone > 0.5 * len(traces):
        raise ValueError(
            f"hindsight_settings.samples_per_question={settings.samples_per_question}: {alone} of {len(traces)} traces "
            "are the only one of their question, and would all ask for effort 1; raise it, or bring "
            "reference_correct_lengths"
        )


def efforts_of(traces, lengths: Sequence[int], settings: Hindsight) -> list[float | None]:
    """The effort of each trace, its length as a share of its question's own, in whole hundredths; None above 1.

    Raises `ValueError` where fewer than an update's traces have one.
    """
    owns = own_lengths(traces, lengths, settings.effort_quantile)
    shares = [hundredths(n / max(own, 1)) / 100 for n, own in zip(lengths, owns, strict=True)]
    longer = sum(share > 1 + settings.effort_slack for share in shares)
    logger.info("hindsight: %d of %d traces are too long for an effort of their question", longer, len(traces))
    if len(traces) - longer < settings.batch_size:
        raise ValueError(
            f"hindsight_settings.effort_quantile={settings.effort_quantile}: only {len(traces) - longer} of "
            f"{len(traces)} traces are within their question's own length, and an update takes "
            f"{settings.batch_size}; raise it"
        )
    return [min(share, 1) if share <= 1 + settings.effort_slack else None for share in shares]


@dataclass
class Cutter:
    """Ends the thinking of some rows at a random point, and counts them."""

    fraction: float
    ends: Sequence[Sequence[int]]
    """The token sequences that end the thinking."""
    rng: random.Random
    cut: int = 0
    uncuttable: int = 0

    def check(self, traces: Sequence[dict], end: str) -> None:
        """Raises `ValueError` where rows are to be cut and no trace can be."""
        if self.fraction and not any(self.cuttable(trace["completion_ids"], trace) for trace in traces):
            raise ValueError(
                f"hindsight_settings.cut_fraction={self.fraction:g}: none of {len(traces)} traces is correct and ends "
                f"its thinking with {end!r}; set it to 0, or end_of_thinking to what ends it"
            )

    def cuttable(self, ids: list[int], trace: dict) -> tuple[int, int] | None:
        """Where the thinking of a correct trace ends; None for one that cannot be cut."""
        border = find_end(ids, self.ends) if trace.get("correct") else None
        return border if border and border[0] else None

    def __call__(self, ids: list[int], trace: dict) -> tuple[list[int], list[int]] | None:
        """The ids of a row that is cut, and what of them is trained on: what follows the end of thinking.

        None for a row that is not drawn, or whose trace cannot be cut.

        >>> Cutter(1.0, [(9,)], random.Random(0))([5, 6, 7, 9, 8, 2], {"correct": True})
        ([5, 9, 8, 2], [0, 0, 1, 1])
        """
        if not self.fraction or self.rng.random() >= self.fraction:
            return None
        border = self.cuttable(ids, trace)
        if border is None:
            self.uncuttable += 1
            return None
        self.cut += 1
        kept, (start, stop) = self.rng.randrange(border[0]), border
        return ids[:kept] + ids[start:], [0] * (kept + stop - start) + [1] * (len(ids) - stop)

    def report(self, rows: int) -> None:
        """Says how many rows were cut, and how many of those drawn could not be."""
        if self.fraction:
            said = "%d of %d rows are cut at a random point; %d more were drawn, and are incorrect or do not end"
            logger.info(f"hindsight: {said} their thinking", self.cut, rows, self.uncuttable)


@dataclass
class Overrun:
    """Asks some rows for fewer tokens than their thinking has, and counts them."""

    fraction: float
    counting: Counting
    low: int
    """The smallest budget that is asked for."""
    rng: random.Random
    made: int = 0

    def __call__(self, ids: list[int], places: Sequence[int], mode: str) -> tuple[list[int], int, int] | None:
        """The ids of a row whose number runs out, that number, and where its trained tokens begin.

        None for a row that is not drawn, or that has no such number within the budgets.
        """
        if not self.fraction or mode not in ("exact", "max") or self.rng.random() >= self.fraction:
            return None
        found = self.counting.overrun(ids, places, self.rng)
        if found is None or found[1] < self.low:
            return None
        self.made += 1
        return found

    def report(self, rows: int) -> None:
        """Says how many rows there are whose number runs out."""
        if self.fraction:
            logger.info("hindsight: in %d of %d rows the number runs out before the last step", self.made, rows)


def relabel(
    traces, tokenizer, prompts: Prompts, sampler: BudgetSampler, settings: Hindsight, length: Length, seed: int
):
    """Token rows for SFT (`input_ids`, `completion_mask`), enough for every update, each asking for its own length.

    The traces are shuffled anew each epoch and the mode of each visit is drawn from the sampler's weights; free rows
    keep the model's own length. A trace that is longer than its question's own length has no effort: in an effort row
    one of the question that has takes its place, and where there is none, the row is left out. The completion's tokens
    are those that were sampled, never re-tokenised text, with markers between them where the settings say so; in some
    rows the number runs out (`Overrun`). The traces are those that `Counting.countable` keeps.
    """
    rng, prompts = random.Random(f"relabel/{seed}"), as_prompts(prompts)
    cutter = Cutter(settings.cut_fraction, end_ids(tokenizer, prompts.end), random.Random(f"cut/{seed}"))
    cutter.check(traces, prompts.end)
    ends = () if settings.train_answer else cutter.ends
    counting = Counting(settings.markers, tokenizer, prompts.end, length)
    lengths, places = counting.lengths(traces), [counting.places(trace["completion_ids"]) for trace in traces]
    overrun = Overrun(settings.overrun_fraction, counting, sampler.bounds[0], random.Random(f"overrun/{seed}"))
    rivals = rivals_of(traces, lengths)
    efforts = []
    if sampler.modes.get("effort"):
        check_traces_per_question(traces, settings)
        efforts = efforts_of(traces, lengths, settings)
    rows: list[dict] = []
    needed = (settings.max_updates + settings.cooldown_updates) * settings.batch_size
    while len(rows) < needed:
        for index in epoch_of(lengths, sampler, settings, rng):
            mode, budget = sampler.draw(rng)
            slack = None if settings.max_slack is None else rng.randint(0, settings.max_slack)
            over, begin = overrun(traces[index]["completion_ids"], places[index], mode), 0
            if over is None and mode == "max" and slack is not None:
                budget = max(1, lengths[index]) + slack
            elif over is None and mode == "max":
                index, budget = within(budget, rivals[index], lengths, sampler, rng)
            elif mode == "effort":
                fitting = [one for one in rivals[index] if efforts[one] is not None]
                if not fitting:
                    continue
                index = index if efforts[index] is not None else rng.choice(fitting)
                budget = efforts[index]
            ids = traces[index]["completion_ids"]
            if over:
                ids, budget, begin = over
            elif mode == "exact":
                ids, budget = counting.asked(ids, places[index])
            elif mode == "max":
                ids, budget = counting.bounded(ids, places[index], budget)
            prompt_ids = prompts.ids(tokenizer, traces[index], budget, mode)
            border = find_end(ids, ends)
            trained = len(ids) if border is None else border[1]
            mask = [0] * begin + [1] * (trained - begin) + [0] * (len(ids) - trained)
            ids, mask = (not over and cutter(ids, traces[index])) or (ids, mask)
            rows.append({"input_ids": prompt_ids + ids, "completion_mask": [0] * len(prompt_ids) + mask})
            if len(rows) == needed:
                break
    cutter.report(len(rows))
    overrun.report(len(rows))
    return Dataset.from_list(sorted_in_updates(rows, settings.batch_size))


def sorted_in_updates(rows: list[dict], size: int) -> list[dict]:
    """The rows of each update, `size` of them, by length: an update mixes lengths, or budgets would have no contrast.

    >>> [len(row["input_ids"]) for row in sorted_in_updates([{"input_ids": [0] * n} for n in (9, 4, 7, 2)], 2)]
    [4, 9, 2, 7]
    """
    ordered: list[dict] = []
    for start in range(0, len(rows), size):
        ordered += sorted(rows[start : start + size], key=lambda row: len(row["input_ids"]))
    return ordered

r"""Evaluation by ratio: what is asked for, what comes, and what it costs.

    sweep_ratios     a sweep over ratios, one `max_completion_length` for all of them
    truncated        a control: the thinking at ratio 1, cut at the ratio, and the answer forced
    measure_ratios   outcomes -> one row per ratio
    evaluate_ratios  an adapter of recipes/tokenskip.py, its base and the control: `rlred evaluate --ratios`

The result is rlred/compression/ratio_report.py's, the same for models and for saved predictions.

A ratio is one thing: the share of the length at ratio 1. `evaluate_ratios` asks a model for each; of saved predictions
it is what each file was asked for. Both come with adherence.{json,md,png}, where the budget of a question is its ratio
times its tokens at ratio 1.

TokenSkip's released code multiplies `max_new_tokens` by the ratio on MATH, so part of what looks like obedience there
is the cut. Here the cap is the same for all, and how many completions reach it is in the table.
"""

import logging
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rlred.compression.arguments import UNASKED
from rlred.compression.cut import check_ratio
from rlred.compression.rows import RatioCondition, RatioFormat, make_ratio_format, ratio_conditions
from rlred.compression.traces import split_completion
from rlred.data.adapters import on_another_base
from rlred.data.models import Loading, load_model, local_adapter
from rlred.data.prompts import DEFAULT_END, decode, end_ids, found_end, prompts_of_record
from rlred.evaluation.evaluate import base_of
from rlred.evaluation.measures import by_question, measure, paired_difference, summary
from rlred.evaluation.predictions import budgets_of_ratios
from rlred.evaluation.report import adherence
from rlred.evaluation.results import Result, write_result
from rlred.evaluation.sampling import Grading, Sampling
from rlred.evaluation.sweep import complete, outcomes_of, stop_ids, sweep
from rlred.files import read_record
from rlred.rewards.length import find_end

logger = logging.getLogger(__name__)

BASE_TITLE = "base, asked in the same words"
TRUNCATION_TITLE = "control: thinking at ratio 1, cut at the ratio, answer forced"


def sweep_ratios(
    model,
    tokenizer,
    questions: Sequence[dict],
    conditions: Sequence[RatioCondition],
    *,
    sampling: Sampling,
    grading: Grading | None = None,
    folder: Path | None = None,
    description: str = "measuring",
) -> list[dict]:
    """Outcomes of a sweep by ratio, each ratio timed: with `answer_length`, and the `seconds` of a completion.

    `folder` keeps the completions of each ratio. A sweep that was interrupted has no time of its own (None).
    """
    outcomes = []
    for condition in conditions:
        path = folder / f"{condition.ratio:g}.completions.jsonl" if folder else None
        resumed, start = path is not None and path.exists(), time.perf_counter()
        found = sweep(
            model,
            tokenizer,
            questions,
            [condition],
            sampling=sampling,
            grading=grading,
            path=path,
            description=f"{description}: ratio {condition.ratio:g}",
        )
        seconds = None if resumed else (time.perf_counter() - start) / len(found)
        outcomes += [{**one, "seconds": seconds} for one in with_parts(found, tokenizer, condition.end_of_thinking)]
    return outcomes


def with_parts(outcomes: Sequence[dict], tokenizer, end: str | None) -> list[dict]:
    """Outcomes with `thinking_length` and `answer_length`, also where the thinking has no mark that ends it."""
    end = DEFAULT_END if end is None else end
    ends, found = end_ids(tokenizer, end), []
    for outcome in outcomes:
        ids = outcome["completion_ids"]
        thinking = num_thinking_tokens(ids, tokenizer, end, ends)
        found.append({**outcome, "thinking_length": thinking, "answer_length": len(ids) - thinking})
    return found


def num_thinking_tokens(
    ids: list[int], tokenizer, end: str | None = DEFAULT_END, ends: Sequence[Sequence[int]] | None = None
) -> int:
    """Tokens of a completion before its answer, the opening tag included; all of them where there is no answer.

    `ends` are the tokens of the text `end`, where they are known; without that end in the completion, the answer
    begins where `split_completion` finds it.
    """
    border = find_end(ids, end_ids(tokenizer, end) if ends is None else ends)
    if border is not None:
        return border[0]
    parts = split_completion(decode(tokenizer, [ids], end)[0], end or "")
    if not parts.answer:
        return len(ids)
    characters = len(parts.opening) + len(parts.thinking)
    return bisect_left(range(len(ids)), characters, key=lambda n: len(decode(tokenizer, [ids[:n]], end)[0]))


def truncated(
    model,
    tokenizer,
    questions: Sequence[dict],
    outcomes: Sequence[dict],
    ratio_format: RatioFormat,
    *,
    ratios: Sequence[float] | None = None,
    answer_tokens: int = 24,
    batch_size: int = 128,
) -> list[dict]:
    """The control: the thinking at ratio 1 is cut at `ratios` (the outcomes' own) and the answer forced, greedily."""
    full = {outcome["question_id"]: outcome for outcome in outcomes if outcome["ratio"] == 1}
    given = ratio_format.prompts.end_of_thinking
    end = found_end(tokenizer) if given is None else given
    forced = f"{end}\\boxed{{" if end else "\n\nThe final answer is: $\\boxed{"
    grading = Grading().fitted(given, tokenizer)
    forced_ids = tokenizer(forced, add_special_tokens=False)["input_ids"]
    found = []
    for ratio in sorted(set(ratios or [outcome["ratio"] for outcome in outcomes]) - {1.0}, reverse=True):
        prompts, heads = [], []
        for row in questions:
            own = full[row["question_id"]]
            heads.append(own["completion_ids"][: round(ratio * own["thinking_length"])])
            asked = ratio_format.prompt_ids(row["question"], 1.0, tokenizer, row.get("system"))
            prompts.append(asked + heads[-1] + forced_ids)
        answers = complete(model, tokenizer, prompts, Sampling(answer_tokens, temperature=0.0, batch_size=batch_size))
        completions = [head + forced_ids + answer for head, answer in zip(heads, answers, strict=True)]
        rows = [{**row, **RatioCondition(ratio_format, ratio).labels()} for row in questions]
        stops = stop_ids(model, tokenizer)
        outcomes_at = outcomes_of(rows, completions, tokenizer=tokenizer, stops=stops, grading=grading)
        found += with_parts(outcomes_at, tokenizer, given)
    return found


def measure_ratios(outcomes: Sequence[dict], full: Sequence[dict] | None = None) -> list[dict]:
    """One row per ratio, largest first. `achieved` is mean thinking tokens over those at ratio 1 (of `full`, if given).

    Where the thinking of some is not known apart, as in most saved predictions, all tokens take its place.

    >>> outcomes = [
    ...     {"question_id": q, "ratio": r, "length": n + 5, "thinking_length": n, "answer_length": 5, "correct": 1.0,
    ...      "truncated": False}
    ...     for q in range(2) for r, n in ((1.0, 80), (0.5, 44))
    ... ]
    >>> row = measure_ratios(outcomes)[1]
    >>> row["achieved"], round(row["gap"], 2), row["accuracy"], row["less_than_full"]["difference"]
    (0.55, 0.05, 1.0, 0.0)
    """
    at_one = [outcome for outcome in full or outcomes if outcome["ratio"] == 1]
    apart = all(outcome["thinking_length"] is not None for outcome in (*outcomes, *at_one))
    spent = "thinking_length" if apart else "length"
    whole = max(1e-9, fmean(outcome[spent] for outcome in at_one))
    rows = []
    for ratio in sorted({outcome["ratio"] for outcome in outcomes}, reverse=True):
        own = [outcome for outcome in outcomes if outcome["ratio"] == ratio]
        line = summary(own)
        achieved = line["mean_thinking_length" if apart else "mean_length"]
        rows.append(
            {
                "ratio": ratio,
                **line,
                "mean_thinking_length": achieved if apart else None,
                "mean_answer_length": line["mean_length"] - achieved if apart else None,
                "achieved": achieved / whole,
                "gap": achieved / whole - ratio,
                "seconds": own[0].get("seconds"),
                "less_than_full": None if ratio == 1 else paired_difference(by_question(at_one), by_question(own)),
            }
        )
    return rows


@dataclass(frozen=True)
class RatioEvaluation:
    """What to measure by ratio: flags of `rlred evaluate`. Raises `ValueError` for a value out of range."""

    adapter: str
    ratios: Sequence[float]
    model: str | None = None
    """The base; the adapter's own without one."""
    max_completion_length: int | None = None
    """The cap of every completion; that of the adapter's training without one."""
    temperature: float = 0.0
    batch_size: int = 128
    seed: int = 0
    loading: Loading | None = None

    def __post_init__(self):
        for ratio in self.ratios:
            check_ratio(ratio)
        self.sampling(1)

    def sampling(self, trained_cap: int) -> Sampling:
        """How both models are sampled."""
        cap = trained_cap if self.max_completion_length is None else self.max_completion_length
        return Sampling(cap, self.temperature, self.batch_size, self.seed)


def evaluate_ratios(evaluation: RatioEvaluation, questions: list[dict], output: Path) -> Result:
    """Measures an adapter, asked as it was trained to be, its base and the control; writes the result into `output`.

    Raises `ValueError` for an adapter whose folder does not say how it was asked for a ratio.
    """
    adapter = local_adapter(evaluation.adapter)
    record = Path(adapter) / "run.json"
    told = read_record(record) if record.is_file() else {}
    arguments = told.get("arguments") or {}
    if "ratio_format" not in arguments:
        raise ValueError(f"--adapter {adapter}: {record} does not say how a ratio is asked for; it is not tokenskip's")
    ratio_format = make_ratio_format(arguments["ratio_format"])
    base = base_of(adapter, [evaluation.model] if evaluation.model else [])
    prompts, sampling = prompts_of_record(told), evaluation.sampling(arguments["max_completion_length"])
    asked = arguments.get("ask_ratio", True) and arguments.get("scorer") not in UNASKED
    blocks, stages = {}, {}
    for name, title, own in (("base", BASE_TITLE, None), ("trained", "trained", adapter)):
        model, tokenizer = load_model(base, own, evaluation.loading)
        if other := on_another_base(own, base, model, evaluation.loading):
            logger.warning("%s", other)
        folder, ratio_format = output / "measures" / name, ratio_format.fitted(tokenizer, prompts)
        conditions = ratio_conditions(ratio_format, evaluation.ratios)
        outcomes = sweep_ratios(model, tokenizer, questions, conditions, sampling=sampling, folder=folder)
        blocks[name] = {"title": title, "rows": measure_ratios(outcomes)}
        stages["baseline" if name == "base" else name] = measure_as_budgets(outcomes)
    cut_off = truncated(model, tokenizer, questions, outcomes, ratio_format, batch_size=sampling.batch_size)
    blocks["truncation"] = {"title": TRUNCATION_TITLE, "rows": measure_ratios(cut_off, full=outcomes)}
    about = {"model": base, "adapter": adapter, "seed": sampling.seed, "n_questions": len(questions)}
    about["temperature"] = sampling.temperature
    told = {name: getattr(sampling, name) for name in ("max_completion_length", "batch_size")}
    trained = {"trained_ratios": arguments["ratios"] if asked else [1.0]}
    result = Result("ratios", {**about, **told, **trained}, blocks)
    write_result(result, output)
    write_result(adherence(about, stages, details={"warnings": [other] if other else None}), output)
    return result


def measure_as_budgets(outcomes: Sequence[dict]) -> dict:
    """The measures of adherence, where a question's budget is its ratio times its tokens at ratio 1."""
    asked = [{**one, "question": str(one["question_id"])} for one in outcomes]
    return measure(budgets_of_ratios(asked)[0])


def report_predictions(result: Result, outcomes: Sequence[dict], output: Path) -> None:
    """Writes saved predictions by ratio into `output`: `result` and `outcomes` are those of `measure_predictions`."""
    rows = measure_ratios([outcome for outcome in outcomes if outcome["ratio"] is not None])
    # What a file was asked for is not known to be untrained.
    labels = {**result.labels, "trained_ratios": [row["ratio"] for row in rows]}
    blocks = {"predictions": {"title": "saved predictions", "rows": rows}}
    write_result(Result("ratios", labels, blocks, details={"files": result.details["files"]}), output)

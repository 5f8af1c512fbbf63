"""The hindsight start: a model learns to hear the budget from its own work.

GRPO sharpens a dial that the model faintly has and does not find one that it lacks: where the budget in the prompt does
not move the stop, no group of rollouts holds a budget-dependent difference to learn from. So, before it:

    sample    the model's own completions, asked for any budget; for a model whose own lengths are not those of the
              budgets, traces of every length (rlred/evaluation/trace_sources.py)
    relabel   ask for the length that each one really has: exact N = n; maximum N = n + a little
    train     LoRA SFT on the same tokens, lengths mixed in every batch, until the rank correlation of budget and
              length passes a threshold (it comes by a phase transition)
    cool      some more updates at a falling rate, which settle the lengths that the high one leaves loose

No teacher: every completion is the right length for the question that asks for its own. No labels either, unless
`only_correct` keeps what is correct beside being as long as asked; RL then starts from about the base's own accuracy.
The idea is hindsight relabelling (Hindsight Experience Replay, 1707.01495) applied to lengths.

Each stage leaves its result in `<output>/hindsight/` and is not done twice: traces.jsonl, checkpoints, adapter.
"""

import dataclasses
import json
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from transformers import TrainerCallback

from rlred.data.budgets import BudgetSampler
from rlred.data.prompts import Prompts, as_prompts, decode, end_ids, thinking_end
from rlred.evaluation.conditions import budget_conditions
from rlred.evaluation.measures import within_question_rank_correlation
from rlred.evaluation.sampling import Grading, Sampling
from rlred.evaluation.sweep import stop_ids, sweep
from rlred.evaluation.trace_sources import SOURCES, Bins, Material, described, sample, spread, table
from rlred.files import write_json, write_text
from rlred.output import last_checkpoint
from rlred.rewards import Correctness, Length
from rlred.rewards.length import find_end
from rlred.training.sft import SFTSettings, SupervisedTrainer

logger = logging.getLogger(__name__)

WARMUP_UPDATES = 10


@dataclass(frozen=True)
class Hindsight:
    """Settings of the hindsight start. Raises `ValueError` for a value out of range."""

    num_samples: int = 2048
    """Completions to sample from the model, asked for budgets; without a budget beside `sources`."""
    sources: dict[str, int] = field(default_factory=dict)
    """Further completions by source, such as {brief: 2048, stopped: 4096, continued: 512}:
    rlred/evaluation/trace_sources.py. With any, the traces are drawn evenly over bins of length, and those outside the
    budgets are left out."""
    num_bins: int = 8
    """Bins of length between the smallest and the largest budget, equally wide in the logarithm."""
    empty_bins: str = "stop"
    """What happens where `sources` leave a bin without a trace: stop, or warn."""
    max_updates: int = 400
    """Most SFT updates at the full rate; fewer when the target is reached."""
    cooldown_updates: int = 60
    """Updates after those, while the rate falls to zero in a straight line."""
    batch_size: int = 64
    """Completions per update, over all processes."""
    micro_batch_size: int = 32
    """Completions per forward pass on one device; neighbours in length share one, so that little is padded."""
    learning_rate: float = 2e-3
    """Learning rate of the adapter until the cool-down. Twice as much can undo the dial: see docs/LOG.md."""
    max_slack: int = 8
    """A maximum budget is the completion's length plus 0 to this many tokens."""
    train_answer: bool = False
    """Whether the tokens after the thinking are trained on; they say nothing of length, and guessed ones are noise."""
    only_correct: bool = False
    """Whether only completions with a correct answer are kept; needs the answers, and `train_answer` keeps them so."""
    target_correlation: float = 0.9
    """The cool-down begins when the within-question rank correlation on probe questions reaches this."""
    probe_every: int = 40
    """Updates between two probes."""
    num_probe_questions: int = 12
    """Questions of a probe."""
    num_probe_budgets: int = 9
    """Budgets at which each of them is asked. A coarse grid can miss a number that the model does not hear yet."""

    def __post_init__(self):
        counts = (
            "num_samples",
            "max_updates",
            "batch_size",
            "micro_batch_size",
            "probe_every",
            "num_probe_questions",
            "num_bins",
        )
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"hindsight.{name} must be 1 or more, got {getattr(self, name)}")
        if self.num_probe_budgets < 2:
            raise ValueError(f"hindsight.num_probe_budgets must be 2 or more, got {self.num_probe_budgets}")
        for name, count in self.sources.items():
            if name not in SOURCES or name == "free":
                known = ", ".join(name for name in SOURCES if name != "free")
                raise ValueError(f"hindsight.sources: no source is called {name!r}; there are {known}")
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise ValueError(f"hindsight.sources.{name} must be a whole number, 1 or more, got {count!r}")
        if self.empty_bins not in ("stop", "warn"):
            raise ValueError(f"hindsight.empty_bins must be stop or warn, got {self.empty_bins!r}")
        for name in ("max_slack", "cooldown_updates"):
            if getattr(self, name) < 0:
                raise ValueError(f"hindsight.{name} must be 0 or more, got {getattr(self, name)}")
        if not 0 < self.target_correlation <= 1:
            raise ValueError(
                f"hindsight.target_correlation must be above 0 and at most 1, got {self.target_correlation}"
            )
        if not self.learning_rate > 0:
            raise ValueError(f"hindsight.learning_rate must be above 0, got {self.learning_rate}")


def find_traces(
    model, material: Material, settings: Hindsight, grading: Grading, output: Path
) -> tuple[list[dict], list[dict]]:
    """The traces to learn from, the model's own and those of `settings.sources`, and the table of their bins.

    A completion that did not end by itself has no length of its own, and is dropped; with `only_correct` those are kept
    that end in their question's answer. Raises `ValueError` where too few are left, or a bin is empty that must not be.
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
    lengths = [grading.length(trace["completion_ids"]) for trace in traces]
    kept = correct(traces, material, grading.correctness) if settings.only_correct else [True] * len(traces)
    bins = Bins(*material.sampler.bounds, settings.num_bins)
    rows = table(traces, lengths, kept, bins)
    if settings.only_correct:
        logger.info("hindsight: %d of %d completions are correct and kept", sum(kept), len(traces))
        ended, traces = traces, [trace for trace, keep in zip(traces, kept, strict=True) if keep]
        _enough(traces, ended, settings, "are correct (only_correct); raise num_samples, or keep them all")
    if settings.sources:
        inside = [trace for trace in traces if bins.of(grading.length(trace["completion_ids"])) is not None]
        logger.info("hindsight: what there is of each length\n%s", described(rows))
        logger.info("hindsight: %d traces outside the budgets are left out", len(traces) - len(inside))
        traces = inside
        empty = [f"{row['from']} to {row['to']}" for row in rows if not row["kept"]]
        if empty and settings.empty_bins == "stop":
            raise ValueError(
                f"hindsight: no trace of {', '.join(empty)} tokens to learn from; ask for budgets that have some, add "
                "to hindsight.sources, or set hindsight.empty_bins to warn"
            )
    return traces, rows


def _enough(traces, of, settings: Hindsight, what: str) -> None:
    if len(traces) < settings.batch_size:
        raise ValueError(
            f"hindsight: only {len(traces)} of {len(of)} sampled completions {what}, or turn the hindsight start off; "
            f"an update takes {settings.batch_size}"
        )


def correct(traces, material: Material, correctness: Correctness) -> list[bool]:
    """Whether each trace ends in its question's answer."""
    solutions = {row["question"]: row["solution"] for row in material.questions}
    texts = decode(material.tokenizer, [trace["completion_ids"] for trace in traces], thinking_end(correctness))
    grades = correctness(texts, solution=[solutions[trace["question"]] for trace in traces])
    return [grade == 1.0 for grade in grades]


def epoch_of(lengths: list[int], sampler: BudgetSampler, settings: Hindsight, rng: random.Random) -> list[int]:
    """Indices of the traces in the order of one epoch: each once, or with `sources` evenly over the bins of length."""
    if not settings.sources:
        return rng.sample(range(len(lengths)), len(lengths))
    return spread(lengths, Bins(*sampler.bounds, settings.num_bins), rng)


def relabel(
    traces, tokenizer, prompts: Prompts, sampler: BudgetSampler, settings: Hindsight, length: Length, seed: int
):
    """Token rows for SFT (`input_ids`, `completion_mask`), enough for every update, each asking for its own length.

    The traces are shuffled anew each epoch and the mode of each visit is drawn from the sampler's weights; free rows
    keep the model's own length. The completion's tokens are those that were sampled, never re-tokenised text.
    """
    rng, prompts = random.Random(f"relabel/{seed}"), as_prompts(prompts)
    ends = () if settings.train_answer else end_ids(tokenizer, prompts.end)
    lengths = [length(trace["completion_ids"]) for trace in traces]
    rows: list[dict] = []
    needed = (settings.max_updates + settings.cooldown_updates) * settings.batch_size
    while len(rows) < needed:
        for trace in (traces[index] for index in epoch_of(lengths, sampler, settings, rng)):
            mode, _ = sampler.draw(rng)
            n = max(1, length(trace["completion_ids"]))
            budget = {"exact": n, "max": n + rng.randint(0, settings.max_slack), "free": None}[mode]
            prompt_ids = prompts.ids(tokenizer, trace, budget, mode)
            ids = trace["completion_ids"]
            border = find_end(ids, ends)
            trained = len(ids) if border is None else border[1]
            mask = [0] * len(prompt_ids) + [1] * trained + [0] * (len(ids) - trained)
            rows.append({"input_ids": prompt_ids + ids, "completion_mask": mask})
    # Every update mixes lengths, or there is no contrast between budgets to learn from; inside it they are sorted.
    ordered: list[dict] = []
    for start in range(0, needed, settings.batch_size):
        ordered += sorted(rows[start : start + settings.batch_size], key=lambda row: len(row["input_ids"]))
    return Dataset.from_list(ordered)


class Probe(TrainerCallback):
    """Asks a few questions at several budgets every so often; once the dial is heard, the cool-down begins."""

    def __init__(self, ask_model, settings: Hindsight):
        self.ask_model = ask_model
        self.settings = settings
        self.end = end_of([], settings)

    def rate(self, update: int) -> float:
        """The share of the learning rate at an update: a short warm-up, the whole of it, a straight fall to zero."""
        falling = (self.end - update) / max(1, self.settings.cooldown_updates)
        return min(1.0, (update + 1) / WARMUP_UPDATES, falling)

    def on_train_begin(self, args, state, control, **kwargs):
        self.end = end_of(state.log_history, self.settings)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step % self.settings.probe_every == 0 or state.global_step >= self.end:
            # The main process's own: two engines need not agree, and then one would stop and the other go on.
            told = [within_question_rank_correlation(self.ask_model(model)) or 0.0]
            broadcast_object_list(told)
            correlation = told[0]
            # Kept in the checkpoints, so that an interrupted start goes on with its own history.
            state.log_history.append({"step": state.global_step, "probe_rank_correlation": correlation})
            logger.info("hindsight: after %d updates, rank correlation %.3f", state.global_step, correlation)
            self.end = end_of(state.log_history, self.settings)
        if state.global_step >= self.end:
            control.should_training_stop = True


def sft_settings(settings: Hindsight) -> SFTSettings:
    """The SFT part of a start; inside a batch the rows keep their order."""
    return SFTSettings(
        max_steps=settings.max_updates + settings.cooldown_updates,
        batch_size=settings.batch_size,
        micro_batch_size=settings.micro_batch_size,
        learning_rate=settings.learning_rate,
        in_order=True,
        save_steps=settings.probe_every,
    )


def end_of(log_history: list[dict], settings: Hindsight) -> int:
    """The update that ends the cool-down, which begins where a probe first heard the dial, or else at `max_updates`."""
    target = settings.target_correlation
    heard = (entry["step"] for entry in log_history if entry.get("probe_rank_correlation", 0) >= target)
    return next(heard, settings.max_updates) + settings.cooldown_updates


def ended_at(checkpoint: str | None, settings: Hindsight) -> int | None:
    """The update of a checkpoint whose training had come to its end; None where there is more to do."""
    if checkpoint is None:
        return None
    state = json.loads((Path(checkpoint) / "trainer_state.json").read_text())
    return state["global_step"] if state["global_step"] >= end_of(state["log_history"], settings) else None


@dataclass(frozen=True)
class Start:
    """What a hindsight start is made of: its settings, and how the run asks, samples and grades."""

    settings: Hindsight
    prompts: Prompts
    sampler: BudgetSampler
    sampling: Sampling
    grading: Grading = Grading()
    engine_of: Callable = lambda model: model
    """What completes prompts with the weights of a model: itself, or the run's vLLM (rlred/evaluation/vllm.py)."""

    def probe(self, tokenizer, questions: list[dict]) -> Probe:
        """Asks the first questions at the budgets of a grid, in the mode that is drawn most often."""
        settings, modes = self.settings, self.sampler.modes
        mode = max((mode for mode in modes if mode != "free"), key=modes.get)
        conditions = budget_conditions(self.prompts, self.sampler.grid(settings.num_probe_budgets), [mode])
        ungraded = Grading(length=self.grading.length, grades=False)
        # At temperature 1 whatever the run's is: a probe compares lengths, and the targets were found so.
        asked = {"sampling": self.sampling.at(temperature=1.0), "grading": ungraded, "description": "hindsight: probe"}
        rows = questions[: settings.num_probe_questions]

        def ask_model(model):
            engine = self.engine_of(model)
            return sweep(engine, tokenizer, rows, conditions, **asked) if PartialState().is_main_process else []

        return Probe(ask_model, settings)

    def traces(self, model, tokenizer, questions: list[dict], output: Path) -> tuple[list[dict], list[dict]]:
        """What there is to learn from, and the table of its lengths, which is written as well."""
        material = Material(
            tokenizer,
            as_prompts(self.prompts),
            questions,
            self.sampler,
            frozenset(stop_ids(model, tokenizer)),
            self.sampling,
            asks_budgets=not self.settings.sources,
        )
        traces, bins = find_traces(self.engine_of(model), material, self.settings, self.grading, output)
        if PartialState().is_main_process:
            write_text(output / "bins.md", described(bins) + "\n")
        return traces, bins


def hindsight_start(model, tokenizer, questions, start: Start, *, training, output: Path) -> dict:
    """Trains the adapter of `model` in place; returns what it took.

    `num_samples`, `num_updates`, `rank_correlation` by update, and what there was to learn from: `num_traces` and their
    `shortest_trace` and `longest_trace`.

    `training` is the run's GRPOConfig: device, precision and memory settings are taken from it. The adapter ends in
    `output/adapter`; a finished start is loaded from there, an interrupted one continues.
    """
    record_path, adapter_path = output / "hindsight.json", output / "adapter"
    if record_path.exists():
        model.load_adapter(adapter_path, adapter_name="default", is_trainable=True)
        return json.loads(record_path.read_text())
    questions, settings, length = list(questions), start.settings, start.grading.length
    traces, bins = start.traces(model, tokenizer, questions, output)
    rows = relabel(traces, tokenizer, start.prompts, start.sampler, settings, length, start.sampling.seed)
    probe = start.probe(tokenizer, questions)
    trainer = SupervisedTrainer(
        rate=probe.rate,
        callbacks=[probe],
        model=model,
        args=sft_settings(settings).config(output, training),
        train_dataset=rows,
        processing_class=tokenizer,
    )
    ended = ended_at(last_checkpoint(output), settings)
    if ended is not None:  # it was killed between its last checkpoint and its record
        trainer.args.max_steps = ended
    trainer.fit(adapter_path)
    probes = [entry for entry in trainer.state.log_history if "probe_rank_correlation" in entry]
    lengths = [length(trace["completion_ids"]) for trace in traces]
    record = {
        "num_samples": settings.num_samples + sum(settings.sources.values()),
        "num_traces": len(traces),
        "shortest_trace": min(lengths),
        "longest_trace": max(lengths),
        "bins": bins,
        "num_updates": trainer.state.global_step,
        "rank_correlation": [[entry["step"], entry["probe_rank_correlation"]] for entry in probes],
    }
    best = max(entry["probe_rank_correlation"] for entry in probes)  # the last update is always probed
    if best < settings.target_correlation:
        logger.warning(
            "hindsight: the rank correlation reached %.3f in %d updates, not %.2f: raise max_updates or learning_rate",
            best,
            trainer.state.global_step,
            settings.target_correlation,
        )
    if trainer.is_world_process_zero():
        write_json(record_path, record)
    trainer.accelerator.wait_for_everyone()
    return record

"""The hindsight start: a model learns to follow the budget from its own work.

GRPO improves a length control that the model faintly has and does not find one that it lacks: where the budget in the
prompt does not move the stop, no group of rollouts holds a budget-dependent difference to learn from. So, before it:

    sample    the model's own completions, asked for any budget; for a model whose own lengths are not those of the
              budgets, traces of every length (rlred/evaluation/trace_sources.py)
    relabel   ask for the length that each one really has: exact N = n; maximum N = n + a little, or as a bound: a
              budget is drawn first, and of the question's traces within it one of the shorter answers (`max_slack`);
              effort e = n / T, T the length that the question's own correct answers have
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from transformers import TrainerCallback

from rlred.data.adapters import continue_adapter
from rlred.data.budgets import BudgetSampler, Wording, hundredths
from rlred.data.models import fingerprint
from rlred.data.prompts import Prompts, as_prompts
from rlred.data.question_table import Rows
from rlred.evaluation.conditions import budget_conditions
from rlred.evaluation.measures import counts, within_question_rank_correlation
from rlred.evaluation.sampling import Grading, Sampling
from rlred.evaluation.shares import gathered
from rlred.evaluation.sweep import stop_ids, sweep
from rlred.evaluation.trace_sources import ANSWER_CUES, Material, described
from rlred.files import write_json, write_text
from rlred.output import last_checkpoint
from rlred.training.callbacks import Heartbeat
from rlred.training.counting import Counting
from rlred.training.earlier_start import asked_for, move_aside
from rlred.training.hindsight_settings import Hindsight
from rlred.training.range_test import LOWEST, find_learning_rate
from rlred.training.relabelling import find_traces, learned_range, relabel
from rlred.training.sft import SFTSettings, SupervisedTrainer

logger = logging.getLogger(__name__)

WARMUP_UPDATES = 10


class Probe(TrainerCallback):
    """Asks a few questions at several budgets every so often; once the model follows them, the cool-down begins."""

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
            outcomes = self.ask_model(model)
            # The main process's own: two engines need not agree, and then one would stop and the other go on.
            told = [within_question_rank_correlation(outcomes) or 0.0, counts(outcomes)]
            broadcast_object_list(told)
            correlation, counted = told
            # Kept in the checkpoints, so that an interrupted start goes on with its own history.
            entry = {"step": state.global_step, "probe_rank_correlation": correlation}
            state.log_history.append(entry | ({"probe_markers": counted} if counted else {}))
            logger.info("hindsight: after %d updates, rank correlation %.3f", state.global_step, correlation)
            if counted:
                logger.info("hindsight: markers %s", json.dumps(counted))
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
    """The update that ends the cool-down, which begins where a probe first reached the target, or at `max_updates`.

    A probe inside a cool-down begins no other one.

    >>> probes = [{"step": 360, "probe_rank_correlation": 0.5}, {"step": 440, "probe_rank_correlation": 0.95}]
    >>> settings = Hindsight(max_updates=400, cooldown_updates=60, target_correlation=0.9)
    >>> end_of(probes, settings), end_of([{"step": 360, "probe_rank_correlation": 0.95}], settings)
    (460, 420)
    """
    target, last = settings.target_correlation, settings.max_updates
    reached = (entry["step"] for entry in log_history if entry.get("probe_rank_correlation", 0) >= target)
    return min(next(reached, last), last) + settings.cooldown_updates


def ended_at(checkpoint: str | None, settings: Hindsight) -> int | None:
    """The update of a checkpoint whose training had come to its end; None where there is more to do."""
    if checkpoint is None:
        return None
    state = json.loads((Path(checkpoint) / "trainer_state.json").read_text())
    return state["global_step"] if state["global_step"] >= end_of(state["log_history"], settings) else None


def digits_hint(tokenizer, sampler: BudgetSampler, wording: Wording) -> str:
    """Advice where the tokenizer writes the smallest and the largest number in different numbers of tokens, or "".

    A tiny model that read 17 as "1 7" and 104 as "1 0 4" followed neither, and both in three digits (docs/results.md).
    """
    efforts = [hundredths(effort) for effort in sampler.effort_grid()]
    for mode in (mode for mode, weight in sampler.modes.items() if weight > 0 and mode != "free"):
        name, low, high = "budget", *sampler.bounds
        if mode == "effort":
            name, low, high = "effort", efforts[0], efforts[-1]
        written = [len(tokenizer(f" {number}", add_special_tokens=False)["input_ids"]) for number in (low, high)]
        if written[0] != written[1] and high <= 999 and f"{{{name}:03}}" not in getattr(wording, mode):
            told = f"this tokenizer writes {low} in {written[0]} tokens and {high} in {written[1]}"
            return f"; {told}: write {{{name}:03}} in wording.{mode} for three digits each"
    return ""


def advice(correlations: Sequence[float], losses: Sequence[float], settings: Hindsight, hint: str = "") -> str | None:
    """What to change where no probe reached the target; None where one did. `hint` is added, unless it fell.

    >>> advice([0.0, 0.02, 0.05, 0.03], [0.9, 0.9, 0.91, 0.9], Hindsight()).partition(": ")[2]
    'the loss did not fall either; raise learning_rate (0.002)'
    """
    best, last = max(correlations), correlations[-1]
    if best >= settings.target_correlation:
        return None
    said = f"the rank correlation reached {best:.3f}, not {settings.target_correlation:.2f}"
    quarter = max(1, len(losses) // 4)
    before, after = (sum(part) / quarter if losses else 0.0 for part in (losses[:quarter], losses[-quarter:]))
    rate, updates = f"learning_rate ({settings.learning_rate:g})", f"max_updates ({settings.max_updates})"
    if losses and not after < 1.05 * before:  # not a number as well
        return f"{said}: the loss rose from {before:.3f} to {after:.3f}; lower {rate}"
    if last < best - 0.2:
        return f"{said} and fell to {last:.3f}: the updates undo it; lower {rate}"
    if best >= 0.2:
        return f"{said}, and more updates may bring it there; raise {updates}{hint}"
    if not losses:
        return (
            f"{said}, and no loss was logged; set logging_steps to fewer than {settings.max_updates} to see one{hint}"
        )
    if after > 0.97 * before:
        return f"{said}: the loss did not fall either; raise {rate}{hint}"
    return (
        f"{said}, though the loss fell from {before:.3f} to {after:.3f}: what is learned is not the length. Raise "
        f"num_samples ({settings.num_samples}) and {updates}, or write true counts into the traces (markers, "
        "docs/methods.md); a base that neither writes counts nor follows 'Write check 23 times.' had no start that "
        f"worked (docs/LOG.md){hint}"
    )


def judged(correlations: Sequence[float], losses: Sequence[float], settings: Hindsight, hint: str = "") -> str | None:
    """The `advice`. Raises `ValueError` where the last probe is too faint to go on from, whatever the best one was."""
    told, last = advice(correlations, losses, settings, hint), correlations[-1]
    if too_faint(last, settings):
        told = (
            told or f"the rank correlation reached {max(correlations):.3f} and fell to {last:.3f}; lower learning_rate"
        )
        raise ValueError(f"hindsight: {told}. The run ends here (required_correlation={settings.required_correlation})")
    return told


def too_faint(correlation: float, settings: Hindsight) -> bool:
    """Whether a last probe ends the run; never where nothing is required, whatever the probe says.

    >>> too_faint(0.1, Hindsight(required_correlation=0.3)), too_faint(-1.0, Hindsight())
    (True, False)
    """
    return settings.required_correlation > 0 and correlation < settings.required_correlation


@dataclass(frozen=True)
class Start:
    """What a hindsight start is made of: its settings, and how the run asks, samples and grades."""

    settings: Hindsight
    prompts: Prompts
    sampler: BudgetSampler
    """That of the run; the start has modes of its own where its settings name some."""
    sampling: Sampling
    grading: Grading = Grading()
    engine_of: Callable = lambda model: model
    """What completes prompts with the weights of a model: itself, or the run's vLLM (rlred/evaluation/vllm.py)."""
    adapter: str | None = None
    """A saved adapter that is trained on; the traces are those of the model that the start is given."""

    def __post_init__(self):
        if self.settings.modes is not None:
            object.__setattr__(self, "sampler", dataclasses.replace(self.sampler, modes=self.settings.modes))

    def within(self, bins: Sequence[dict]) -> "Start":
        """The start of the budgets that there are traces for, where the settings ask to leave out the others."""
        if self.settings.empty_bins != "shrink" or not self.settings.sources:
            return self
        return dataclasses.replace(self, sampler=self.sampler.within(*learned_range(bins)))

    def probe(self, tokenizer, questions: list[dict]) -> Probe:
        """Asks the first questions at the budgets of a grid: exact ones, if the run has any; and at efforts likewise.

        A maximum is a bound, and where a question needs little, length does not follow it.
        """
        settings, modes, count = self.settings, self.sampler.modes, self.settings.num_probe_budgets
        numbered = ["exact"] if modes.get("exact") else ["max"] if modes.get("max") or not modes.get("effort") else []
        modes_of = numbered + (["effort"] if modes.get("effort") else [])
        efforts = self.sampler.effort_grid(count)
        conditions = budget_conditions(self.prompts, self.sampler.grid(count), modes_of, efforts=efforts)
        ungraded = Grading(length=self.grading.length, grades=False)
        asked = {"sampling": self.sampling, "grading": ungraded, "description": "hindsight: probe"}
        rows = questions[: settings.num_probe_questions]

        def ask_model(model):
            with gathered(model):
                engine = self.engine_of(model)
                return sweep(engine, tokenizer, rows, conditions, **asked) if PartialState().is_main_process else []

        return Probe(ask_model, settings)

    def traces(self, model, tokenizer, questions: list[dict], output: Path) -> tuple[list[dict], list[dict]]:
        """What there is to learn from, and the table of its lengths, which is written as well.

        Raises `ValueError` for an empty `answer_cue` where nothing ends the thinking either.
        """
        if self.settings.answer_cue == "" and not as_prompts(self.prompts).end:
            raise ValueError(
                "hindsight_settings.answer_cue is empty, and this model has no end of thinking; say what cues it"
            )
        material = Material(
            tokenizer,
            as_prompts(self.prompts),
            questions,
            self.sampler,
            frozenset(stop_ids(model, tokenizer)),
            self.sampling,
            asks_budgets=not (self.settings.sources or self.sampler.modes.get("effort")),
            answer_cues=ANSWER_CUES if self.settings.answer_cue is None else (self.settings.answer_cue,),
            samples_per_question=self.settings.samples_per_question,
            weights=fingerprint(model),
        )
        with gathered(model):
            traces, bins = find_traces(self.engine_of(model), material, self.settings, self.grading, output)
        if PartialState().is_main_process:
            write_text(output / "bins.md", described(bins) + "\n")
        return traces, bins


def with_rate(settings: Hindsight, model, tokenizer, rows: Dataset, *, training, output: Path) -> Hindsight:
    """The settings with the learning rate that the range test finds."""
    tried = sft_settings(dataclasses.replace(settings, learning_rate=LOWEST))
    rate = find_learning_rate(model, tokenizer, rows, tried, training=training, output=output)
    return dataclasses.replace(settings, learning_rate=rate)


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
    questions = Rows(questions) if isinstance(questions, Dataset) else list(questions)
    settings, length = start.settings, start.grading.length
    move_aside(output, asked_for(settings, start.sampler, start.sampling, start.adapter))
    traces, bins = start.traces(model, tokenizer, questions, output)
    asked, start = start.sampler.bounds, start.within(bins)
    rows = relabel(traces, tokenizer, start.prompts, start.sampler, settings, length, start.sampling.seed)
    if start.adapter:
        continue_adapter(model, start.adapter)
    if settings.learning_rate is None:
        settings = with_rate(settings, model, tokenizer, rows, training=training, output=output)
    probe = start.probe(tokenizer, questions)
    trainer = SupervisedTrainer(
        rate=probe.rate,
        callbacks=[probe, Heartbeat(output.parent, "hindsight start")],
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
    lengths = Counting(settings.markers, tokenizer, as_prompts(start.prompts).end, length).lengths(traces)
    record = {
        "num_samples": settings.num_samples + sum(settings.sources.values()),
        "num_traces": len(traces),
        "shortest_trace": min(lengths),
        "longest_trace": max(lengths),
        "bins": bins,
        **({"budgets": list(start.sampler.bounds)} if start.sampler.bounds != asked else {}),
        "learning_rate": settings.learning_rate,
        "num_updates": trainer.state.global_step,
        "rank_correlation": [[entry["step"], entry["probe_rank_correlation"]] for entry in probes],
    }
    if settings.markers:
        record["markers"] = [[entry["step"], entry["probe_markers"]] for entry in probes]
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    hint = digits_hint(tokenizer, start.sampler, as_prompts(start.prompts).wording)
    told = judged([correlation for _, correlation in record["rank_correlation"]], losses, settings, hint)
    if told:
        logger.warning("hindsight: %s", told)
    if trainer.is_world_process_zero():
        write_json(record_path, record)
    trainer.accelerator.wait_for_everyone()
    return record

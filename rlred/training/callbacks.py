"""What lets a long run be left alone: alarms, a heartbeat, its best adapter, bounded files, an end."""

import json
import logging
import math
import os
import shutil
import time
from collections import deque
from pathlib import Path
from statistics import fmean

import torch
from transformers import TrainerCallback

from rlred.evaluation.shares import hooked
from rlred.files import write_json
from rlred.heartbeat import beat
from rlred.housekeeping import checkpoints_of, completions_of, in_words, keep_within
from rlred.wrapper import asked_wrapper, matches, model_wrapper

logger = logging.getLogger(__name__)

CORRELATION = "adherence/batch_rank_correlation"
NOT_THE_ADAPTER = (
    *("optimizer*", "scheduler*", "rng_state*", "scaler*", "trainer_state.json"),
    *("global_step*", "latest", "zero_to_fp32.py", "pytorch_model_fsdp*"),  # DeepSpeed's and FSDP's own
)


def signs_of_collapse(logs: dict) -> dict[str, str]:
    """The logged figures by which a run has collapsed, each with what it means.

    >>> signs_of_collapse({"entropy": 0.3, "frac_reward_zero_std": 1.0, "completions/clipped_ratio": 0.5})
    {'frac_reward_zero_std': 'all completions of each group earn the same, so there is no gradient'}
    """
    length_std, mean_length = logs.get("adherence/length_std"), logs.get("completions/mean_length")
    signs = {
        "entropy": (
            logs.get("entropy") is not None and logs["entropy"] < 0.01,
            "the policy has stopped exploring (the embedded runs stay above 0.03)",
        ),
        "adherence/length_std": (
            length_std is not None and bool(mean_length) and length_std < 0.02 * mean_length,
            "every completion has the same length, whatever was asked",
        ),
        "frac_reward_zero_std": (
            logs.get("frac_reward_zero_std") == 1.0,
            "all completions of each group earn the same, so there is no gradient",
        ),
        "completions/clipped_ratio": (
            logs.get("completions/clipped_ratio") == 1.0,
            "every completion was cut before it ended; raise max_completion_length, or shorten the base first",
        ),
    }
    return {name: meaning for name, (shown, meaning) in signs.items() if shown}


class CollapseAlarm(TrainerCallback):
    """Warns in the log when a sign of collapse has been there for `patience` logs, and again only after it has gone.

    One log of a small batch can show a sign by chance.
    """

    def __init__(self, patience: int = 3):
        self.patience = patience
        self.shown: dict[str, int] = {}  # how many logs running

    def on_log(self, args, state, control, logs=None, **kwargs):
        signs = signs_of_collapse(logs or {})
        self.shown = {name: self.shown.get(name, 0) + 1 for name in signs}
        for name, meaning in signs.items():
            if self.shown[name] == self.patience:
                logger.warning("collapse at step %d: %s=%.4g: %s", state.global_step, name, logs[name], meaning)


class SkipBadUpdates(TrainerCallback):
    """Leaves out an update whose gradient is not finite: it would make every trained weight nan, and end the run.

    It says so in the log. Raises `ValueError` after `patience` such updates running: then it is not one odd batch.
    """

    def __init__(self, patience: int = 5):
        self.patience, self.running = patience, 0

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        if all(torch.isfinite(gradient).all() for gradient in gradients):
            self.running = 0
            return
        self.running += 1
        logger.warning("update %d: the gradient is not finite; the update is left out", state.global_step + 1)
        if self.running == self.patience:
            raise ValueError(
                f"the gradient was not finite in {self.patience} updates running, the last of them update "
                f"{state.global_step + 1}; lower learning_rate, or set dtype to float32"
            )
        for parameter in model.parameters():
            parameter.grad = None


class StopWhenObeyed(TrainerCallback):
    """Ends the training, with a checkpoint, once the rollouts of the last `patience` logs follow their budgets.

    They do where the rank correlation of budget and length over the rollouts (`adherence/batch_rank_correlation`) is
    `target` or more. It is read from the trainer's own log, which checkpoints keep. Raises `ValueError` for a target
    outside (0, 1].
    """

    def __init__(self, target: float, patience: int = 3):
        if not 0 < target <= 1:
            raise ValueError(f"stop_at_correlation must be above 0 and at most 1, got {target}")
        self.target, self.patience = target, patience

    def on_log(self, args, state, control, **kwargs):
        recent = [entry[CORRELATION] for entry in state.log_history if CORRELATION in entry][-self.patience :]
        if len(recent) == self.patience and min(recent) >= self.target and not control.should_training_stop:
            logger.info("step %d: rank correlation %.3f or more, as asked: done", state.global_step, min(recent))
            control.should_training_stop = control.should_save = True


class CheckWrapper(TrainerCallback):
    """Compares the wrapped model with what was asked for when the training begins, and says what it found.

    Raises `ValueError` where they differ: the processes would not train together as they were told to.
    """

    def __init__(self, trainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        asked, found = asked_wrapper(args), model_wrapper(self.trainer.model_wrapped)
        if not matches(asked, found):
            raise ValueError(f"{asked} was asked for, and the model is wrapped by {found}; docs/scaling.md says more")
        if found == "zero3":
            hooked(self.trainer.model, self.trainer.model_wrapped)
        logger.info("training: %s, processes: %d", found, args.world_size)


class KeepBest(TrainerCallback):
    """Keeps the best checkpoint's adapter in `folder`; the last is where the run ends.

    Best: the mean `reward` of the logs since the save before. `best.json` in the folder says which step and how much.
    """

    def __init__(self, folder: Path):
        self.folder, self.saved = folder, 0

    def on_train_begin(self, args, state, control, **kwargs):
        self.saved = state.global_step  # of a resumed run the step of its checkpoint

    def on_save(self, args, state, control, **kwargs):
        since, self.saved = self.saved, state.global_step
        entries = [entry for entry in state.log_history if entry["step"] > since and entry.get("reward") is not None]
        if not state.is_world_process_zero or not entries:
            return
        record = {"step": state.global_step, "reward": fmean(entry["reward"] for entry in entries)}
        path = self.folder / "best.json"
        if path.exists() and json.loads(path.read_text())["reward"] >= record["reward"]:
            return
        new, old = self.folder.with_name(".best-new"), self.folder.with_name(".best-old")
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        shutil.copytree(checkpoint, new, ignore=shutil.ignore_patterns(*NOT_THE_ADAPTER))
        write_json(new / "best.json", record)
        if self.folder.exists():
            os.rename(self.folder, old)
        os.rename(new, self.folder)
        shutil.rmtree(old, ignore_errors=True)


class Heartbeat(TrainerCallback):
    """Keeps `heartbeat.json` in a run's folder up to date: step, rate, and the figures of the first and the last log.

    The rate is that of the last 20 steps, by a clock that cannot be set. Between logs it is written every five seconds
    at most.
    """

    def __init__(self, folder: Path, stage: str = "training"):
        self.folder, self.stage = folder, stage
        self.ends: deque[float] = deque(maxlen=21)
        self.first: dict = {}
        self.last: dict = {}
        self.written = -math.inf

    def on_train_begin(self, args, state, control, **kwargs):
        self.ends.append(time.monotonic())
        # A resumed run has the log of its checkpoint.
        for entry in (entry for entry in state.log_history if "reward" in entry):
            self.last = numbers_of(entry)
            self.first = self.first or self.last
        self._write(state)

    def on_step_end(self, args, state, control, **kwargs):
        self.ends.append(time.monotonic())
        if self.ends[-1] > self.written + 5:
            self._write(state)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in (logs or {}):
            self.last = numbers_of(logs)
            self.first = self.first or self.last
            self._write(state)

    def on_save(self, args, state, control, **kwargs):
        self._write(state)

    def on_train_end(self, args, state, control, **kwargs):
        self._write(state)

    def _write(self, state) -> None:
        if not state.is_world_process_zero:
            return
        steps = len(self.ends) - 1
        rate = round((self.ends[-1] - self.ends[0]) / steps, 3) if steps else None
        told = {"step": state.global_step, "max_steps": state.max_steps, "seconds_per_step": rate}
        beat(self.folder, stage=self.stage, **told, first=self.first, last=self.last)
        self.written = time.monotonic()


class CheckpointsInOrder(TrainerCallback):
    """Dates earlier checkpoints before the next one where the clock was set back between them.

    Of checkpoints beyond `save_total_limit`, transformers 5.23 removes those with the earliest time of change: after
    such a jump that is the one which it has just written.
    """

    def on_step_end(self, args, state, control, **kwargs):
        if not (control.should_save and state.is_world_process_zero):
            return
        latest = time.time() - 1
        for path in reversed(checkpoints_of(Path(args.output_dir))):
            latest = min(latest, path.stat().st_mtime)
            if path.stat().st_mtime > latest:
                os.utime(path, (latest, latest))
            latest -= 1

    on_epoch_end = on_step_end


def numbers_of(logs: dict) -> dict:
    """The finite figures of a log.

    >>> numbers_of({"loss": 0.5, "reward": float("nan"), "total_flos": None})
    {'loss': 0.5}
    """
    return {name: value for name, value in logs.items() if isinstance(value, int | float) and math.isfinite(value)}


class BoundedFiles(TrainerCallback):
    """Bounds what a run writes.

    Of the tables of completions (`log_completions`) the last `keep_completions` stay, all of them for None. With
    `disk_budget` (bytes of the whole folder) the oldest completions and then the oldest checkpoints go at each save,
    never the last whole one; a folder that is larger all the same is warned of once. Raises `ValueError` for bounds
    below 1.
    """

    def __init__(self, folder: Path, keep_completions: int | None = None, disk_budget: float | None = None):
        for name, value in (("keep_completions", keep_completions), ("disk_budget_gib", disk_budget)):
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, or empty for no bound; got {value}")
        self.folder, self.keep_completions, self.disk_budget = folder, keep_completions, disk_budget
        self.warned = False

    def on_log(self, args, state, control, **kwargs):
        if self.keep_completions and state.is_world_process_zero:
            for path in completions_of(self.folder)[: -self.keep_completions]:
                path.unlink(missing_ok=True)

    def on_save(self, args, state, control, **kwargs):
        if self.disk_budget is None or not state.is_world_process_zero:
            return
        before, after = keep_within(self.folder, int(self.disk_budget))
        if after < before:
            logger.info("disk budget: %s removed at step %d", in_words(before - after), state.global_step)
        if after > self.disk_budget and not self.warned:
            self.warned = True
            logger.warning(
                "disk_budget_gib: the run has written %s, more than %s, and nothing of it can go; raise it, or set "
                "save_only_model",
                in_words(after),
                in_words(self.disk_budget),
            )

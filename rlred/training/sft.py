"""The one loop of supervised fine-tuning: TRL's `SFTTrainer`, resumed, saved whole, and what the methods change in it.

SFTSettings        a run whose length, batch and rate the project sets itself; `config` makes TRL's SFTConfig of them
config_for         a recipe's SFTConfig for one of its several trainings
SupervisedTrainer  `fit` trains from the last whole checkpoint, saves, and returns the trainer's state
fine_tune          both of them, for a run that needs no more

Rows are what TRL's trainer takes: `input_ids` and `completion_mask` where the tokens are known, `prompt` and
`completion` or `text` otherwise.
"""

import copy
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset
from peft import LoraConfig
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Sampler
from transformers import TrainerState, TrainingArguments
from trl import SFTConfig, SFTTrainer

from rlred.output import last_checkpoint
from rlred.publish.run_card import OwnCard
from rlred.training.callbacks import CheckpointsInOrder, CheckWrapper, SkipBadUpdates
from rlred.training.trackers import guard_trackers

# What an SFT that is a stage of a larger run takes from it.
OF_THE_RUN = (
    "activation_checkpointing",
    "bf16",
    "dataloader_pin_memory",
    "ddp_backend",
    "ddp_timeout",
    "deepspeed",
    "disable_tqdm",
    "fp16",
    "fsdp",
    "fsdp_config",
    "logging_steps",
    "report_to",
    "seed",
    "use_cpu",
)


@dataclass(frozen=True)
class SFTSettings:
    """How long, how fast and on how much at once. Raises `ValueError` for a value out of range.

    >>> SFTSettings(max_steps=0, batch_size=8, learning_rate=1e-3)
    Traceback (most recent call last):
    ...
    ValueError: max_steps must be 1 or more, got 0
    """

    max_steps: int
    """Updates."""
    batch_size: int
    """Rows per update, over all processes."""
    learning_rate: float
    """The highest rate of the schedule."""
    micro_batch_size: int | None = None
    """Rows per forward pass on one device (None: all of an update's)."""
    schedule: str = "linear"
    """A scheduler of transformers, by its name."""
    warmup_steps: int = 10
    """Updates in which the rate rises from 0."""
    in_order: bool = False
    """Whether rows are taken in their order; shuffled otherwise."""
    lora_r: int | None = None
    """Rank of a new adapter on all linear layers (None: the model is trained as it comes)."""
    save_steps: int | None = None
    """Updates between two checkpoints (None: there are none, and an interrupted run begins anew)."""
    logging_steps: int = 20
    """Updates between two lines of the log."""
    seed: int = 0
    """Seed of the rows' order and of a new adapter."""

    def __post_init__(self):
        counts = ("max_steps", "batch_size", "micro_batch_size", "lora_r", "save_steps", "logging_steps")
        for name in counts:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")

    def config(self, output: Path | str, run: TrainingArguments | None = None) -> SFTConfig:
        """TRL's settings; those of `OF_THE_RUN` are those of `run`, where the SFT is a stage of one.

        An update is `batch_size` rows, whatever divides them: the micro-batch is the largest up to `micro_batch_size`
        that does. Raises `ValueError` where the processes do not.
        """
        processes = run.world_size if run else PartialState().num_processes
        if self.batch_size % processes:
            raise ValueError(f"batch_size must be a multiple of the {processes} processes, got {self.batch_size}")
        own = self.batch_size // processes
        per_device = next(n for n in range(min(self.micro_batch_size or own, own), 0, -1) if own % n == 0)
        return SFTConfig(
            output_dir=str(output),
            max_steps=self.max_steps,
            per_device_train_batch_size=per_device,
            gradient_accumulation_steps=own // per_device,
            learning_rate=self.learning_rate,
            lr_scheduler_type=self.schedule,
            warmup_steps=self.warmup_steps,
            train_sampling_strategy="sequential" if self.in_order else "random",
            weight_decay=0.0,
            max_length=None,
            completion_only_loss=True,
            save_strategy="no" if self.save_steps is None else "steps",
            save_steps=self.save_steps or 500,
            save_total_limit=1,
            **(_of_run(run, Path(output).name) if run else self._of_this_machine()),
        )

    def _of_this_machine(self) -> dict:
        return {
            "activation_checkpointing": False,
            "bf16": False,
            "dataloader_pin_memory": False,
            "logging_steps": self.logging_steps,
            "report_to": "none",
            "seed": self.seed,
            "use_cpu": not torch.cuda.is_available(),
        }


def _of_run(run: TrainingArguments, stage: str) -> dict:
    return {name: getattr(run, name) for name in OF_THE_RUN} | {
        "run_name": f"{run.run_name}-{stage}" if run.run_name else None
    }


def config_for(training: SFTConfig, output: Path, **changes) -> SFTConfig:
    """A recipe's SFTConfig for one of its trainings: in a folder of its own, with some fields changed."""
    config = copy.copy(training)
    for name, value in {"output_dir": str(output), **changes}.items():
        setattr(config, name, value)
    return config


def check_lengths(rows, longest: int | None) -> None:
    """Raises `ValueError` where TRL would cut the end off rows that have one: their answer, and the end of sequence."""
    if longest is None or "completion_mask" not in (getattr(rows, "column_names", None) or ()):
        return
    lengths = [len(ids) for ids in rows["input_ids"]]
    if over := sum(n > longest for n in lengths):
        raise ValueError(
            f"max_length={longest}: {over} of {len(lengths)} rows are longer and would lose their answer; set it to "
            f"{max(lengths)} or more, or leave those rows out with a smaller max_completion_length"
        )


class SupervisedTrainer(OwnCard, SFTTrainer):
    """TRL's `SFTTrainer`: its arguments, and three more for what a method changes.

    `rate(update)` is the share of the learning rate at an update, in place of a scheduler. `sampler` draws the rows;
    its length is their number. `choose(trainer, batches)` is given all batches of an update on this process, on its
    device, and sets `labels` to -100 where a token is not to be trained on; the loss is then the mean over the labels
    that are left, of all processes. Evaluation is on all tokens. The first weights of a new adapter (`peft_config`)
    depend on the seed alone. Raises `ValueError` where TRL drops rows, whose places the sampler would then miss.
    """

    def __init__(
        self,
        *args,
        rate: Callable[[int], float] | None = None,
        sampler: Sampler | None = None,
        choose: Callable[["SupervisedTrainer", list[dict]], None] | None = None,
        **kwargs,
    ):
        self.rate, self.sampler, self.choose = rate, sampler, choose
        if kwargs.get("peft_config") is not None:
            torch.manual_seed(kwargs["args"].seed)
        check_lengths(kwargs.get("train_dataset"), kwargs["args"].max_length)
        super().__init__(*args, **kwargs)
        self.add_callback(SkipBadUpdates())
        self.add_callback(CheckpointsInOrder())
        guard_trackers(self)
        self.add_callback(CheckWrapper(self))
        if sampler is not None and len(self.train_dataset) != len(sampler):
            raise ValueError(
                f"max_length={self.args.max_length}: {len(sampler)} rows were made and TRL kept "
                f"{len(self.train_dataset)}; raise it, so that the sampler draws from all of them"
            )

    def fit(self, folder: Path | str | None = None) -> TrainerState:
        """Trains, from the last whole checkpoint in the output folder if there is one; returns the trainer's state.

        The model ends in `folder` (default: the output folder), whole or not at all, after the state beside the
        checkpoints: weights that are there say that the training came to its end.
        """
        output = Path(self.args.output_dir)
        checkpoint = last_checkpoint(output)
        ended = self.ended_at(checkpoint)
        if ended is None or self.is_deepspeed_enabled or self.is_fsdp_enabled:
            self.train(resume_from_checkpoint=checkpoint)
        else:  # it was killed before it saved; told to go on from here, transformers trains one update too many
            self._load_from_checkpoint(checkpoint)
            self.state = ended
        self.save_state()
        self.save_whole(Path(folder or output))
        return self.state

    def ended_at(self, checkpoint: str | None) -> TrainerState | None:
        """The state of a checkpoint at which the training had come to its end; None where there is more to do."""
        if checkpoint is None:
            return None
        state = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))
        last = self.args.max_steps if self.args.max_steps > 0 else state.max_steps
        return state if state.global_step >= last else None

    def save_whole(self, folder: Path) -> None:
        """Saves the model in a folder beside, then moves its files here, the weights last."""
        partial = folder / "partial"
        self.save_model(str(partial))
        if self.is_world_process_zero():
            for path in sorted(partial.iterdir(), key=lambda path: path.suffix == ".safetensors"):
                if (folder / path.name).is_dir():
                    shutil.rmtree(folder / path.name)
                os.replace(path, folder / path.name)
            partial.rmdir()
        self.accelerator.wait_for_everyone()

    def create_scheduler(self, num_training_steps, optimizer=None):
        if self.rate is None:
            return super().create_scheduler(num_training_steps, optimizer)
        # A plain function: of any other callable LambdaLR would write the attributes into the checkpoint.
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, lambda update: self.rate(update))
        return self.lr_scheduler

    def _get_train_sampler(self, train_dataset=None):
        return super()._get_train_sampler(train_dataset) if self.sampler is None else self.sampler

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.choose is None or not batches:
            return batches, num_items
        batches = [self._prepare_inputs(batch) for batch in batches]
        self.choose(self, batches)
        return batches, self._get_num_items_in_batch(batches, device)


def fine_tune(model, tokenizer, rows: Dataset, settings: SFTSettings, output: Path | str):
    """Trains `model` on the rows, saves it in `output` and returns what was trained, an adapter with `lora_r`."""
    r = settings.lora_r
    trainer = SupervisedTrainer(
        model=model,
        args=settings.config(output),
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=r and LoraConfig(task_type="CAUSAL_LM", r=r, lora_alpha=2 * r, target_modules="all-linear"),
    )
    trainer.fit()
    return trainer.model

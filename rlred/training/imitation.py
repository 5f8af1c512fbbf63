"""A start by imitation: the model learns the forms in which a policy can answer, before GRPO.

GRPO compares what is sampled. A model that asks for more every time, or never, has nothing to compare with, and its
policy does not learn. Here it is trained on the questions' own answers, given in the choices of a mix in turn: so each
becomes about as likely as it is frequent in the mix, whatever the question. When to choose which is left to GRPO.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from transformers import TrainerState, TrainingArguments

from rlred.data.golds import one_of
from rlred.training.sft import SFTSettings, SupervisedTrainer, config_for
from rlred.vision.budget_policy import VisualBudgetPolicy, VisualRollout


def check_mix(policy: VisualBudgetPolicy, mix: Sequence[str]) -> None:
    """Raises `ValueError` for a mix that is empty or has other choices than the policy's."""
    unknown = sorted(set(mix) - set(policy.choices))
    if unknown or not mix:
        raise ValueError(f"start_mix must name some of {', '.join(policy.choices)}, got {list(mix)!r}")


def imitate(
    model,
    policy: VisualBudgetPolicy,
    rows: list[dict],
    mix: Sequence[str],
    settings: SFTSettings,
    output: Path,
    run: TrainingArguments | None = None,
) -> TrainerState:
    """Trains a model's trainable weights and saves them in `output`; returns the trainer's state.

    Rows are taken in their order, from the first again after the last; the choices of `mix` take turns. The loss is the
    mean negative log-probability, in nats, of what the policy says: budget token and answer, not the placeholders.
    `run` is the GRPOConfig of which this is a stage.
    """
    config = config_for(
        settings.config(output, run),
        output,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},  # pictures are read when their turn comes
    )
    turns = [{"turn": turn} for turn in range(settings.max_steps * settings.batch_size)]
    trainer = SupervisedTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(turns),
        processing_class=policy.tokenizer,
        data_collator=Written(policy, rows, tuple(mix)),
    )
    return trainer.fit()


@dataclass(frozen=True)
class Written:
    """A collator of turns: each is a row, answered as it should be with the choice whose turn it is."""

    policy: VisualBudgetPolicy
    rows: list[dict]
    mix: tuple[str, ...]

    def __call__(self, turns: list[dict]) -> dict[str, torch.Tensor]:
        """What the model takes, with `labels` of the tokens that the policy says."""
        numbers = [turn["turn"] for turn in turns]
        some = [self.rows[number % len(self.rows)] for number in numbers]
        prompts = [[{"role": "user", "content": row["question"]}] for row in some]
        images, answers = [row["image"] for row in some], [one_of(row["solution"]) for row in some]
        choices = [self.mix[number % len(self.mix)] for number in numbers]
        return batch_of(self.policy, self.policy.written(prompts, images, choices, answers), images)


def batch_of(
    policy: VisualBudgetPolicy, rollouts: Sequence[VisualRollout], images: Sequence
) -> dict[str, torch.Tensor]:
    """Rollouts as a batch, padded on the left: ids (B, T), `labels` -100 but for what the policy said, and pictures."""
    rows = [rollout.prompt_ids + rollout.completion_ids for rollout in rollouts]
    batch = policy.tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt")
    labels = torch.full_like(batch["input_ids"], -100)
    for row, rollout in enumerate(rollouts):
        own, said = slice(-len(rollout.mask), None), torch.tensor(rollout.mask, dtype=torch.bool)
        labels[row, own] = batch["input_ids"][row, own].where(said, labels[row, own])
    return {**batch, **policy.vision(images), "labels": labels}

"""A start by imitation: the model learns the forms in which a policy can answer, before GRPO.

GRPO compares what is sampled. A model that asks for more every time, or never, has nothing to compare with, and its
policy does not learn. Here it is trained on the questions' own answers, given in the choices of a mix in turn: so each
becomes about as likely as it is frequent in the mix, whatever the question. When to choose which is left to GRPO.

With `cheapest` in the mix a question has a choice of its own: of those that answer it correctly the one with the fewest
visual tokens. What one picture needs and another does not is then said by a label, where a reward says it too faintly;
and the questions of each choice are as many, or the most frequent one would be learned for all (docs/LOG.md).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from transformers import TrainerState, TrainingArguments

from rlred.data.golds import one_of
from rlred.evaluation.sampling import Sampling
from rlred.evaluation.visual import sweep_pictures
from rlred.training.sft import SFTSettings, SupervisedTrainer, config_for
from rlred.vision.budget_policy import VisualBudgetPolicy, VisualRollout

logger = logging.getLogger(__name__)

CHEAPEST = "cheapest"  # of a mix: each question's own choice
FEW = 16  # rows of a choice that are said to be few


def check_mix(policy: VisualBudgetPolicy, mix: Sequence[str]) -> None:
    """Raises `ValueError` for a mix that is empty or has other choices than the policy's."""
    unknown = sorted(set(mix) - {*policy.choices, CHEAPEST})
    if unknown or not mix:
        raise ValueError(f"start_mix must name some of {', '.join((*policy.choices, CHEAPEST))}, got {list(mix)!r}")


def with_cheapest(
    policy: VisualBudgetPolicy, model, rows: Sequence[dict], sampling: Sampling, correctness, folder: Path | None = None
) -> list[dict]:
    """Rows that some choice answers correctly, greedily, each with the `cheapest` choice that does.

    Every row is answered once by every choice. The choices take turns in what is returned, and the rows of one that is
    the cheapest for few stand there several times. An answer is correct at a grade of 1. With `folder`, the answers are
    kept there and not made again. Raises `ValueError` where no row is answered.
    """
    best: list[tuple[float, str] | None] = [None] * len(rows)
    for number, choice in enumerate(policy.choices):
        path = folder and folder / f"cheapest-{number}.completions.jsonl"
        greedy = sampling.at(temperature=0.0)
        outcomes = sweep_pictures(policy, model, rows, greedy, choice=choice, correctness=correctness, path=path)
        for at, outcome in enumerate(outcomes):
            found = (outcome["visual_tokens"], choice)
            if outcome["correct"] == 1.0 and (best[at] is None or found < best[at]):
                best[at] = found
    of_choice: dict[str, list[dict]] = {}
    for row, found in zip(rows, best, strict=True):
        if found:
            of_choice.setdefault(found[1], []).append({**row, CHEAPEST: found[1]})
    if not of_choice:
        raise ValueError(
            f"start_mix names {CHEAPEST!r}, and no choice answers any of {len(rows)} rows correctly; name choices "
            "instead, or take easier rows"
        )
    told = ", ".join(f"{choice} {len(of_choice.get(choice, ()))}" for choice in policy.choices)
    logger.info("imitation: the cheapest choice that answers, of %d rows: %s", len(rows), told)
    turns = max(map(len, of_choice.values()))
    for choice, some in of_choice.items():
        if len(some) < FEW:
            said = "imitation: %s is the cheapest for %d rows alone, which the start repeats up to %d times"
            logger.warning(said, choice, len(some), -(-turns // len(some)))
    return [some[turn % len(some)] for turn in range(turns) for some in of_choice.values()]


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
        # With `cheapest` a row serves every turn of the mix, or a turn would see the rows of some choices alone.
        each = len(self.mix) if CHEAPEST in self.mix else 1
        some = [self.rows[number // each % len(self.rows)] for number in numbers]
        prompts = [[{"role": "user", "content": row["question"]}] for row in some]
        images, answers = [row["image"] for row in some], [one_of(row["solution"]) for row in some]
        turns_of = (self.mix[number % len(self.mix)] for number in numbers)
        choices = [row[CHEAPEST] if turn == CHEAPEST else turn for turn, row in zip(turns_of, some, strict=True)]
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

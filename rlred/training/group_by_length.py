"""Micro-batches of rows of like length: a batch that asks for 48 and for 320 tokens is otherwise mostly padding.

TRL pads every row of a rollout batch to the longest one, shuffles them, and trains on micro-batches of that width.
Under length control the lengths of a batch differ by design. The rows of one update can be trained on in any order; so
they are sorted by length, and each micro-batch is cut to its own longest row. For a model of relative positions, as all
with RoPE, the update is the same up to rounding: TRL's losses are sums over the rows or tokens of an update. What is a
mean over a micro-batch, or chosen within it, would be another one, and is refused. `entropy`, `kl` and `clip_ratio` in
the log are such means, and short rows weigh more in them.
"""

import math
from dataclasses import dataclass

import torch
from transformers import ProcessorMixin

from rlred.training.trainer import Part


@dataclass(frozen=True)
class GroupByLength(Part):
    """Sorts the rows of an update by length, and cuts each micro-batch to its longest row.

    Logged as `padding/before` and `padding/after`: the share of the tokens of a forward pass that are padding. Raises
    `ValueError` beside `loss_type: bnpo`, `top_entropy_quantile`, `pad_to_multiple_of`, an entropy bonus and the
    auxiliary loss of a mixture of experts, and for a model that sees pictures.
    """

    def check(self, training, parts):
        if training.loss_type == "bnpo":
            raise ValueError(
                "group_by_length: the loss 'bnpo' is a mean over a micro-batch, and would be another one; leave it "
                "out, or take loss_type dapo"
            )
        if training.top_entropy_quantile < 1:
            raise ValueError(
                f"group_by_length: top_entropy_quantile={training.top_entropy_quantile} chooses within a micro-batch, "
                "and would choose others; leave it out, or take parts.selection"
            )
        if training.pad_to_multiple_of:
            raise ValueError(
                f"group_by_length: pad_to_multiple_of={training.pad_to_multiple_of} asks for fixed widths; leave it out"
            )

    def check_trainer(self, trainer):
        if isinstance(trainer.processing_class, ProcessorMixin):
            raise ValueError("group_by_length: rows with pictures are not sorted; leave it out where a model sees them")
        if trainer._entropy_bonus_enabled:
            raise ValueError(
                "group_by_length: the entropy bonus is a mean over a micro-batch, and would be another one; leave it "
                "out beside entropy_coef"
            )
        if trainer.aux_loss_enabled:
            raise ValueError(
                "group_by_length: the auxiliary loss of the experts is one of a micro-batch, and would be another one; "
                "leave it out, or set router_aux_loss_coef to 0"
            )

    def micro_batches(self, trainer, batches: list[dict]) -> list[dict]:
        """The micro-batches of one generation, those of each update among themselves."""
        number = math.gcd(trainer.args.gradient_accumulation_steps, len(batches))
        made = [one for at in range(0, len(batches), number) for one in grouped(batches[at : at + number])]
        for name, told in (("before", batches), ("after", made)):
            own = torch.tensor([padding(told)], device=trainer.accelerator.device)
            trainer._metrics["train"][f"padding/{name}"].append(trainer.accelerator.gather(own).mean().item())
        return made


def grouped(batches: list[dict]) -> list[dict]:
    """The rows of these micro-batches, the shortest first, in as many of equal size, each cut to its longest row.

    >>> ids = torch.tensor([[7, 7, 7], [7, 0, 0], [7, 7, 0], [7, 0, 0]])
    >>> whole = {"prompt_mask": torch.ones(4, 1), "completion_ids": ids, "completion_mask": (ids > 0).long()}
    >>> halves = [{name: rows[half] for name, rows in whole.items()} for half in (slice(2), slice(2, 4))]
    >>> [one["completion_ids"].tolist() for one in grouped(halves)]
    [[[7], [7]], [[7, 7, 0], [7, 7, 7]]]
    """
    lengths = torch.cat([real(batch).sum(1) for batch in batches])
    orders = torch.argsort(lengths, stable=True).split(len(lengths) // len(batches))
    whole = {name: concatenated([batch[name] for batch in batches]) for name in batches[0]}
    return [trimmed({name: taken(rows, order) for name, rows in whole.items()}) for order in orders]


def real(batch: dict) -> torch.Tensor:
    """Which tokens (B, P + T) of a micro-batch are no padding."""
    return torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1).bool()


def padding(batches: list[dict]) -> float:
    """The share of the tokens of these micro-batches that are padding."""
    masks = [real(batch) for batch in batches]
    return 1 - sum(mask.sum().item() for mask in masks) / sum(mask.numel() for mask in masks)


def per_row(rows) -> bool:
    """Whether a value has one entry for each row; a tensor without dimensions is of the whole generation."""
    return rows is not None and (not torch.is_tensor(rows) or rows.ndim > 0)


def concatenated(parts: list):
    """The values of several micro-batches as one."""
    if not per_row(parts[0]):
        return parts[0]
    return torch.cat(parts) if torch.is_tensor(parts[0]) else [row for part in parts for row in part]


def taken(rows, order: torch.Tensor):
    """Some rows of a value, in this order."""
    if not per_row(rows):
        return rows
    return rows[order] if torch.is_tensor(rows) else [rows[at] for at in order.tolist()]


def trimmed(batch: dict) -> dict:
    """A micro-batch without the columns that are padding in every row: the prompts' first ones, the others' last."""
    width, made = batch["completion_mask"].size(1), {}
    start = batch["prompt_mask"].size(1) - max(1, batch["prompt_mask"].sum(1).max().item())
    stop = max(1, batch["completion_mask"].sum(1).max().item())
    for name, rows in batch.items():
        if name in ("prompt_ids", "prompt_mask"):
            rows = rows[:, start:]
        elif torch.is_tensor(rows) and rows.ndim == 2 and rows.size(1) == width:
            rows = rows[:, :stop]
        made[name] = rows
    return made

"""Policy gradients on the tokens that matter: forking tokens, and the controls that say whether they do.

"Beyond the 80/20 rule" (2506.01939) trains on the fifth of the tokens whose entropy is highest. Three things go by this
name, and differ: which tokens are ranked together, when, and what the loss is divided by. Here:

    which        all completion tokens of a rollout batch, of every process and micro-batch, as the paper writes it
    when         once, with the policy that sampled them; ties are broken by position, so the share is exact
    divided by   `all` tokens (the paper's formula) or the `selected` ones (its released code: 1 / fraction as large)

The head then runs on the selected positions only (rlred/training/masked_head.py), unless the loss reads the others too.
Measured: see docs/selection.md.

TRL's own `top_entropy_quantile` ranks each micro-batch by itself, with the policy of that moment, and keeps all ties.
"""

import functools
import importlib
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from rlred.data.prompts import end_ids
from rlred.names import HEADS, refuse
from rlred.rewards.length import find_end
from rlred.training.trainer import ComposedGRPOTrainer, Part, Rollouts

logger = logging.getLogger(__name__)

KEEPS = ("top", "bottom", "random")
Selector = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""`(entropies, log_probs, mask) -> mask`, each (completions, tokens), of one process's rollouts."""


@dataclass(frozen=True)
class TokenSelection(Part):
    """Which completion tokens carry the policy gradient; a KL term has all of them.

    Logs `selection/selected_fraction`, `selection/threshold` (the lowest selected entropy; of `bottom` the highest),
    `selection/gradient_scale` (what the loss of a selected token is multiplied by), `selection/in_thinking` (share of
    the selected tokens before the end of thinking), and each completion's most frequent ones in the completions table.

    While the head runs on selected positions, TRL's metrics `entropy` and `clip_ratio/*` take the other tokens as they
    were when the rollout was scored. TRL's entropy bonus is over all tokens. Raises `ValueError` for a value out of
    range, and beside TRL's own `top_entropy_quantile`.

    >>> TokenSelection(keep="bottom", fraction=0.8).keep
    'bottom'
    """

    keep: str | Selector = "top"
    """`top` (highest entropies), `bottom`, `random`, or a function of one's own, itself or as `module:function`."""
    fraction: float = 0.2
    """Share of the tokens that is selected; not asked of a function of one's own."""
    divide_by: str = "all"
    """`all` tokens or the `selected` ones."""
    end_of_thinking: str | None = None
    """The text that ends the thinking, for `selection/in_thinking`; None: the run's."""
    head: str = "selected"
    """Positions that the language-model head scores in the loss: the `selected` ones, or `all`, with one result."""

    def __post_init__(self):
        if self.selector() is None and self.keep not in KEEPS:
            raise ValueError(
                f"selection.keep must be one of {', '.join(KEEPS)}, or a function as module:function; got {self.keep!r}"
            )
        if not 0 < self.fraction <= 1:
            raise ValueError(f"selection.fraction must be above 0 and at most 1, got {self.fraction!r}")
        if self.divide_by not in ("all", "selected"):
            raise ValueError(f"selection.divide_by must be 'all' or 'selected', got {self.divide_by!r}")
        refuse([self.head], HEADS, "selection.head: ")
        if self.head not in ("selected", "all"):
            raise ValueError(f"selection.head must be 'selected' or 'all', got {self.head!r}")

    def selector(self) -> Selector | None:
        """The function of one's own, where `keep` is one or names one."""
        if not isinstance(self.keep, str):
            return self.keep if callable(self.keep) else None
        module, colon, name = self.keep.partition(":")
        if not colon:
            return None
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"selection.keep={self.keep!r}: {error}; its folder must be in PYTHONPATH") from None

    def bind(self, end_of_thinking: str | None) -> "TokenSelection":
        return self if self.end_of_thinking is not None else replace(self, end_of_thinking=end_of_thinking)

    def check(self, training, parts):
        if training.top_entropy_quantile < 1.0:
            raise ValueError(
                f"top_entropy_quantile={training.top_entropy_quantile}: TRL's own masking; leave it at 1.0 beside "
                "selection"
            )

    def check_trainer(self, trainer: ComposedGRPOTrainer) -> None:
        readers = readers_of_all_tokens(trainer)
        if readers and self.head == "selected":
            logger.warning(
                "selection.head: with this %s the loss reads all tokens, so the head runs on all", readers[0]
            )

    def token_weights(self, rollouts: Rollouts) -> torch.Tensor:
        trainer, mask = rollouts.trainer, rollouts.mask
        log_probs, entropies = rollouts.scores
        selected = select(
            self,
            entropies,
            log_probs,
            mask,
            gather=functools.partial(gather_uneven, trainer.accelerator),
            rank=trainer.accelerator.process_index,
            seed=trainer.args.seed + micro_step(trainer),
        )
        counts = trainer.accelerator.gather(torch.stack([selected.sum(), mask.sum()]).unsqueeze(0)).sum(0).float()
        scale = 1.0 if self.divide_by == "all" else (counts[1] / counts[0].clamp(min=1)).item()
        if self.head == "selected" and not readers_of_all_tokens(trainer):
            rollouts.output |= {"selected": selected, "sampled_log_probs": log_probs, "sampled_entropies": entropies}
        rollouts.log("selection/selected_fraction", (counts[0] / counts[1].clamp(min=1)).item())
        rollouts.log("selection/gradient_scale", scale)
        log_selection(rollouts, self, entropies, selected)
        return selected * scale


def micro_step(trainer: ComposedGRPOTrainer) -> int:
    """How many micro-batches the run has trained on; TRL's own count begins at 0 again when a run is resumed."""
    steps = trainer.args.gradient_accumulation_steps
    return trainer.state.global_step * steps + trainer._step % steps


def ranked(scores: torch.Tensor, fraction: float) -> torch.Tensor:
    """A mask of the round(fraction * n) highest of n scores; of equal ones the first.

    >>> ranked(torch.tensor([0.5, 0.1, 0.5, 0.5]), 0.5).tolist()
    [True, False, True, False]
    """
    selected = torch.zeros_like(scores, dtype=torch.bool)
    selected[torch.sort(scores, descending=True, stable=True).indices[: round(fraction * scores.numel())]] = True
    return selected


def select(
    selection: TokenSelection, entropies, log_probs, mask, *, gather=lambda x: [x], rank: int = 0, seed: int = 0
) -> torch.Tensor:
    """The mask (completions, tokens) of the tokens that `selection` keeps, among those of all processes.

    `gather` gives the 1-D tensors of every process, in order, of which this one's is number `rank`; `seed` is the same
    on all of them.

    >>> entropies, mask = torch.tensor([[0.1, 0.9, 0.0], [0.4, 0.2, 0.0]]), torch.tensor([[1, 1, 0], [1, 1, 0]])
    >>> select(TokenSelection(fraction=0.5), entropies, entropies, mask).tolist()
    [[False, True, False], [True, False, False]]
    """
    mask = mask.bool()
    selector = selection.selector()
    if selector is not None:
        selected = selector(entropies, log_probs, mask)
        if selected.shape != mask.shape:
            raise ValueError(
                f"selection.keep returned a mask of shape {tuple(selected.shape)}; it must be {tuple(mask.shape)}"
            )
        return selected.bool() & mask
    parts = gather(entropies[mask].float())
    scores = torch.cat(parts)
    if selection.keep == "bottom":
        scores = -scores
    if selection.keep == "random":
        scores = torch.rand(scores.numel(), generator=torch.Generator().manual_seed(seed)).to(scores.device)
    selected = ranked(scores, selection.fraction)
    start = sum(part.numel() for part in parts[:rank])
    return torch.zeros_like(mask).masked_scatter(mask, selected[start : start + parts[rank].numel()])


def gather_uneven(accelerator: Accelerator, values: torch.Tensor) -> list[torch.Tensor]:
    """The 1-D tensors of every process, which differ in length."""
    sizes = accelerator.gather(torch.tensor([values.numel()], device=values.device)).tolist()
    padded = accelerator.gather(accelerator.pad_across_processes(values, dim=0)).view(len(sizes), -1)
    return [row[:size] for row, size in zip(padded, sizes, strict=True)]


def readers_of_all_tokens(trainer: ComposedGRPOTrainer) -> list[str]:
    """The settings by which the loss reads tokens that are not selected: the head must run on all of them then."""
    readers = {
        "beta": trainer.beta != 0,
        "importance_sampling_level": trainer.importance_sampling_level != "token",
        "off_policy_mask_threshold": trainer.off_policy_mask_threshold is not None,
        "loss_type": trainer.loss_type == "vespo",
        "entropy_coef": trainer._entropy_bonus_enabled,
    }
    return [name for name, reads in readers.items() if reads]


def log_selection(
    rollouts: Rollouts, selection: TokenSelection, entropies: torch.Tensor, selected: torch.Tensor
) -> None:
    """Logs the threshold, the share of the selected tokens that lies in the thinking, and the most frequent ones."""
    trainer, completion_ids = rollouts.trainer, rollouts.output["completion_ids"]
    metrics = trainer._metrics["train" if trainer.model.training else "eval"]
    sign = -1 if selection.keep == "bottom" else 1
    own = (sign * entropies[selected]).min() if selected.any() else torch.tensor(float("inf"), device=entropies.device)
    metrics["selection/threshold"].append(sign * trainer.accelerator.gather(own).min().item())
    if ends := end_ids(trainer._tokenizer, selection.end_of_thinking):
        thinking = torch.zeros_like(selected)
        for row, ids in zip(thinking, completion_ids.tolist(), strict=True):
            border = find_end(ids, ends)
            row[: len(ids) if border is None else border[0]] = True
        counts = torch.stack([(selected & thinking).sum(), selected.sum()]).unsqueeze(0)
        inside, total = trainer.accelerator.gather(counts).sum(0).tolist()
        metrics["selection/in_thinking"].append(inside / max(total, 1))
    if trainer.log_completions:
        frequent = [
            ", ".join(
                repr(trainer._tokenizer.decode([token])) for token, _ in Counter(ids[row].tolist()).most_common(5)
            )
            for ids, row in zip(completion_ids, selected, strict=True)
        ]
        trainer._logs["extra"]["forking_tokens"].extend(gather_object(frequent))

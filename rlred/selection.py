"""Policy gradients on the tokens that matter: forking tokens, and the controls that say whether they do.

"Beyond the 80/20 rule" (2506.01939) trains on the fifth of the tokens whose entropy is highest. Three things go by this
name, and differ: which tokens are ranked together, when, and what the loss is divided by. Here:

    which        all completion tokens of a rollout batch, of every process and micro-batch, as the paper writes it
    when         once, with the policy that sampled them; ties are broken by position, so the share is exact
    divided by   `all` tokens (the paper's formula) or the `selected` ones (its released code: 1 / fraction as large)

The head then runs on the kept positions only (rlred/kept.py), unless the loss reads the others too. Measured: see
docs/selection.md.

TRL's own `top_entropy_quantile` ranks each micro-batch by itself, with the policy of that moment, and keeps all ties.
"""

import functools
import importlib
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from peft import PeftModel

from rewards.length import find_end
from rlred.kept import score_kept
from rlred.prompts import end_ids
from rlred.trainer import BudgetGRPOTrainer

logger = logging.getLogger(__name__)

KEEPS = ("top", "bottom", "random")
Selector = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""`(entropies, log_probs, mask) -> mask`, each (completions, tokens), of one process's rollouts."""


@dataclass(frozen=True)
class TokenSelection:
    """Which completion tokens carry the policy gradient. Raises `ValueError` for a value out of range.

    >>> TokenSelection(keep="bottom", fraction=0.8).keep
    'bottom'
    """

    keep: str | Selector = "top"
    """`top` (highest entropies), `bottom`, `random`, or a function of one's own, itself or as `module:function`."""
    fraction: float = 0.2
    """Share of the tokens that is kept; not asked of a function of one's own."""
    divide_by: str = "all"
    """`all` tokens or the `selected` ones."""
    head: str = "kept"
    """Positions that the language-model head scores in the loss: the `kept` ones, or `all`. The result is the same."""

    def __post_init__(self):
        if self.selector() is None and self.keep not in KEEPS:
            raise ValueError(
                f"selection.keep must be one of {', '.join(KEEPS)}, or a function as module:function; got {self.keep!r}"
            )
        if not 0 < self.fraction <= 1:
            raise ValueError(f"selection.fraction must be above 0 and at most 1, got {self.fraction!r}")
        if self.divide_by not in ("all", "selected"):
            raise ValueError(f"selection.divide_by must be 'all' or 'selected', got {self.divide_by!r}")
        if self.head not in ("kept", "all"):
            raise ValueError(f"selection.head must be 'kept' or 'all', got {self.head!r}")

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


def ranked(scores: torch.Tensor, fraction: float) -> torch.Tensor:
    """A mask of the round(fraction * n) highest of n scores; of equal ones the first.

    >>> ranked(torch.tensor([0.5, 0.1, 0.5, 0.5]), 0.5).tolist()
    [True, False, True, False]
    """
    kept = torch.zeros_like(scores, dtype=torch.bool)
    kept[torch.sort(scores, descending=True, stable=True).indices[: round(fraction * scores.numel())]] = True
    return kept


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
        kept = selector(entropies, log_probs, mask)
        if kept.shape != mask.shape:
            raise ValueError(
                f"selection.keep returned a mask of shape {tuple(kept.shape)}; it must be {tuple(mask.shape)}"
            )
        return kept.bool() & mask
    parts = gather(entropies[mask].float())
    scores = torch.cat(parts)
    if selection.keep == "bottom":
        scores = -scores
    if selection.keep == "random":
        scores = torch.rand(scores.numel(), generator=torch.Generator().manual_seed(seed)).to(scores.device)
    kept = ranked(scores, selection.fraction)
    start = sum(part.numel() for part in parts[:rank])
    return torch.zeros_like(mask).masked_scatter(mask, kept[start : start + parts[rank].numel()])


def gather_uneven(accelerator: Accelerator, values: torch.Tensor) -> list[torch.Tensor]:
    """The 1-D tensors of every process, which differ in length."""
    sizes = accelerator.gather(torch.tensor([values.numel()], device=values.device)).tolist()
    padded = accelerator.gather(accelerator.pad_across_processes(values, dim=0)).view(len(sizes), -1)
    return [row[:size] for row, size in zip(padded, sizes, strict=True)]


class SelectedTokensGRPOTrainer(BudgetGRPOTrainer):
    """`BudgetGRPOTrainer` whose policy gradient comes from selected tokens only; its KL term from all of them.

    Logs `selection/kept_fraction`, `selection/threshold` (the lowest kept entropy; of `bottom` the highest),
    `selection/gradient_scale` (what the loss of a kept token is multiplied by), `selection/in_thinking` (share of the
    kept tokens before the end of thinking), and each completion's most frequent kept tokens in the completions table.

    While the head runs on kept positions, TRL's metrics `entropy` and `clip_ratio/*` take the other tokens as they were
    when the rollout was scored. Raises `ValueError` beside TRL's own `top_entropy_quantile`.
    """

    _tag_names = ["trl", "grpo", "rlred"]

    def __init__(self, *args, selection: TokenSelection, **kwargs):
        super().__init__(*args, **kwargs)
        if self.top_entropy_quantile < 1.0:
            raise ValueError(
                f"top_entropy_quantile={self.top_entropy_quantile}: TRL's own masking; leave it at 1.0 beside selection"
            )
        self.selection = selection
        self._ends = end_ids(self._tokenizer, self.end_of_thinking)
        self.top_entropy_quantile = 0.0  # below 1, TRL asks get_high_entropy_mask, which is answered below
        self._weights: torch.Tensor | None = None
        self._scores: list | None = None  # of the policy, while a rollout is made
        readers = {
            "beta": self.beta != 0,
            "importance_sampling_level": self.importance_sampling_level != "token",
            "off_policy_mask_threshold": self.off_policy_mask_threshold is not None,
            "loss_type": self.loss_type == "vespo",
        }
        needed = [name for name, reads in readers.items() if reads]
        if needed and selection.head == "kept":
            logger.warning("selection.head: with this %s the loss reads all tokens, so the head runs on all", needed[0])
        self._head_on_kept = selection.head == "kept" and not needed

    def _generate_and_score_completions(self, inputs):
        self._scores = []
        output = super()._generate_and_score_completions(inputs)
        scores, self._scores = self._scores, None
        mask = output["completion_mask"] * output.get("tool_mask", 1)
        # TRL has scored the rollout itself where it needs the old log-probabilities, as with vLLM.
        entropies, log_probs = scores[0] if "old_per_token_logps" in output else self._score(output)
        kept = select(
            self.selection,
            entropies,
            log_probs,
            mask,
            gather=functools.partial(gather_uneven, self.accelerator),
            rank=self.accelerator.process_index,
            seed=self.args.seed + self._step,
        )
        counts = self.accelerator.gather(torch.stack([kept.sum(), mask.sum()]).unsqueeze(0)).sum(0).float()
        scale = 1.0 if self.selection.divide_by == "all" else (counts[1] / counts[0].clamp(min=1)).item()
        output["token_weights"] = kept * scale
        if self._head_on_kept:
            output["sampled_log_probs"], output["sampled_entropies"] = log_probs, entropies
        self._log_selection(
            output["completion_ids"], entropies, kept, (counts[0] / counts[1].clamp(min=1)).item(), scale
        )
        return output

    @torch.no_grad()
    def _score(self, output) -> tuple[torch.Tensor, torch.Tensor]:
        """Entropies and log-probabilities (completions, tokens) under the policy that sampled them."""
        images = ("pixel_values", "image_grid_thw", "num_images", "pixel_attention_mask", "spatial_shapes", "num_tiles")
        images += ("image_sizes", "token_type_ids", "mm_token_type_ids", "image_position_ids")
        log_probs, entropies, _ = self._get_per_token_logps_and_entropies(
            self.model,
            torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1),
            torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1),
            output["completion_ids"].size(1),
            batch_size=self.args.per_device_train_batch_size,
            compute_entropy=True,
            **{name: output[name] for name in images if name in output},
        )
        return entropies, log_probs

    def _get_per_token_logps_and_entropies(self, model, *args, **kwargs):
        if self._scores is None or model is not self.model:
            return super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        found = super()._get_per_token_logps_and_entropies(model, *args, **{**kwargs, "compute_entropy": True})
        self._scores.append((found[1], found[0]))
        return found

    def _log_selection(self, completion_ids, entropies, kept, fraction: float, scale: float) -> None:
        metrics = self._metrics["train" if self.model.training else "eval"]
        sign = -1 if self.selection.keep == "bottom" else 1
        own = (sign * entropies[kept]).min() if kept.any() else torch.tensor(float("inf"), device=entropies.device)
        metrics["selection/kept_fraction"].append(fraction)
        metrics["selection/threshold"].append(sign * self.accelerator.gather(own).min().item())
        metrics["selection/gradient_scale"].append(scale)
        if self._ends:
            thinking = torch.zeros_like(kept)
            for row, ids in zip(thinking, completion_ids.tolist(), strict=True):
                border = find_end(ids, self._ends)
                row[: len(ids) if border is None else border[0]] = True
            counts = torch.stack([(kept & thinking).sum(), kept.sum()]).unsqueeze(0)
            inside, total = self.accelerator.gather(counts).sum(0).tolist()
            metrics["selection/in_thinking"].append(inside / max(total, 1))
        if self.log_completions:
            frequent = [
                ", ".join(
                    repr(self._tokenizer.decode([token])) for token, _ in Counter(ids[row].tolist()).most_common(5)
                )
                for ids, row in zip(completion_ids, kept, strict=True)
            ]
            self._logs["extra"]["forking_tokens"].extend(gather_object(frequent))

    def get_high_entropy_mask(self, entropies, mask, threshold):
        return self._weights

    def _compute_loss(self, model, inputs):
        self._weights = inputs["token_weights"]
        if self._head_on_kept:
            whole = self.accelerator.unwrap_model(model)
            backbone = (whole.get_base_model() if isinstance(whole, PeftModel) else whole).base_model
            sampled = inputs["sampled_log_probs"], inputs["sampled_entropies"]
            model = score_kept(model, backbone, self._weights > 0, *sampled)
        return super()._compute_loss(model, inputs)

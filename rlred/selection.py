"""Policy gradients on the tokens that matter: forking tokens, and the controls that say whether they do.

"Beyond the 80/20 rule" (2506.01939) trains on the fifth of the tokens whose entropy is highest. Three things go by this
name, and differ: which tokens are ranked together, when, and what the loss is divided by. Here:

    which        all completion tokens of a rollout batch, of every process and micro-batch, as the paper writes it
    when         once, with the policy that sampled them; ties are broken by position, so the share is exact
    divided by   `all` tokens (the paper's formula) or the `selected` ones (its released code: 1 / fraction as large)

TRL's own `top_entropy_quantile` ranks each micro-batch by itself, with the policy of that moment, and keeps all ties.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate.utils import gather_object

from rlred.trainer import BudgetGRPOTrainer

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
    """`top` (highest entropies), `bottom`, `random`, or a function of one's own."""
    fraction: float = 0.2
    """Share of the tokens that is kept; not asked of a function of one's own."""
    divide_by: str = "all"
    """`all` tokens or the `selected` ones."""

    def __post_init__(self):
        if not callable(self.keep) and self.keep not in KEEPS:
            raise ValueError(f"selection.keep must be one of {', '.join(KEEPS)}, or a function; got {self.keep!r}")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"selection.fraction must be above 0 and at most 1, got {self.fraction!r}")
        if self.divide_by not in ("all", "selected"):
            raise ValueError(f"selection.divide_by must be 'all' or 'selected', got {self.divide_by!r}")


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
    if callable(selection.keep):
        return selection.keep(entropies, log_probs, mask).bool() & mask
    parts = gather(entropies[mask].float())
    scores = torch.cat(parts)
    if selection.keep == "bottom":
        scores = -scores
    if selection.keep == "random":
        scores = torch.rand(scores.numel(), generator=torch.Generator().manual_seed(seed)).to(scores.device)
    kept = ranked(scores, selection.fraction)
    start = sum(part.numel() for part in parts[:rank])
    return torch.zeros_like(mask).masked_scatter(mask, kept[start : start + parts[rank].numel()])


class SelectedTokensGRPOTrainer(BudgetGRPOTrainer):
    """`BudgetGRPOTrainer` whose policy gradient comes from selected tokens only; its KL term from all of them.

    Logs `selection/kept_fraction`, `selection/threshold` (the lowest kept entropy), `selection/gradient_scale` (what
    the loss of a kept token is multiplied by), `selection/in_thinking` (share of the kept tokens before `</think>`),
    and each completion's most frequent kept tokens in the completions table. Raises `ValueError` beside TRL's own
    `top_entropy_quantile`.
    """

    _tag_names = ["trl", "grpo", "rlred"]

    def __init__(self, *args, selection: TokenSelection, **kwargs):
        super().__init__(*args, **kwargs)
        if self.top_entropy_quantile < 1.0:
            raise ValueError(
                f"top_entropy_quantile={self.top_entropy_quantile}: TRL's own masking; leave it at 1.0 beside selection"
            )
        self.selection = selection
        self.top_entropy_quantile = 0.0  # below 1, TRL asks get_high_entropy_mask, which is answered below
        self._weights: torch.Tensor | None = None

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        mask = output["completion_mask"] * output.get("tool_mask", 1)
        entropies, log_probs = self._score(output)
        kept = select(
            self.selection,
            entropies,
            log_probs,
            mask,
            gather=self._gather_uneven,
            rank=self.accelerator.process_index,
            seed=self.args.seed + self._step,
        )
        counts = self.accelerator.gather(torch.stack([kept.sum(), mask.sum()]).unsqueeze(0)).sum(0).float()
        scale = 1.0 if self.selection.divide_by == "all" else (counts[1] / counts[0].clamp(min=1)).item()
        output["token_weights"] = kept * scale
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

    def _gather_uneven(self, values: torch.Tensor) -> list[torch.Tensor]:
        """The 1-D tensors of every process, which differ in length."""
        sizes = self.accelerator.gather(torch.tensor([values.numel()], device=values.device)).tolist()
        padded = self.accelerator.gather(self.accelerator.pad_across_processes(values, dim=0)).view(len(sizes), -1)
        return [row[:size] for row, size in zip(padded, sizes, strict=True)]

    def _log_selection(self, completion_ids, entropies, kept, fraction: float, scale: float) -> None:
        metrics = self._metrics["train" if self.model.training else "eval"]
        own = entropies[kept].min() if kept.any() else torch.tensor(float("inf"), device=entropies.device)
        metrics["selection/kept_fraction"].append(fraction)
        metrics["selection/threshold"].append(self.accelerator.gather(own).min().item())
        metrics["selection/gradient_scale"].append(scale)
        end = self._tokenizer.get_vocab().get("</think>")
        if end is not None:
            thinking = (completion_ids == end).cumsum(dim=1) == 0
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
        return super()._compute_loss(model, inputs)

"""GRPO-LEAD's weight of the advantage (2504.09696): what is rare in a group counts more, whether correct or not."""

import math
from dataclasses import dataclass

import torch

from rlred.rewards.exact_length import check_non_negative
from rlred.training.early_stop import check_whole
from rlred.training.trainer import Part, Rollouts, check_graded


@dataclass(frozen=True)
class DifficultyWeight(Part):
    """A positive advantage is multiplied by w(p), another one by w(1 - p), p the share of correct answers of the group.

    w(p) = low + (high - low) / (1 + exp(steepness (p - midpoint))): about `high` on a hard question, `low` on an easy
    one. The advantages may be TRL's or another part's. A completion without a grade does not count in p; where none
    has one, p = 0. Source: the released code (aeroplanepaper/GRPO-LEAD, `logistic_reweight`), whose constants are the
    defaults, and whose advantages are divided by the group's std. Logs `difficulty_weight`, the mean weight. Raises
    `ValueError` for weights or a steepness below 0, low above high, and for rewards without a correctness.

    >>> [round(DifficultyWeight().weight(torch.tensor(p)).item(), 3) for p in (0.0, 0.75, 1.0)]
    [1.499, 0.95, 0.483]
    """

    low: float = 0.4
    high: float = 1.5
    midpoint: float = 0.75
    """The share at which the weight is half way between `low` and `high`."""
    steepness: float = 10.0

    def __post_init__(self):
        for name in ("low", "high", "steepness"):
            check_non_negative(f"difficulty_weight.{name}", getattr(self, name))
        if self.low > self.high:
            raise ValueError(f"difficulty_weight.low must be at most high={self.high!r}, got {self.low!r}")
        if not -math.inf < self.midpoint < math.inf:
            raise ValueError(f"difficulty_weight.midpoint must be a finite number, got {self.midpoint!r}")

    def check(self, training, parts):
        check_whole("difficulty_weight", parts)

    def check_rewards(self, rewards, weights, tokenizer, parts):
        check_graded(rewards, "difficulty_weight")

    def weight(self, share: torch.Tensor) -> torch.Tensor:
        """w of shares of correct answers."""
        return self.low + (self.high - self.low) / (1 + torch.exp(self.steepness * (share - self.midpoint)))

    def token_weights(self, rollouts: Rollouts) -> torch.Tensor:
        shares = rollouts.grades().nanmean(1, keepdim=True).nan_to_num(0.0)
        share = rollouts.own(shares.expand(-1, rollouts.trainer.num_generations).flatten())
        weights = self.weight(torch.where(rollouts.output["advantages"] > 0, share, 1 - share))
        rollouts.log("difficulty_weight", weights.mean().item())
        return weights.unsqueeze(1)

"""DRPO (2510.04474): shorter correct answers weigh more among the correct ones, and no correct one is pushed away."""

import math
from dataclasses import dataclass

import torch

from rlred.training.ddca import check_own_lengths
from rlred.training.trainer import Part, Rollouts, check_graded


@dataclass(frozen=True)
class DRPO(Part):
    """The gradient of DRPO's objective as advantages, which do not depend on the rewards but for the grade.

        correct     A_i = N w_i / sum of w over the group's correct ones,  w = exp((1 - n / L) / length_weight)
        incorrect   A_j = -N softmax of s / tau over the group's incorrect ones

    N completions in the group, n tokens, L = `max_completion_length`, s the mean log-probability of the completion
    under the policy that sampled it. w is the closed form of the positive distribution that maximises 1 - n / L with a
    KL weight of `length_weight`: the smaller, the more the shortest correct answer has of it. A group without a correct
    or without an incorrect answer teaches nothing; a completion without a grade has A = 0. Correct answers have A > 0,
    and the A of a group sum to 0.

    With `loss_type: grpo` and one update per rollout, the gradient is that of the released code (Optimization-AI/DRPO,
    `compute_policy_loss_drpo`; tau 10, length_weight 0.1): mean over questions of sum w s / sum w - tau log mean
    exp(s / tau). Differs: its constraint on the KL (squared hinge, 1e-4) is not here, TRL's clip and `beta` are.
    Raises `ValueError` for values that are not above 0, another loss, rewards without a correctness, and beside what
    hides a completion's length.

    >>> DRPO().length_weight
    0.1
    """

    length_weight: float = 0.1
    """KL weight of the positive distribution (the paper's lambda): small is short."""
    tau: float = 10.0
    """Temperature among incorrect answers: small picks the likeliest of them."""

    gives_advantages = True

    def __post_init__(self):
        for name in ("length_weight", "tau"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"drpo.{name} must be a finite number above 0, got {getattr(self, name)!r}")

    def check(self, training, parts):
        if training.loss_type != "grpo":
            raise ValueError(
                f"loss_type={training.loss_type!r}: drpo compares completions by the mean over their tokens; set it to "
                "'grpo'"
            )
        check_own_lengths("drpo", training, parts)

    def check_rewards(self, rewards, weights, tokenizer, parts):
        check_graded(rewards, "drpo")

    def advantages(self, rollouts: Rollouts) -> torch.Tensor:
        mask = rollouts.mask
        scores = rollouts.grouped((rollouts.scores[0] * mask).sum(1) / mask.sum(1).clamp(min=1))
        shares = rollouts.lengths() / rollouts.trainer.max_completion_length
        found = discriminative(rollouts.grades(), shares, scores, self.length_weight, self.tau)
        return rollouts.own(found.flatten()).float()


def discriminative(
    grades: torch.Tensor, shares: torch.Tensor, scores: torch.Tensor, length_weight: float, tau: float
) -> torch.Tensor:
    """A (groups, N) of grades 1, 0 or nan, lengths as shares of the longest, and mean log-probabilities; in float64.

    >>> half = 0.1 * torch.log(torch.tensor(2.0)).item()  # so much longer halves the weight at length_weight 0.1
    >>> grades, shares = torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[0.0, half, 0.5]])
    >>> [round(value, 3) for value in discriminative(grades, shares, torch.zeros(1, 3), 0.1, 10.0)[0].tolist()]
    [2.0, 1.0, -3.0]
    """
    correct, incorrect = grades == 1, grades == 0
    both = correct.any(1, keepdim=True) & incorrect.any(1, keepdim=True)
    positive = ((1 - shares.double()) / length_weight).masked_fill(~correct, -math.inf).softmax(1)
    negative = (scores.double() / tau).masked_fill(~incorrect, -math.inf).softmax(1)
    return grades.size(1) * (positive.nan_to_num(0.0) - negative.nan_to_num(0.0)) * both

"""DDCA (2602.02099): an advantage for correctness, and one for length that is computed among correct answers alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from trl import GRPOConfig

from rlred.rewards.exact_length import check_non_negative
from rlred.training.early_stop import EarlyStop
from rlred.training.trainer import Part, Rollouts, check_graded

BASELINES = ("leave_one_out", "group")


@dataclass(frozen=True)
class DDCA(Part):
    """A = A_acc - beta A_len; the rewards and their weights are logged, and only the grade c is trained on.

        A_acc = c_i - mean of c over the others of the group
        A_len = n / N (sigmoid(z_i) - mean of sigmoid(z) over the other correct ones), and 0 for an incorrect answer

    n of the group's N graded completions are correct; z = (length - mean) / std over these, population std, 0 where all
    lengths are equal. The only correct answer of a group has A_len = 0. A completion without a grade is left out and
    has A = 0. `baseline: group` compares with the whole group instead: A_acc = (c - mean) / std, and A_len is against
    the mean over all correct ones.

    Range: [-1 - beta, 1 + beta] with `leave_one_out`. Source: the released code (alphadl/DDCA, dca/advantage.py), which
    has both baselines; beta 0.2 there, 0.3 in the paper (second-hand). Raises `ValueError` for a value out of range,
    for rewards without a correctness, and beside what hides a completion's length.

    >>> DDCA(beta=0.2).baseline
    'leave_one_out'
    """

    beta: float = 0.2
    """Weight of the length."""
    baseline: str = "leave_one_out"
    """What a completion is compared with: the others of its group (`leave_one_out`), or the whole `group`."""

    gives_advantages = True

    def __post_init__(self):
        check_non_negative("ddca.beta", self.beta)
        if self.baseline not in BASELINES:
            raise ValueError(f"ddca.baseline must be one of {', '.join(BASELINES)}, got {self.baseline!r}")

    def check(self, training, parts):
        check_own_lengths("ddca", training, parts)

    def check_rewards(self, rewards, weights, tokenizer, parts):
        check_graded(rewards, "ddca")

    def advantages(self, rollouts: Rollouts) -> torch.Tensor:
        found = decoupled(rollouts.grades(), rollouts.lengths(), self.beta, self.baseline)
        return rollouts.own(found.flatten()).float()


def check_own_lengths(field: str, training: GRPOConfig, parts: Sequence[Part]) -> None:
    """Raises `ValueError` for settings beside which a completion's length would not be its own."""
    if training.mask_truncated_completions:
        raise ValueError(
            f"mask_truncated_completions=True: to {field} a masked completion has 0 tokens; set it to false"
        )
    if any(isinstance(part, EarlyStop) for part in parts):
        raise ValueError(
            f"early_stop_rollouts=True: {field} compares lengths, and a stopped rollout has none; set it to false"
        )


def against(values: torch.Tensor, members: torch.Tensor, baseline: str) -> torch.Tensor:
    """`values` (groups, N) of the `members` of each group less the mean of the others, or of all; 0 elsewhere.

    >>> values, members = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[True, True, True]])
    >>> against(values, members, "leave_one_out").tolist(), against(values, members[:, :1], "group").tolist()
    ([[1.0, -0.5, -0.5]], [[0.0, -1.0, -1.0]])
    """
    values = values.where(members, 0.0)
    total, count = values.sum(1, keepdim=True), members.sum(1, keepdim=True)
    if baseline == "leave_one_out":
        total, count = total - values, count - 1
    return (values - total / count.clamp(min=1)).where(members & (count > 0), 0.0)


def standardised(values: torch.Tensor, members: torch.Tensor) -> torch.Tensor:
    """`values` (groups, N) of the `members` less their mean, over their population std; 0 where that is 0.

    >>> standardised(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[True, True, False]])).tolist()
    [[-1.0, 1.0, 0.0]]
    """
    centred = against(values, members, "group")
    std = (centred.square().sum(1, keepdim=True) / members.sum(1, keepdim=True).clamp(min=1)).sqrt()
    return torch.where(std > 1e-6, centred / std.clamp(min=1e-6), 0.0)


def decoupled(grades: torch.Tensor, lengths: torch.Tensor, beta: float, baseline: str) -> torch.Tensor:
    """A (groups, N) of grades 1, 0 or nan, and lengths; in float64.

    >>> grades, lengths = torch.tensor([[1.0, 1.0, 0.0, 0.0]]), torch.tensor([[10.0, 20.0, 5.0, 40.0]])
    >>> [round(value, 4) for value in decoupled(grades, lengths, 0.2, "leave_one_out")[0].tolist()]
    [0.7129, 0.6205, -0.6667, -0.6667]
    """
    grades, lengths = grades.double(), lengths.double()
    known, correct = ~grades.isnan(), grades == 1
    accuracy = against(grades, known, baseline) if baseline == "leave_one_out" else standardised(grades, known)
    rate = correct.sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp(min=1)
    return accuracy - beta * rate * against(standardised(lengths, correct).sigmoid(), correct, baseline)

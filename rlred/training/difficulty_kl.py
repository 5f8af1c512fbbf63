"""FAST's KL weight by difficulty (2504.18458): where a group is never correct, the policy may move further."""

from dataclasses import dataclass

import torch

from rlred.training.trainer import Part, Rollouts

GRADES = ("correctness", "exact_match")


@dataclass(frozen=True)
class DifficultyKL(Part):
    """A KL weight that runs from args.beta, where a group is never correct, to `high_beta`, where it always is.

    The weight of a row is beta + (high_beta - beta) * p. beta is TRL's `args.beta`. p is the group's share of correct
    answers: the mean of the reward called `correctness` (or `exact_match`), which may have weight 0. The paper's values
    are 0.001 and 0.01. Raises `ValueError` for a beta of 0, which leaves TRL without a reference model, for a high_beta
    below beta, and for rewards without a correctness.
    """

    high_beta: float = 0.01

    def check(self, training, parts):
        if not 0 < training.beta <= self.high_beta:
            raise ValueError(f"beta must be above 0 and at most high_beta={self.high_beta!r}, got {training.beta!r}")

    def check_trainer(self, trainer):
        if not set(GRADES) & set(trainer.reward_func_names):
            raise ValueError(
                f"high_beta needs the reward 'correctness' beside {trainer.reward_func_names}; weight 0 will do"
            )

    def kl_weights(self, rollouts: Rollouts) -> torch.Tensor:
        grade = next(name for name in rollouts.trainer.reward_func_names if name in GRADES)
        beta = rollouts.trainer.beta
        return beta + (self.high_beta - beta) * rollouts.group_mean(grade)

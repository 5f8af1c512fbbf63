"""FAST's KL weight by difficulty (2504.18458): where a group is never correct, the policy may move further."""

from dataclasses import dataclass

import torch

from rlred.training.early_stop import check_whole
from rlred.training.trainer import Part, Rollouts, check_graded, grade_name


@dataclass(frozen=True)
class DifficultyKL(Part):
    """A KL weight that runs from args.beta, where a group is never correct, to `beta_solved`, where it always is.

    The weight of a row is beta + (beta_solved - beta) * p. beta is TRL's `args.beta`. p is the group's share of correct
    answers: the mean of the reward called `correctness` (or `exact_match`), which may have weight 0. The paper's values
    are 0.001 and 0.01. Raises `ValueError` for a beta of 0, which leaves TRL without a reference model, for a
    beta_solved below beta, and for rewards without a correctness.
    """

    beta_solved: float = 0.01

    def check(self, training, parts):
        check_whole("beta_solved", parts)
        if not 0 < training.beta <= self.beta_solved:
            raise ValueError(
                f"beta must be above 0 and at most beta_solved={self.beta_solved!r}, got {training.beta!r}"
            )

    def check_rewards(self, rewards, weights, tokenizer, parts):
        check_graded(rewards, "beta_solved")

    def kl_weights(self, rollouts: Rollouts) -> torch.Tensor:
        beta = rollouts.trainer.beta
        return beta + (self.beta_solved - beta) * rollouts.group_mean(grade_name(rollouts.trainer.reward_funcs))

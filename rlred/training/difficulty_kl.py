"""FAST's KL weight by difficulty (2504.18458): where a group is never correct, the policy may move further."""

from dataclasses import dataclass

import torch

from rlred.rewards.base import declared
from rlred.training.trainer import ComposedGRPOTrainer, Part, Rollouts


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
        if not 0 < training.beta <= self.beta_solved:
            raise ValueError(
                f"beta must be above 0 and at most beta_solved={self.beta_solved!r}, got {training.beta!r}"
            )

    def check_trainer(self, trainer):
        if self._grade(trainer) is None:
            raise ValueError(
                f"beta_solved needs the reward 'correctness' beside {trainer.reward_func_names}; weight 0 will do"
            )

    def kl_weights(self, rollouts: Rollouts) -> torch.Tensor:
        beta = rollouts.trainer.beta
        return beta + (self.beta_solved - beta) * rollouts.group_mean(self._grade(rollouts.trainer))

    @staticmethod
    def _grade(trainer: ComposedGRPOTrainer) -> str | None:
        """The name of the reward that is the grade itself."""
        names = (declared(reward).__name__ for reward in trainer.reward_funcs if declared(reward).grades)
        return next(names, None)

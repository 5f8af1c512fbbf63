"""FAST's KL weight by difficulty (2504.18458): where a group is never right, the policy may move further."""

import torch

from rlred.training.trainer import BudgetGRPOTrainer


def check_betas(beta: float, high_beta: float) -> None:
    """Raises `ValueError` unless 0 < beta <= high_beta: at a beta of 0, TRL keeps no reference to weigh."""
    if not 0 < beta <= high_beta:
        raise ValueError(f"beta must be above 0 and at most high_beta={high_beta!r}, got {beta!r}")


class _PerRow:
    """A KL weight for each row, standing where TRL has one number: it multiplies the KL of every token."""

    def __init__(self, weights: torch.Tensor):
        self.weights = weights  # (B,)

    def __ne__(self, other):
        return True  # TRL asks whether there is a KL term at all

    def __mul__(self, per_token_kl: torch.Tensor) -> torch.Tensor:
        return self.weights.unsqueeze(1) * per_token_kl


class DifficultyKLGRPOTrainer(BudgetGRPOTrainer):
    """GRPO whose KL weight runs from args.beta, where a group is never right, to `high_beta`, where it always is.

    beta = args.beta + (high_beta - args.beta) * p, p the group's share of right answers: the mean of the reward called
    `correctness` (or `exact_match`), which may have weight 0. The paper's are 0.001 and 0.01. Raises `ValueError` for
    an args.beta of 0, which leaves TRL without a reference, a high_beta below it, and rewards without a correctness.
    """

    def __init__(self, *args, high_beta: float = 0.01, **kwargs):
        super().__init__(*args, **kwargs)
        check_betas(self.beta, high_beta)
        names = [name for name in self.reward_func_names if name in ("correctness", "exact_match")]
        if not names:
            raise ValueError(
                f"difficulty needs the reward 'correctness' beside {self.reward_func_names}; weight 0 will do"
            )
        self.high_beta, self._graded_by = high_beta, self.reward_func_names.index(names[0])

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)  # of all processes
        groups = rewards[:, self._graded_by].nan_to_num(0.0).view(-1, self.num_generations)
        rates = groups.mean(1).repeat_interleave(self.num_generations)
        start = self.accelerator.process_index * len(prompts)
        self._rates = rates[start : start + len(prompts)]
        return rewards

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        output["kl_weights"] = self.beta + (self.high_beta - self.beta) * self._rates
        return output

    def _compute_loss(self, model, inputs):
        beta, self.beta = self.beta, _PerRow(inputs["kl_weights"])
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self.beta = beta

"""What a run has spent: completions, steps and minutes."""

import time

from trl import GRPOTrainer

from rlred.checks.audit import rollouts_per_step


def cost(trainer: GRPOTrainer, hindsight: dict | None, first: float | None, kept: float | None, start: float) -> dict:
    """What the run spent: completions sampled, and how many of them until the budget was followed.

    `first` and `kept` are the rank correlations on held-out questions after the hindsight start and after RL. The
    budget is followed when `first` is 0.9, or else at the first logged RL step whose rollouts show as much, if `kept`
    does too.
    """
    sampled = hindsight["num_samples"] if hindsight else 0
    logged = trainer.state.log_history
    reached = [entry["step"] for entry in logged if entry.get("adherence/batch_rank_correlation", 0) >= 0.9]
    if first is not None and first >= 0.9:
        rollouts = sampled
    elif kept is not None and kept < 0.9:
        rollouts = None  # a step's rollouts ask fewer budgets than the sweep, and can look better than it
    else:
        rollouts = sampled + rollouts_until(trainer, reached[0]) if reached else None
    return {
        "hindsight_samples": sampled,
        "hindsight_updates": hindsight["num_updates"] if hindsight else 0,
        "rl_steps": trainer.state.global_step,
        "rl_rollouts": rollouts_until(trainer, trainer.state.global_step),
        "rollouts_to_rank_correlation_0.9": rollouts,
        "minutes": round((time.monotonic() - start) / 60, 1),
    }


def rollouts_until(trainer: GRPOTrainer, step: int) -> int:
    """Completions sampled in the first `step` steps, those that dynamic sampling has dropped included.

    How many were sampled for each one trained on is in the log, as the mean over the steps since the entry before.
    """
    per_step, before, total = rollouts_per_step(trainer.args), 0, 0.0
    for entry in trainer.state.log_history:
        if "loss" in entry and entry["step"] <= step:
            total += (entry["step"] - before) * entry.get("dynamic_sampling/sampled", 1.0)
            before = entry["step"]
    return round(per_step * (total + step - before))

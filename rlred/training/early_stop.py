"""Rollouts that end where their reward is decided: no token is generated that no reward can feel.

A reward says by `decided_after(row)` (rewards/base.py) after how many tokens its value for a row can no longer change,
whatever follows. A completion is cut there. What stays the same, and what does not:

    rewards, advantages   the same, row by row
    gradient              the tokens that are left out came after their reward was decided: their expected gradient is
                          zero, so a cut takes noise away. `dapo`, `bnpo` and `cispo` divide by fewer tokens; `grpo`
                          divides a cut row by its own fewer tokens, so an overlong row weighs more per token
    random numbers        a batch that ends earlier draws fewer of them: the next batch is sampled differently
    curves                a cut row counts as truncated (`completions/clipped_ratio`), and as long as the cap in
                          `adherence/*`: it could have gone on that far. Correctness, logged beside the reward, misses a
                          correct answer that would have come after the cut
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trl import GRPOConfig

from rlred.rewards.base import declared
from rlred.training.trainer import ComposedGRPOTrainer, Part


def decided_after(rewards: Sequence[Callable], weights: Sequence[float], row: dict, cap: int) -> int:
    """The tokens after which the weighted sum of rewards is decided for a row: where all of them are, or the cap.

    A reward with weight 0 is logged and not trained on; it has no say.

    >>> from rlred.rewards import Correctness, MaxLength
    >>> row = {"solution": "4", "budget": 10}
    >>> decided_after([MaxLength(alpha=0.05), Correctness()], [1.0, 0.0], row, cap=90)
    20
    >>> decided_after([MaxLength(alpha=0.05), Correctness()], [1.0, 0.5], row, cap=90)
    90
    """
    ends = [declared(reward).decided_after(row) for reward, weight in zip(rewards, weights, strict=True) if weight]
    return cap if None in ends else min(cap, max(ends, default=cap))


def check_stopping(training: GRPOConfig) -> None:
    """Raises `ValueError` for settings beside which rows cannot be stopped one by one, or would be lost."""
    if training.mask_truncated_completions:
        raise ValueError(
            "mask_truncated_completions=True: every stopped rollout would be masked; set it to false, "
            "or early_stop_rollouts"
        )
    if training.use_transformers_continuous_batching:
        raise ValueError(
            "use_transformers_continuous_batching=True: it takes no limit per row; set it to false, "
            "or early_stop_rollouts"
        )
    if training.use_vllm and (training.vllm_mode != "colocate" or training.vllm_tensor_parallel_size > 1):
        raise ValueError(
            f"vllm_mode={training.vllm_mode!r}, vllm_tensor_parallel_size={training.vllm_tensor_parallel_size}: TRL "
            "sends one limit for all rows there; use 'colocate' and 1, or set early_stop_rollouts to false"
        )


def check_whole(field: str, parts: Sequence[Part]) -> None:
    """Raises `ValueError` where rollouts are stopped, beside a part that reads their grades.

    One that is stopped has an answer no more, and counts as incorrect; the weighted reward is what it would have been,
    and a grade of weight 0 is not.
    """
    if any(isinstance(part, EarlyStop) for part in parts):
        raise ValueError(
            f"early_stop_rollouts=True: {field} reads the grades, and a stopped rollout is graded as incorrect; set it "
            "to false"
        )


@dataclass(frozen=True)
class EarlyStop(Part):
    """Ends each rollout where its reward is decided. Rewards find the limit in the column `rollout_limit`."""

    def check(self, training, parts):
        check_stopping(training)

    def check_trainer(self, trainer):
        if trainer.rollout_func is not None:
            raise ValueError(
                "early_stop_rollouts=True: rollouts of a rollout function are not stopped here; set it to false"
            )

    def limits(self, trainer: ComposedGRPOTrainer, rows: Sequence[dict]) -> list[int]:
        weights, cap = trainer.reward_weights.tolist(), trainer.max_completion_length
        rows = ({**row, "trainer_state": trainer.state} for row in rows)
        return [decided_after(trainer.reward_funcs, weights, row, cap) for row in rows]

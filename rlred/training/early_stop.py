"""Rollouts that end where their reward is decided: no token is generated that no reward can feel.

A reward may have `decided_at(row) -> int | None`: the number of tokens after which the value for that row can no longer
change, whatever follows. `row` holds what TRL passes to a reward for one completion: the dataset's columns, and
`trainer_state`. A completion is cut there. What stays the same, and what does not:

    rewards, advantages   the same, row by row
    gradient              the tokens that are left out came after their reward was decided: their expected gradient is
                          zero, so a cut takes noise away. `dapo`, `bnpo` and `cispo` divide by fewer tokens; `grpo`
                          divides a cut row by its own fewer tokens, so an overlong row weighs more per token
    random numbers        a batch that ends earlier draws fewer of them: the next batch is sampled differently
    curves                a cut row counts as truncated (`completions/clipped_ratio`), and as long as the cap in
                          `adherence/*`: it could have gone on that far. Correctness, logged beside the reward, misses a
                          right answer that would have come after the cut
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

if TYPE_CHECKING:  # the sweep needs no trainer, and it takes seconds to import
    from trl import GRPOConfig


def decided_at(rewards: Sequence[Callable], weights: Sequence[float], row: dict, cap: int) -> int:
    """The tokens after which the weighted sum of rewards is decided for a row: where all of them are, or the cap.

    A reward with weight 0 is logged and not trained on; it has no say.

    >>> from rewards import Correctness, MaxLength
    >>> row = {"solution": "4", "budget": 10}
    >>> decided_at([MaxLength(alpha=0.05), Correctness()], [1.0, 0.0], row, cap=90)
    20
    >>> decided_at([MaxLength(alpha=0.05), Correctness()], [1.0, 0.5], row, cap=90)
    90
    """
    ends = [
        reward.decided_at(row) if hasattr(reward, "decided_at") else None
        for reward, weight in zip(rewards, weights, strict=True)
        if weight
    ]
    return cap if None in ends else min(cap, max(ends, default=cap))


def check_stopping(training: "GRPOConfig") -> None:
    """Raises `ValueError` for settings beside which rows cannot be stopped one by one, or would be lost."""
    if training.mask_truncated_completions:
        raise ValueError(
            "mask_truncated_completions=True: every stopped rollout would be masked; set it to false, or stop_decided"
        )
    if training.use_transformers_continuous_batching:
        raise ValueError(
            "use_transformers_continuous_batching=True: it takes no limit per row; set it to false, or stop_decided"
        )
    if training.use_vllm and (training.vllm_mode != "colocate" or training.vllm_tensor_parallel_size > 1):
        raise ValueError(
            f"vllm_mode={training.vllm_mode!r}, vllm_tensor_parallel_size={training.vllm_tensor_parallel_size}: TRL "
            "sends one limit for all rows there; use 'colocate' and 1, or set stop_decided to false"
        )


class StopAt(StoppingCriteria):
    """Ends row i of a `generate` batch after `limits[i]` new tokens."""

    def __init__(self, prompt_length: int, limits: Sequence[int]):
        self.prompt_length = prompt_length
        self.limits = torch.tensor(limits)

    def __call__(self, input_ids, scores, **kwargs):
        self.limits = self.limits.to(input_ids.device)
        return input_ids.shape[1] - self.prompt_length >= self.limits


@contextlib.contextmanager
def stopping_at(engine, limits: Sequence[int]):
    """While open, `engine.generate` ends row i after `limits[i]` tokens; `engine` is a model, or a `vllm.LLM`.

    TRL 1.16 hands neither stopping criteria nor a limit per row through, so the bound method is stood in for.
    """
    generate = engine.generate

    def of_transformers(**inputs):
        criteria = StoppingCriteriaList([StopAt(inputs["input_ids"].shape[1], limits)])
        return generate(**inputs, stopping_criteria=criteria)

    def of_vllm(prompts, sampling_params, **kwargs):
        own = [sampling_params.clone() for _ in limits]
        for parameters, limit in zip(own, limits, strict=True):
            parameters.max_tokens = limit
        return generate(prompts, sampling_params=own, **kwargs)

    engine.generate = of_transformers if isinstance(engine, torch.nn.Module) else of_vllm
    try:
        yield
    finally:
        del engine.generate

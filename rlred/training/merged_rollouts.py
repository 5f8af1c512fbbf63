"""Rollouts from weights with the adapter merged in: fewer operations per token, the same policy.

An unmerged LoRA adds three operations to every linear layer, at every token that is sampled; docs/LOG.md says what that
costs on the embedded reasoner (2026-11-26). The base weights come back bit for bit. In bfloat16 the merged
weights are rounded, so that the rollouts are those of a policy next to the one that is trained, as they are with vLLM.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass

from rlred.evaluation.sweep import merged_adapter
from rlred.training.trainer import Part
from rlred.wrapper import asked_wrapper


@dataclass(frozen=True)
class MergedRollouts(Part):
    """Merges the adapter while rollouts are sampled by transformers.

    Raises `ValueError` beside vLLM, which does so, and ZeRO-3, under which TRL gathers the weights too late.
    """

    def check(self, training, parts):
        if training.use_vllm:
            raise ValueError("merged_rollouts: vLLM gets merged weights from TRL already; leave it out beside use_vllm")
        if asked_wrapper(training) == "zero3":
            raise ValueError(
                "merged_rollouts: the weights are in shares when it merges them; leave it out beside zero3"
            )

    def generating(self, trainer) -> AbstractContextManager:
        """The adapter is merged while this is open."""
        return merged_adapter(trainer.accelerator.unwrap_model(trainer.model_wrapped))

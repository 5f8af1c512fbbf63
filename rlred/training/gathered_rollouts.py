"""Rollouts from whole weights under FSDP2, as TRL has them under ZeRO-3.

TRL 1.16 generates through the shares there, a layer at a time, and transformers 5.23 keeps the processes in step for
ZeRO-3 and its own sharding alone. Processes whose rollouts differ in length would gather different layers.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass

from rlred.evaluation.shares import gathered
from rlred.training.trainer import Part


@dataclass(frozen=True)
class GatheredRollouts(Part):
    """Gathers the weights while rollouts are sampled by transformers."""

    def generating(self, trainer) -> AbstractContextManager:
        """The weights are whole while this is open."""
        return gathered(trainer.accelerator.unwrap_model(trainer.model_wrapped))

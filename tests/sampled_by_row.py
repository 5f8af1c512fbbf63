"""recipes/l1_maxlen.py, whose rollouts are the same on any number of processes: for comparing losses, not for training.

    accelerate launch --config_file accelerate_configs/ddp_cpu.yaml tests/sampled_by_row.py --hindsight false ...

A process draws its tokens from its own random state, so the rollouts of two processes are never those of one. Here the
noise of each token is seeded by prompt, row and position instead (Gumbel noise; its argmax is a sample of the softmax).
"""

import os
import sys
import zlib

import torch
from accelerate import PartialState
from transformers import GenerationMixin, LogitsProcessor, LogitsProcessorList

from rlred.runs.grpo import main
from tests.paths import ROOT


class NoiseByRow(LogitsProcessor):
    """Leaves one token per row: the argmax of its scores and its own Gumbel noise.

    `names` tell the rows apart: their prompt, and their place in the batch of all processes.
    """

    def __init__(self, names: list[str], prompt_length: int):
        self.names, self.prompt_length = names, prompt_length

    def __call__(self, input_ids, scores):
        position = input_ids.shape[1] - self.prompt_length
        seeds = [zlib.crc32(f"{name}/{position}".encode()) for name in self.names]
        uniform = torch.stack([torch.rand(scores.shape[1], generator=torch.Generator().manual_seed(s)) for s in seeds])
        noise = -torch.log(-torch.log(uniform.clamp(1e-9, 1 - 1e-7)))
        chosen = (scores + noise.to(scores)).argmax(dim=1, keepdim=True)
        return torch.full_like(scores, float("-inf")).scatter(1, chosen, 0.0)


def seeded_by_row(generate):
    """`generate` with that noise. Nothing is counted, so that a run that is resumed samples what it would have."""

    def generate_with_noise(self, *args, input_ids, attention_mask, **kwargs):
        first_row = PartialState().process_index * len(input_ids)
        prompts = [ids[mask.bool()].tolist() for ids, mask in zip(input_ids, attention_mask, strict=True)]
        names = [f"{first_row + row}/{ids}" for row, ids in enumerate(prompts)]
        noise = LogitsProcessorList([NoiseByRow(names, input_ids.shape[1])])
        told = {"input_ids": input_ids, "attention_mask": attention_mask, "logits_processor": noise}
        return generate(self, *args, **told, **kwargs)

    return generate_with_noise


if __name__ == "__main__":
    if os.environ.get("DS_ACCELERATOR") == "cpu":
        import deepspeed

        # gloo in the place of an operator that DeepSpeed compiles when it starts, in minutes on a busy machine
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    GenerationMixin.generate = seeded_by_row(GenerationMixin.generate)
    sys.exit(main(ROOT / "recipes" / "l1_maxlen.py"))

r"""GRPO that teaches a multimodal model to use fewer visual tokens: question, budget token, image, answer.

Reward: correct * (1 + w (1 - K/N)), K the visual tokens that the chosen budget token stands for (after Sparsity
Forcing, 2504.18579). Differs from the paper: the policy chooses the budget before it sees the picture, instead of being
given one of many (`--ladder true` is that, as a control); tokens are really gone, in generation and in training; LoRA
on the language model only; no division by the group's standard deviation.

CPU, minutes    python recipes/visual_sparsity.py
one GPU         accelerate launch recipes/visual_sparsity.py --config recipes/visual_sparsity_qwen2.5_vl_3b.yaml
control         python recipes/visual_sparsity.py --ladder true \
                    --reward '{"name":"visual_sparsity","assigned":true,"correctness":{"name":"exact_match"}}'
"""

import sys
from pathlib import Path

from rlred.runs.visual import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__)))

r"""Correct answers get less the longer they are among their group's correct ones (Arora & Zanette, 2502.04463).

Reward: c * (1 - alpha * sigmoid((n - mean) / std)) over the group's correct completions. No division by the group's
std: with it, an all-correct group's advantages would not depend on alpha. Differs from the paper: GRPO's group mean as
baseline instead of RLOO's leave-one-out mean, which is the same advantage times (G - 1) / G.

CPU, minutes    accelerate launch recipes/efficient_reasoning.py
one GPU         accelerate launch recipes/efficient_reasoning.py --config recipes/efficient_reasoning_paper.yaml
eight GPUs      accelerate launch --config_file accelerate_configs/zero2.yaml recipes/efficient_reasoning.py \
                    --config recipes/efficient_reasoning_paper.yaml
resume          add --resume_from_checkpoint true
"""

import sys
from pathlib import Path

from rlred.runs.grpo import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__)))

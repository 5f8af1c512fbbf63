r"""GRPO that teaches a model to think for a given length: "Think for exactly N tokens" (L1-Exact, LCPO-Exact).

Reward: correct - alpha * |n - N| (2503.04697, eq 1). Differs from the paper: LoRA instead of full weights; a hindsight
start (rlred/training/hindsight.py) instead of hundreds of steps before length control appears; budgets drawn afresh on
every visit; no division by the group's standard deviation.

CPU, minutes    accelerate launch recipes/l1_exact.py
one GPU         accelerate launch recipes/l1_exact.py --config recipes/l1_exact_r1_1.5b.yaml
eight GPUs      accelerate launch --config_file accelerate_configs/zero2.yaml recipes/l1_exact.py \
                    --config recipes/l1_exact_r1_1.5b_8gpu.yaml
resume          add --resume_from_checkpoint true
"""

import sys
from pathlib import Path

from rlred.runs.grpo import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__)))

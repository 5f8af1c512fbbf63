r"""GRPO that teaches a model to stay under a token budget: "Think for maximum N tokens" (L1-Max, LCPO-Max).

Reward: correct * clip(alpha * (N - n) + 0.5, 0, 1) on rows that ask for a maximum, correct - alpha * |n - N| on rows
that ask for an exact length (2503.04697, eq 2 and 1). Differs from the paper: LoRA instead of full weights; a hindsight
start (rlred/training/hindsight.py) instead of hundreds of steps before length control appears; budgets drawn afresh on
every visit; no division by the group's standard deviation; Exact and Max are trained together instead of one after the
other.

CPU, minutes    accelerate launch recipes/l1_maxlen.py
one GPU         accelerate launch recipes/l1_maxlen.py --config recipes/l1_maxlen_r1_1.5b.yaml
eight GPUs      accelerate launch --config_file accelerate_configs/zero2.yaml recipes/l1_maxlen.py \
                    --config recipes/l1_maxlen_r1_1.5b_8gpu.yaml
resume          add --resume_from_checkpoint true
"""

import sys
from pathlib import Path

from rlred.runs.grpo import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__)))

r"""The group's shortest correct answer is the length to aim at (ShorterBetter, 2504.21370).

Reward: 2 c - alpha * |n - L|, with L the shortest correct length of the group, or its mean length where none is
correct. Differs from the paper: no division by the group's standard deviation.

CPU, minutes    accelerate launch recipes/shorter_better.py
one GPU         accelerate launch recipes/shorter_better.py --config recipes/shorter_better_paper.yaml
eight GPUs      accelerate launch --config_file accelerate_configs/zero2.yaml recipes/shorter_better.py \
                    --config recipes/shorter_better_paper.yaml
resume          add --resume_from_checkpoint true
"""

import sys
from pathlib import Path

from rlred.runs.grpo import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__)))

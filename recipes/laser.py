r"""A bonus for right answers within a target that follows the difficulty of the question (Laser-D, 2505.15612).

Reward: 1, -0.5 or -1 for a right, a wrong or no answer, plus 0.5 for a right one within the target of its group:
easy, medium or hard by the group's accuracy. Differs from the paper: the three targets are given, not searched for on
a monitor set every 20 steps. One target is Laser; `explore: true` is Laser-DE.

CPU, minutes    accelerate launch recipes/laser.py
one GPU         accelerate launch recipes/laser.py --config recipes/laser_paper.yaml
eight GPUs      accelerate launch --config_file accelerate_configs/zero2.yaml recipes/laser.py \
                    --config recipes/laser_paper.yaml
resume          add --resume_from_checkpoint true
"""

import sys
from pathlib import Path

from rlred.dial import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__)))

r"""A bonus for correct answers within a target that follows the difficulty of the question (Laser-D, 2505.15612).

Reward: 1, -0.5 or -1 for a correct, an incorrect or no answer, plus 0.5 for a correct one within the target of its
group: easy, medium or hard by the group's accuracy. The targets are given, or searched for on monitor questions every
so many steps, as in the paper (`target_search`). One target is Laser; `explore: true` is Laser-DE.

CPU, minutes    accelerate launch recipes/laser.py
searched        add --target_search '{"num_questions": 32, "low": 16, "step": 4}'
one GPU         accelerate launch recipes/laser.py --config recipes/laser_paper.yaml
eight GPUs      accelerate launch --config_file accelerate_configs/zero2.yaml recipes/laser.py \
                    --config recipes/laser_paper.yaml
resume          add --resume_from_checkpoint true
"""

import sys
from pathlib import Path

from rlred.runs.grpo import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__)))

r"""A cap that tightens in stages: what is not finished within it gets nothing (ThinkPrune, 2504.01296).

Reward: correctness within the stage's limit, nothing beyond. The stages are the paper's idea: a cap that cuts more
than about half of the answers at once destroys them. Differs from the paper: the limit is in the reward and the
generation cap stays at the first stage's, so that one run, one resume and one learning-rate schedule cover all
stages.

CPU, minutes    accelerate launch recipes/thinkprune.py
one GPU         accelerate launch recipes/thinkprune.py --config recipes/thinkprune_paper.yaml
eight GPUs      accelerate launch --config_file accelerate_configs/zero2.yaml recipes/thinkprune.py \
                    --config recipes/thinkprune_paper.yaml
resume          add --resume_from_checkpoint true
"""

import sys
from pathlib import Path

from rlred.runs.grpo import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__)))

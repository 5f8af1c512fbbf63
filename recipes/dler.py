r"""Truncation with an optimiser that survives it: batch-wise scaling and a higher clip (DLER, 2510.15110).

Reward: correctness within the limit, nothing beyond (the released code: a tenth). Advantages are scaled by the std of
the batch, not of the group, and the upper clip is 0.28. The paper's dynamic sampling of groups without a signal, which
TRL 1.16 does not have, is a part: --parts '{"dynamic_sampling": {"by": "reward"}}'. Off, their advantage is zero.

CPU, minutes    accelerate launch recipes/dler.py
one GPU         accelerate launch recipes/dler.py --config recipes/dler_paper.yaml
eight GPUs      accelerate launch --config_file accelerate_configs/zero2.yaml recipes/dler.py \
                    --config recipes/dler_paper.yaml
resume          add --resume_from_checkpoint true
"""

import sys
from pathlib import Path

from rlred.runs.grpo import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__)))

r"""Length efficiency: shorter than the model itself was, at no loss of accuracy (O1-Pruner, 2501.12570).

Reward: L_ref / n - 1 + lambda * (c - A_ref), against the base's own length and accuracy on each question, which the
run samples first (or `rlred reference` does, once for many runs). Differs from the paper: on-policy GRPO instead of
one offline epoch on pre-sampled solutions; the embedded default divides by L_ref, as the released code does, since
L_ref / n rewards an empty thought most.

CPU, minutes    accelerate launch recipes/o1_pruner.py
one GPU         accelerate launch recipes/o1_pruner.py --config recipes/o1_pruner_paper.yaml
eight GPUs      accelerate launch --config_file accelerate_configs/zero2.yaml recipes/o1_pruner.py \
                    --config recipes/o1_pruner_paper.yaml
resume          add --resume_from_checkpoint true
reference once  rlred reference --num_questions 512 --max_completion_length 90 --output outputs/reference.jsonl
                accelerate launch recipes/o1_pruner.py --questions outputs/reference.jsonl --eval_questions sums
"""

import sys
from pathlib import Path

from rlred.runs.grpo import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__)))

r"""Policy gradients on the fifth of the tokens with the highest entropy: forking tokens (2506.01939).

DAPO-style GRPO (clip 0.2 / 0.28, no KL term, soft overlong punishment in the paper's setting) whose loss is masked by
rlred/training/token_selection.py: the threshold is over the whole rollout batch, the share exact, the loss divided by
all tokens as the paper writes it (`divide_by: selected` is its released code). It goes with any reward:
`recipes/l1_exact.py --selection '{"fraction":0.2}'`. Differs from the paper: LoRA; no dynamic sampling.

CPU, minutes    accelerate launch recipes/forking_tokens.py
one GPU         accelerate launch recipes/forking_tokens.py --config recipes/forking_tokens_qwen3_8b.yaml
eight GPUs      accelerate launch --config_file accelerate_configs/zero2.yaml recipes/forking_tokens.py \
                    --config recipes/forking_tokens_qwen3_8b.yaml
resume          add --resume_from_checkpoint true
"""

import sys
from pathlib import Path

from rlred.runs.grpo import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__)))

r"""Thinking with fewer words: a model learns to think at the ratio that it is asked for (TokenSkip, 2502.12067).

traces -> scores -> rows -> LoRA SFT -> evaluation by ratio; each stage is on disk and not done twice. Differs from the
paper: numbers, operators, formulas, newlines and the answer are never cut; a text is scored once; a row asks for a
ratio that it has; the completion cap is the same at every ratio; with `--controls random`, random deletion is trained
and measured beside it.

CPU             python recipes/tokenskip.py
one GPU         python recipes/tokenskip.py --config recipes/tokenskip_qwen2.5_7b_gsm8k.yaml
eight GPUs      accelerate launch --config_file accelerate_configs/ddp.yaml recipes/tokenskip.py \
                    --config recipes/tokenskip_qwen2.5_7b_gsm8k.yaml
stage by stage  rlred compress traces|scores|rows --help
controls        add --controls random, to a finished run with --resume_from_checkpoint true
resume          add --resume_from_checkpoint true
"""

import sys
from pathlib import Path

from rlred.runs.compression import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__)))

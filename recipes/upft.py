r"""Train on the first tokens of the model's own answers, correct or not: unsupervised prefix fine-tuning (2503.02875).

One sample per question, cut to its first tokens without an end-of-sequence token; a share of whole samples beside them
keeps the ending. No answer is graded. Differs from the paper: LoRA. The variants train on the same number of completion
tokens, of the same samples, and are measured alike:

    base   untrained        full   whole samples        rft   whole correct samples        upft   prefixes

CPU             python recipes/upft.py
three seeds     python recipes/upft.py --seeds 0 1 2        (a variant that is there is not run again)
one GPU         python recipes/upft.py --config recipes/upft_paper.yaml
"""

import sys
from pathlib import Path

from rlred.runs.upft import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__)))

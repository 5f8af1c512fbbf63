r"""Train on the tokens that a reference model says can be learned: Rho-1's selective language modeling (2404.07965).

A reference is trained on a little clean text (or named). On much noisy text the excess loss over it picks the tokens
that carry the loss; noise has none. The embedded corpus is long sums, of which a share of the running totals is
incorrect. Every variant sees the same rows, and is measured alike:

    plain     all tokens                             static    the highest share of the whole corpus, scored once
    dynamic   the highest share of each batch        random    a random share of each batch

CPU             python recipes/rho1.py
three seeds     python recipes/rho1.py --seeds 0 1 2        (a variant that is there is not run again)
one GPU         python recipes/rho1.py --config recipes/rho1_paper.yaml
"""

import sys
from pathlib import Path

from rlred.runs.rho1 import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__)))

r"""Self-estimated budgets: from a model that keeps a budget to one that chooses it (TALE, 2412.18547).

The adapter of recipes/l1_maxlen.py is asked every question at every budget, down to where it is correct no more; its
last correct completion becomes the target of the same question asked without a budget. Differs from the paper: the
searching model keeps budgets, which a prompt alone does not make it do; SFT only, no DPO.

CPU, minutes    python recipes/tale.py
a real model    python recipes/tale.py --adapter ADAPTER --questions QUESTIONS --budgets 256 512 1024 2048
"""

import sys
from pathlib import Path

from rlred.runs.tale import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__)))

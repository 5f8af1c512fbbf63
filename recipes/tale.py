r"""Self-estimated budgets: from a model that keeps a budget to one that chooses it (TALE, 2412.18547).

The adapter of recipes/l1_maxlen.py is asked every question at every budget, down to where it is right no more; its last
right completion becomes the target of the same question asked without a budget. Differs from the paper: the searching
model keeps budgets, which a prompt alone does not make it do; SFT only, no DPO.

CPU, minutes    python recipes/tale.py
a real model    python recipes/tale.py --adapter ADAPTER --questions QUESTIONS --budgets 256 512 1024 2048
"""

import logging
import sys
from pathlib import Path

from transformers import HfArgumentParser

from rlred.runs.chassis import use_all_cores
from rlred.runs.tale import TaleArguments, run


def main() -> int:
    """A wrong value is one clear line and exit status 2."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    use_all_cores()
    parser = HfArgumentParser(TaleArguments)
    parser.set_defaults(adapter=str(Path(__file__).resolve().parents[1] / "data" / "l1_maxlen"))
    [arguments] = parser.parse_args_into_dataclasses()
    try:
        run(arguments)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print((Path(arguments.output_dir) / "adherence.md").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())

r"""Think fast about what is easy, slowly about what is hard (FAST, 2504.18458), with pictures.

The difficulty of a question is the share of incorrect answers in its group. A correct answer to one that is not among
the hardest fifth of a batch gets 0.5 (1 - n / mean length) more, not below -0.25; an incorrect answer to one of the
hardest gets 0.5 (n / mean length - 1), at most 0.5. The KL weight runs from 0.001, for a group that is never correct,
to 0.01, for one that always is.

The whole picture stands in the prompt. The embedded default shows the mechanics only: the tiny VLM answers in one
word, so there is no length to learn; recipes/fast.py has one, on text, and the differences from the paper.

CPU, minutes    python recipes/fast_vision.py
one GPU         accelerate launch recipes/fast_vision.py --config recipes/fast_vision_qwen2.5_vl_3b.yaml
"""

import sys
from pathlib import Path

from rlred.runs.visual import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__)))

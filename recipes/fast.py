r"""Think fast about what is easy, slowly about what is hard (FAST, 2504.18458), on text.

The difficulty of a question is the share of incorrect answers in its group. A correct answer to one that is not among
the hardest fifth of a batch gets 0.5 (1 - n / mean length) more, not below -0.25; an incorrect answer to one of the
hardest gets 0.5 (n / mean length - 1), at most 0.5. The KL weight runs from 0.001, for a group that is never correct,
to 0.01, for one that always is.

FAST is a method for models that see; its mechanism is the length of the reasoning. So the embedded default is the tiny
reasoner, whose questions differ in length and in difficulty: the tiny VLM answers in one word, and has nothing to
shorten. For Qwen2.5-VL: recipes/fast_vision.py.

Differs from the paper: length in tokens (the code counts characters), every correct answer of an easy question is
rewarded (the code rewards the first four fifths), the brevity term is clipped below, difficulty without the pictures'
complexity, no Slow2Fast filter of the questions, no format reward, LoRA, no division by the group's standard deviation.

CPU, minutes    accelerate launch recipes/fast.py
resume          add --resume_from_checkpoint true
"""

import sys
from pathlib import Path

from rlred.runs.grpo import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__)))

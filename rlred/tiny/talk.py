r"""The tiny verbose model's language: the sums of sums.py, thought through with more words than they need.

The tiny reasoner's own thinking is numbers and operators only, which nothing may cut. The verbose model says one line
for each addition, with an equation that is needed and words that are not:

    Let's think step by step and 3+7=10 for the step.
    Think and check the step 10+2=12 exactly.
    the final answer</think>\boxed{12}

Which words it says is chance. Every word is one token of the tiny reasoner's tokenizer.
"""

import random
from itertools import accumulate

BEFORE = (
    " Let's think step by step and",
    " Think and check the step",
    " Let's output the final step",
    " Let's check and think for the step",
)
AFTER = (" for the step.", " within the answer.", " exactly.", ".")
CLOSING = " the final answer"


def trace(addends: list[int], rng: random.Random) -> str:
    r"""The completion of a sum; the prompt has opened the thinking.

    >>> trace([3, 7], random.Random(0))
    " Let's check and think for the step 3+7=10.\n the final answer</think>\\boxed{10}"
    """
    totals = list(accumulate(addends))
    lines = [
        f"{rng.choice(BEFORE)} {before}+{addend}={total}{rng.choice(AFTER)}\n"
        for before, addend, total in zip(totals, addends[1:], totals[1:], strict=False)
    ]
    return "".join(lines) + f"{CLOSING}</think>\\boxed{{{totals[-1]}}}"

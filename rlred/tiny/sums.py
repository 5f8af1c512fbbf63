r"""The embedded task: long sums of one-digit numbers, thought through one addition at a time.

A question is "3+7+2=?". Its thinking is an endless, deterministic stream: first the additions, then the word "check",
again and again. After each of them the reasoner notes how many tokens it has spent on thinking so far,

    3+7=10 6+2=12 11 check 13 check 15 check 17 check ...

and a trace is that stream, ended at any note, then `</think>\boxed{12}`. So the only choice a reasoner makes is *when
to stop*. Inside the additions the rest of the sum must be guessed (thinking buys accuracy); later it is known (more
thinking buys nothing). Notes are five tokens apart in the additions and two in the checks, so a trace can end within
two tokens of any length.

Questions are procedural. Train and test never overlap: a sum belongs to the split that a hash of its text names.
"""

import random
import zlib
from collections.abc import Iterator
from itertools import islice

MIN_ADDENDS, MAX_ADDENDS = 3, 12
# How many numbers a sum has. The tiny reasoner has never seen long_sums; short_sums are the tiny verbose
# model's. The tiny hybrid model's mixed_sums have few enough to be added without thinking (head_sums), or far too many.
FAMILIES = {
    "sums": range(MIN_ADDENDS, MAX_ADDENDS + 1),
    "long_sums": range(13, 16),
    "short_sums": range(3, 7),
    "head_sums": (2, 3, 3, 3),
    "mixed_sums": (2, 3, 3, 3, *range(6, MAX_ADDENDS + 1)),
}
TEST_SHARE = 10  # one sum in ten is a test question


def split_of(question: str) -> str:
    """`train` or `test`, decided by the text alone.

    >>> split_of("3+7+2+9=?"), split_of("1+2+3+4=?")
    ('train', 'train')
    """
    return "test" if zlib.crc32(question.encode()) % TEST_SHARE == 0 else "train"


def sample_addends(rng: random.Random, split: str, family: str = "sums") -> list[int]:
    """Numbers from 1 to 9, as many as the family has, whose sum belongs to `split`."""
    while True:
        addends = [rng.randint(1, 9) for _ in range(rng.choice(FAMILIES[family]))]
        if split_of(question_of(addends)) == split:
            return addends


def question_of(addends: list[int]) -> str:
    """The text of a question.

    >>> question_of([3, 7, 2])
    '3+7+2=?'
    """
    return "+".join(map(str, addends)) + "=?"


def questions(n: int, split: str, seed: int = 0, family: str = "sums") -> list[dict[str, str]]:
    """`n` question rows (`question`, `solution`, `level`), without duplicates.

    The level says how much thinking a sum needs: up to 5 numbers are easy, 10 and more are hard.

    >>> questions(2, "test")[0]["question"] == questions(1, "test")[0]["question"]
    True
    """
    rng = random.Random(f"{family}/{split}/{seed}")
    rows: dict[str, dict] = {}
    while len(rows) < n:
        addends = sample_addends(rng, split, family)
        level = "easy" if len(addends) <= 5 else "hard" if len(addends) >= 10 else "medium"
        rows[question_of(addends)] = {"solution": str(sum(addends)), "level": level}
    return [{"question": question, **row} for question, row in rows.items()]


def thoughts(addends: list[int]) -> Iterator[str]:
    """The endless stream of thinking, one token at a time.

    >>> "".join(islice(thoughts([3, 7, 2]), 15))
    '3+7=10 6+2=12 11 check 13 check 15'
    """
    total, spent = addends[0], 1
    yield str(total)
    for addend in addends[1:]:
        total, spent = total + addend, spent + 5
        yield from ("+", str(addend), "=", str(total), f" {spent}")
    while True:
        spent += 2
        yield from (" check", f" {spent}")


def num_necessary(addends: list[int]) -> int:
    """Tokens of thinking until the sum is known: 1 + 5 per addition.

    >>> num_necessary([3, 7, 2])
    11
    """
    return 5 * len(addends) - 4


def trace(addends: list[int], num_tokens: int) -> str:
    r"""The completion whose thinking ends at the last note within `num_tokens`; the prompt has opened the thinking.

    >>> trace([3, 7, 2], 8)
    '3+7=10 6</think>\\boxed{12}'
    """
    necessary = num_necessary(addends)
    step = 5 if num_tokens < necessary else 2
    end = num_tokens - (num_tokens - necessary) % step
    return "".join(islice(thoughts(addends), max(1, end))) + answer(addends)


def answer(addends: list[int]) -> str:
    r"""The end of the thinking and what follows it; alone, a completion without thinking.

    >>> answer([3, 7, 2])
    '</think>\\boxed{12}'
    """
    return f"</think>\\boxed{{{sum(addends)}}}"

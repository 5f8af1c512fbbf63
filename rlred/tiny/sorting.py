r"""The second embedded task: the k-th smallest of some numbers, found by taking them in order; nobody counts tokens.

A question is "Which is number 3 in order of 45 12 79 33 60?". Its thinking takes the smallest numbers one by one, and
says after some of them, at random, which are left; then it says the last of them again, any number of times:

    take 12 left 45 79 33 60 take 33 take 45 left 79 60 check 45 check 12 33 45</think>\boxed{45}

So a step has 3 to 18 tokens (a digit is one), and nothing in the trace says how long it is. Thinking buys accuracy: who
stops early must find the number without having sorted.

Questions are procedural. Train and test never overlap: a question belongs to the split that a hash of its text names.
"""

import random
from collections.abc import Iterator

from rlred.tiny.sums import split_of

MIN_NUMBERS, MAX_NUMBERS = 3, 8
SAY_LEFT = 0.5  # share of the steps that say which numbers are left
MOST_CHECKED = 4  # numbers that a check says again, at most
FAMILY = "sorting"
PRACTICE_WORDS = ("take", "left", "check")


def question_of(numbers: list[int], rank: int) -> str:
    """The text of a question.

    >>> question_of([45, 12, 79], 2)
    'Which is number 2 in order of 45 12 79?'
    """
    return f"Which is number {rank} in order of {' '.join(map(str, numbers))}?"


def sample_question(rng: random.Random, split: str) -> tuple[list[int], int]:
    """Different numbers of two digits, and which of them is asked for; the text belongs to `split`."""
    while True:
        numbers = rng.sample(range(10, 100), rng.randint(MIN_NUMBERS, MAX_NUMBERS))
        rank = rng.randint(1, len(numbers))
        if split_of(question_of(numbers, rank)) == split:
            return numbers, rank


def questions(n: int, split: str, seed: int = 0) -> list[dict[str, str]]:
    """`n` question rows (`question`, `solution`, `level`), without duplicates.

    The level says how much there is to take: number 1 or 2 is easy, number 5 and later ones are hard.

    >>> questions(2, "test")[0] == questions(1, "test")[0]
    True
    """
    rng = random.Random(f"{FAMILY}/{split}/{seed}")
    rows: dict[str, dict] = {}
    while len(rows) < n:
        numbers, rank = sample_question(rng, split)
        level = "easy" if rank <= 2 else "hard" if rank >= 5 else "medium"
        rows[question_of(numbers, rank)] = {"solution": str(sorted(numbers)[rank - 1]), "level": level}
    return [{"question": question, **row} for question, row in rows.items()]


def steps(numbers: list[int], rank: int, rng: random.Random) -> Iterator[str]:
    """The endless stream of thinking, one step at a time: `rank` numbers are taken, then they are checked.

    >>> stream = steps([45, 12, 79], 2, random.Random(0))
    >>> [next(stream) for _ in range(3)]
    [' take 12', ' take 45', ' check 12 45']
    """
    left, taken = list(numbers), []
    for _ in range(rank):
        taken.append(min(left))
        left.remove(taken[-1])
        says = f" left {' '.join(map(str, left))}" if left and rng.random() < SAY_LEFT else ""
        yield f" take {taken[-1]}{says}"
    while True:
        last = rng.randint(1, min(MOST_CHECKED, rank))
        yield f" check {' '.join(map(str, taken[-last:]))}"


def num_tokens(text: str) -> int:
    """Tokens of steps: one for a word, one for a digit.

    >>> num_tokens(" take 12 left 45 79")
    8
    """
    return sum(len(word) if word.isdigit() else 1 for word in text.split())


def trace(numbers: list[int], rank: int, most: int, rng: random.Random) -> str:
    r"""The completion whose thinking is at most so many tokens, whole steps; the prompt has opened the thinking.

    >>> trace([45, 12, 79], 2, 12, random.Random(0))
    ' take 12 take 45 check 12 45</think>\\boxed{45}'
    """
    text, spent = "", 0
    for step in steps(numbers, rank, rng):
        spent += num_tokens(step)
        if spent > most:
            break
        text += step
    return text + answer(numbers, rank)


def answer(numbers: list[int], rank: int) -> str:
    r"""The end of the thinking and what follows it; alone, a completion without thinking.

    >>> answer([45, 12, 79], 2)
    '</think>\\boxed{45}'
    """
    return f"</think>\\boxed{{{sorted(numbers)[rank - 1]}}}"


def practice(rng: random.Random, writing: float = 0.5) -> tuple[str, str]:
    r"""A question about words and its completion: how many there are, or to write one so many times.

    What every pretrained model can do a little, and a model that has only seen sorting cannot: count what it reads, and
    follow a number in a prompt. `writing` is the share of the second kind. Small numbers are as frequent as large ones.

    >>> practice(random.Random(2), writing=0)
    ('How many words are take check?', '</think>\\boxed{2}')
    >>> practice(random.Random(2), writing=1)
    ('Write take 2 times.', ' take take</think>\\boxed{2}')
    """
    count, word = rng.randint(1, rng.choice((9, 20, 80))), rng.choice(PRACTICE_WORDS)
    if rng.random() >= writing:
        words = " ".join(rng.choice(PRACTICE_WORDS) for _ in range(count))
        return f"How many words are {words}?", f"</think>\\boxed{{{count}}}"
    return f"Write {word} {count} times.", f" {word}" * count + f"</think>\\boxed{{{count}}}"

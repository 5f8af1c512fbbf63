r"""Correctness: 1 for the right answer, 0 for a wrong one; the object that every other reward asks."""

import re
from dataclasses import dataclass

from . import grader
from .base import Grader

_BRACES = re.compile(r"\\boxed\s*\{|\\[{}]|[{}]")  # an escaped brace is matched, and ignored


def text_of(completion) -> str:
    """The text of a completion as TRL passes it: a string, or a list of messages."""
    return completion if isinstance(completion, str) else completion[-1]["content"] or ""


def last_boxed(text: str) -> str | None:
    r"""The content of the last complete `\boxed{...}`, nested braces included; None where there is none.

    Linear in the length of the text.

    >>> last_boxed(r"so \boxed{1} or \boxed{\frac{1}{2}} it is")
    '\\frac{1}{2}'
    >>> last_boxed(r"\boxed{never closed") is None
    True
    """
    opened: list[int | None] = []  # for each open brace: where its box starts, None for a plain brace
    start, end = -1, -1
    for match in _BRACES.finditer(text):
        brace = match.group()
        if brace == "}":
            box = opened.pop() if opened else None
            if box is not None and box > start:
                start, end = box, match.start()
        elif brace == "{":
            opened.append(None)
        elif brace[-1] == "{" and brace.startswith("\\boxed"):
            opened.append(match.end())
    return None if start < 0 else text[start:end]


@dataclass(frozen=True)
class Correctness(Grader):
    r"""1.0 where the boxed answer equals the solution, else 0.0; None where the solution cannot be parsed.

    The answer is the last `\boxed{...}` after the last `end_of_thinking`. With `require_end_of_thinking`, a completion
    that never ends its thinking is wrong, as in L1's released code; without it, such a text is searched whole. Equality
    is math-verify's, under a hard limit of `seconds` per answer in every thread and process (of a whole batch:
    `grader.equal_all`): a hostile answer is wrong, it does not hang and it does not raise.

    Range: {0.0, 1.0} or None. Raises `ValueError` for a limit outside (0, 2].

    >>> Correctness()(["</think> It is \\boxed{\\frac{1}{2}}", "0.5"], solution=["0.5", "0.5"])
    [1.0, 0.0]
    """

    end_of_thinking: str = "</think>"
    require_end_of_thinking: bool = False
    seconds: float = 1.0

    __name__ = "correctness"

    def __post_init__(self):
        if not self.end_of_thinking:
            raise ValueError("correctness.end_of_thinking is empty; name the text that ends the thinking")
        if not 0 < self.seconds <= 2:
            raise ValueError(f"correctness.seconds must be above 0 and at most 2, got {self.seconds}")

    def answer_of(self, text: str) -> str:
        """What is in the box; empty where there is none to be graded."""
        thinking, end, answer = text.rpartition(self.end_of_thinking)
        if self.require_end_of_thinking and not end:
            boxed = None
        else:
            boxed = last_boxed(answer)
        # A solution that cannot be read is found out even when there is no answer to compare with.
        return "" if boxed is None else boxed

    def grade(self, text: str, solution: str) -> float | None:
        """The grade of one text."""
        equal = grader.equal(str(solution), self.answer_of(text), self.seconds)
        return None if equal is None else float(equal)

    def reads(self, solution: str) -> bool:
        """Whether the solution can be parsed, so that every completion gets a grade.

        >>> Correctness().reads("0.5"), Correctness().reads("")
        (True, False)
        """
        return self.grade("", solution) is not None

    def __call__(self, completions, solution, **kwargs) -> list[float | None]:
        answers = [self.answer_of(text_of(text)) for text in completions]
        equal = grader.equal_all(list(zip(map(str, solution), answers, strict=True)), self.seconds)
        return [None if value is None else float(value) for value in equal]

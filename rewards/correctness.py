r"""Correctness: 1 for a correct answer, 0 for an incorrect one; the object that every other reward asks."""

import math
import re
from dataclasses import dataclass

from . import grader
from .base import Grader

_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\\\(?!boxed|fbox)|\\[{}]|[{}]")  # an escaped brace is ignored
_BARE = re.compile(  # TeX boxes the next token where there are no braces; a number is taken whole
    r"\\(?:boxed|fbox)(?:\s*([+-]?\d[\d.,/]*|\\[dt]?frac\s*(?:\{[^{}]{1,99}\}|\d)\s*(?:\{[^{}]{1,99}\}|\d))|\s+([A-Za-z])(?![A-Za-z]))"
)
# Between two boxes of one answer: `\boxed{2}$ and $x=\boxed{3}`.
_BETWEEN = re.compile(r"[\s$\\()\[\]]*(?:,|;|and|or|,\s*and|,\s*or|&)[\s$\\()\[\]]*(?:[A-Za-z](?:_\{?\w\}?)?\s*=\s*)?")
_BETWEEN_CHARACTERS = 40
_MISSING = frozenset({"nan", "<na>", "nat"})  # what a missing value of a table becomes as text
_SENTENCE = re.compile(
    r"(?:^|[.!?\n]\s*|,\s*)(?:so |thus |hence |therefore,? )?(?:the|our|my) (?:final |correct )?answer is:? ?", re.I
)
_SILENT_ROLES = frozenset({"tool", "function", "user", "system", "developer"})  # whose message answers nothing


def text_of(completion) -> str:
    """The text of a completion as TRL passes it: a string, or a list of messages, of which the last one answers.

    Content in parts is joined; a tool's message, a message without content and no message at all are empty.

    >>> text_of([{"role": "assistant", "content": [{"type": "text", "text": "It is 4."}]}]), text_of([])
    ('It is 4.', '')
    """
    if isinstance(completion, str) or not completion:
        return completion or ""
    message = completion if isinstance(completion, dict) else completion[-1]
    if isinstance(message, str):
        return message
    if not isinstance(message, dict) or message.get("role") in _SILENT_ROLES:
        return ""
    content = message.get("content")
    if isinstance(content, list | tuple):
        parts = [part.get("text") if isinstance(part, dict) else part for part in content]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _thinks_apart(completion) -> bool:
    """Whether the thinking stands in a field of its own, so that the content is what comes after it."""
    message = completion[-1] if isinstance(completion, list | tuple) and completion else completion
    return isinstance(message, dict) and bool(message.get("reasoning_content"))


def find_boxes(text: str) -> list[tuple[int, int, int]]:
    r"""The boxes, an inner one instead of its outer: where `\boxed` starts, where its content starts and ends.

    A box without braces (`\boxed 7`) counts after the last one with braces only.
    """
    first = [place for place in (text.find("\\boxed"), text.find("\\fbox")) if place >= 0]
    if not first:
        return []
    opened: list[tuple[int, int] | None] = []  # for each open brace: its box, None for a plain brace
    found: list[tuple[int, int, int]] = []
    for match in _BRACES.finditer(text, min(first)):
        brace = match.group()
        if brace == "}":
            box = opened.pop() if opened else None
            if box is not None and (not found or box[1] > found[-1][1]):
                found.append((*box, match.start()))
        elif brace == "{":
            opened.append(None)
        elif brace.endswith("{") and len(brace) > 2:
            opened.append((match.start(), match.end()))
    for match in _BARE.finditer(text, found[-1][2] if found else min(first)):
        group = 1 if match[1] else 2
        found.append((match.start(), match.start(group), match.start(group) + len(match[group].rstrip(".,"))))
    return found


def last_boxed(text: str) -> str | None:
    r"""The content of the last complete `\boxed{...}`, nested braces included; None where there is none.

    `\fbox{7}`, `\boxed 7` and `\boxed7` are boxes too. Linear in the length of the text.

    >>> last_boxed(r"so \boxed{1} or \boxed{\frac{1}{2}} it is")
    '\\frac{1}{2}'
    >>> last_boxed(r"\boxed{never closed") is None, last_boxed(r"It is $\boxed 7$.")
    (True, '7')
    """
    boxes = find_boxes(text)
    return text[boxes[-1][1] : boxes[-1][2]] if boxes else None


def boxed_answer(text: str) -> str | None:
    r"""The last box, with those before it that only a comma, `and` or `or` separates from it.

    >>> boxed_answer(r"$x=\boxed{2}$ and $x=\boxed{3}$"), boxed_answer(r"\boxed{4} is too small, so \boxed{9}")
    ('2, 3', '9')
    """
    boxes = find_boxes(text)
    if not boxes:
        return None
    joined = [text[boxes[-1][1] : boxes[-1][2]]]
    for before, after in zip(boxes[-2::-1], boxes[:0:-1], strict=True):
        between = text[before[2] + 1 : after[0]]
        if len(between) > _BETWEEN_CHARACTERS or _BETWEEN.fullmatch(between) is None or len(joined) > 20:
            break
        joined.append(text[before[1] : before[2]])
    return ", ".join(reversed(joined))


def golds_of(solution) -> list[str]:
    r"""The texts of which any is correct, of a solution as a row has it; empty where there is nothing to compare with.

    A list holds alternatives. None, NaN and empty texts are none. Of a worked solution, the final answer is taken: what
    follows `####`, the last box, or what "the answer is".

    >>> golds_of(["842.17", "842"]), golds_of(26.0), golds_of(float("nan")), golds_of("6*7=42\n#### 42")
    (['842.17', '842'], ['26'], [], ['42'])
    """
    if isinstance(solution, str) and solution.isalnum() and solution.isascii() and solution[0].isdigit():
        return [solution]  # most of GSM8K
    if hasattr(solution, "tolist"):  # numpy's arrays and numbers
        solution = solution.tolist()
    if isinstance(solution, list | tuple | set | frozenset):
        return [text for item in solution for text in golds_of(item)]
    if solution is None or isinstance(solution, dict) or isinstance(solution, float) and math.isnan(solution):
        return []
    if isinstance(solution, float) and solution.is_integer():
        solution = int(solution)
    text = str(solution)
    if len(text) <= 50 * grader.MAX_CHARACTERS:
        if "####" in text:
            text = text.rpartition("####")[2]
        elif "\\boxed" in text or "\\fbox" in text:
            text = boxed_answer(text) or ""
        elif len(said := _SENTENCE.split(text)) > 1 and said[-1].strip(" ."):
            text = said[-1]
    text = text.strip()
    return [] if not text or text.lower() in _MISSING else [text]


@dataclass(frozen=True)
class Correctness(Grader):
    r"""1.0 where the boxed answer equals the solution, else 0.0; None where the solution cannot be read.

    The answer is the last `\boxed{...}` after the last `end_of_thinking`; a model without such a mark has None, and the
    whole text is searched. With `require_end_of_thinking`, a completion that never ends its thinking is incorrect, as
    in L1's released code; without it, such a text is searched whole. A solution is a text (all its values are asked
    for), a number, or a list of alternatives of which any is correct; None, NaN and empty ones give None. Equality is
    math-verify's with the forms of `rewards/grading/forms.py` around it, under a hard limit of `seconds` per answer in
    every thread and process (of a whole batch: `grader.equal_all`): a hostile answer is incorrect, it does not hang and
    it does not raise.

    Range: {0.0, 1.0} or None. Raises `ValueError` for a limit outside (0, 2], for `require_end_of_thinking` without a
    mark, and on a system without Linux's limits.

    >>> Correctness()(["</think> It is \\boxed{\\frac{1}{2}}", "0.5"], solution=["0.5", "0.5"])
    [1.0, 0.0]
    >>> Correctness()(["\\boxed{842}", "\\boxed{7}"], solution=[["842.17", "842"], "7, 31"])
    [1.0, 0.0]
    """

    end_of_thinking: str | None = "</think>"
    require_end_of_thinking: bool = False
    seconds: float = 1.0

    __name__ = "correctness"

    def __post_init__(self):
        super().__post_init__()
        if self.end_of_thinking is not None and not isinstance(self.end_of_thinking, str):
            raise ValueError(f"correctness.end_of_thinking must be a text or None, got {self.end_of_thinking!r}")
        if self.require_end_of_thinking and not self.end_of_thinking:
            raise ValueError("correctness.require_end_of_thinking needs correctness.end_of_thinking, which is empty")
        if not 0 < self.seconds <= 2:
            raise ValueError(f"correctness.seconds must be above 0 and at most 2, got {self.seconds}")
        grader.check_system()

    def after_thinking(self, text: str) -> str | None:
        """The text after the last `end_of_thinking`; all of it where there is none, or None if one is required."""
        if not self.end_of_thinking:
            return text
        _, end, answer = text.rpartition(self.end_of_thinking)
        return None if self.require_end_of_thinking and not end else answer

    def answer_of(self, text: str) -> str:
        """What is in the box; empty where there is none to be graded."""
        return self._boxed(self.after_thinking(text))

    @staticmethod
    def _boxed(text: str | None) -> str:
        # A solution that cannot be read is found out even when there is no answer to compare with.
        boxed = None if text is None else boxed_answer(text)
        return "" if boxed is None else boxed

    def _answer_of_completion(self, completion) -> str:
        text = text_of(completion)
        return self._boxed(text) if _thinks_apart(completion) else self.answer_of(text)

    def grade(self, text: str, solution) -> float | None:
        """The grade of one text."""
        return self([text], solution=[solution])[0]

    def reads(self, solution) -> bool:
        """Whether the solution can be read, so that every completion gets a grade.

        >>> Correctness().reads("0.5"), Correctness().reads("")
        (True, False)
        """
        return self.grade("", solution) is not None

    def __call__(self, completions, solution, **kwargs) -> list[float | None]:
        golds: dict[str, list[str]] = {}  # the completions of a group have one solution, which may be a long one

        def read(wanted) -> list[str]:
            if not isinstance(wanted, str):
                return golds_of(wanted)
            if wanted not in golds:
                golds[wanted] = golds_of(wanted)
            return golds[wanted]

        rows = [
            [(gold, answer) for gold in read(wanted)]
            for wanted, answer in zip(solution, map(self._answer_of_completion, completions), strict=True)
        ]
        found = iter(grader.equal_all([pair for pairs in rows for pair in pairs], self.seconds))
        return [_any([next(found) for _ in pairs]) for pairs in rows]


def _any(equal: list[bool | None]) -> float | None:
    """One alternative that is equal is enough; no opinion where none can be read."""
    if True in equal:
        return 1.0
    return 0.0 if False in equal else None

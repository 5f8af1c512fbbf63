r"""The spans of a chain of thought: stretches of the original string that are kept or dropped whole.

Numbers, operators, equations, formulas, boxes, code and newlines are *protected*: they are what a reader, and a grader,
cannot do without, and they are never cut. Words and other punctuation may go. TokenSkip's released pipeline has no such
rule, and loses operators, newlines and `\boxed` (reference: cot-compression, 1.2).
"""

import re
from dataclasses import dataclass

_NUMBER = r"[$€£]?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?"
_OPERAND = rf"(?:[-+]?{_NUMBER}|\([-+\d\s.,*/$]+\)|(?<![A-Za-z])[A-Za-z](?![A-Za-z]))"
_OPERATOR = r"[-+*/^=<>×÷·±≤≥≠≈]"
_PATTERNS = (
    ("code", r"```.*?(?:```|\Z)|`[^`\n]+`"),
    ("formula", r"\$\$.+?\$\$|\\\[.+?\\\]|\\\(.+?\\\)"),
    ("formula", r"\$(?=[^\s$])[^$\n]*?(?<=[^\s$])\$(?!\d)"),  # not "$5 and $3": a closing $ follows no blank
    ("calculator", r"<<[^<>\n]*>>"),  # GSM8K's annotations
    ("command", r"\\[A-Za-z]+"),  # and the braces after it, which match() adds
    ("equation", rf"{_OPERAND}(?:\s*(?:{_OPERATOR}|(?<=[\d\s])x(?=[\d\s]))\s*{_OPERAND})+"),
    ("number", rf"(?<![A-Za-z])[-+]?{_NUMBER}"),
    ("newline", r"[^\S\n]*\n\s*"),
    ("operator", _OPERATOR),
    ("word", r"[^\W\d_]+(?:['’-][^\W\d_]+)*"),
    ("other", r"\S"),
)
_UNIT = re.compile("|".join(f"(?P<k{i}>{pattern})" for i, (_, pattern) in enumerate(_PATTERNS)), re.DOTALL)
FREE = ("word", "other")


@dataclass(frozen=True)
class Span:
    """A span of characters. `protected` spans are never dropped."""

    start: int
    end: int
    kind: str

    @property
    def protected(self) -> bool:
        """Whether this span is kept at every ratio."""
        return self.kind not in FREE


def split_spans(text: str) -> list[Span]:
    r"""The spans of a text, in order. Together they hold every character but blanks between them.

    >>> text = "So she pays 3 + 4 = $7 a day.\nIt is \\boxed{7}."
    >>> [text[span.start : span.end] for span in split_spans(text) if span.protected]
    ['3 + 4 = $7', '\n', '\\boxed{7}']
    """
    spans, position = [], 0
    while match := _UNIT.search(text, position):
        kind = _PATTERNS[int(match.lastgroup[1:])][0]
        end = match.end()
        if kind == "command":
            while end < len(text) and text[end] == "{":
                closed = _closing_brace(text, end)
                if closed is None:
                    break
                end = closed
        spans.append(Span(match.start(), end, kind))
        position = max(end, match.start() + 1)
    return spans


def _closing_brace(text: str, start: int) -> int | None:
    """The index after the brace that closes the one at `start`; None where none does."""
    depth = 0
    for match in re.compile(r"\\[{}]|[{}]").finditer(text, start):
        if match.group() == "{":
            depth += 1
        elif match.group() == "}":
            depth -= 1
            if depth == 0:
                return match.end()
    return None

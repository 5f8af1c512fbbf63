r"""Intervals, unions and inequalities of one unknown as sets of numbers.

`x < 2 or x > 5` is `(-\infty,2)\cup(5,\infty)`.
"""

import re

from . import judge
from .splitting import split_at

_RELATION = re.compile(r"(\\le(?![a-zA-Z])|\\ge(?![a-zA-Z])|\\ne(?![a-zA-Z])|<|>)")
_NAME = re.compile(r"(?:\\?[a-zA-Z]+(?:_\{\w+\})?)(?:\([a-z]\))?$")
_MEMBER = re.compile(r"^\s*(\\?[a-zA-Z]+(?:_\{\w+\})?)\s*\\in(?![a-zA-Z])\s*(.*)$", re.S)
_LETTER = re.compile(r"(?<![\\a-zA-Z])[a-df-hj-zA-Z](?![a-zA-Z])")  # e and i are numbers


def looks_like_a_set(text: str) -> bool:
    """Whether a text writes an interval that cannot be a point, a union, an inequality, or a line without points."""
    half_open = re.match(r"^(?:\(.*\]|\[.*\))$", text, re.S)
    marks = re.search(
        r"\\cup|\\le(?![a-zA-Z])|\\ge(?![a-zA-Z])|\\ne(?![a-zA-Z])|<|>|\\setminus|\\backslash|\\mathbb|\\infty", text
    )
    return bool(half_open or marks)


def _number(text: str):
    """The sympy number that a border writes; None for one with unknowns."""
    found = judge.value(text.replace("+\\infty", "\\infty").strip())
    return found if found is not None and getattr(found, "is_extended_real", None) and not found.free_symbols else None


def _interval(text: str):
    import sympy

    inner = split_at(text[1:-1], ",")
    if len(inner) != 2 or text[0] not in "([" or text[-1] not in ")]":
        return None
    low, high = _number(inner[0]), _number(inner[1])
    if low is None or high is None or not bool(low < high):
        return None
    return sympy.Interval(low, high, left_open=text[0] == "(", right_open=text[-1] == ")")


def _chain(text: str) -> tuple[str, object] | None:
    """The unknown and the set of `3 \\le x < 8` or `x \\ne 9`."""
    import sympy

    parts = [part.strip() for part in _RELATION.split(text)]
    if len(parts) < 3:
        return None
    names = {part for part in parts[::2] if _NAME.match(part) and _number(part) is None}
    if len(names) != 1:
        return None
    found = sympy.S.Reals
    for left, sign, right in zip(parts[:-2:2], parts[1::2], parts[2::2], strict=True):
        if left in names:
            border = _number(right)
        else:
            border = _number(left)
            sign = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}.get(sign, sign)
            if right not in names:
                return None
        if border is None:
            return None
        half = {
            "<": sympy.Interval.open(-sympy.oo, border),
            "\\le": sympy.Interval(-sympy.oo, border),
            ">": sympy.Interval.open(border, sympy.oo),
            "\\ge": sympy.Interval(border, sympy.oo),
            "\\ne": sympy.S.Reals - sympy.FiniteSet(border),
        }[sign]
        found = found & half
    return names.pop(), found


def solution_set(text: str) -> tuple[str | None, object] | None:
    r"""The unknown, where one is named, and the sympy set of a cleaned text; None where it writes no set of numbers."""
    import sympy

    name = None
    if (member := _MEMBER.match(text)) is not None:
        name, text = member[1], member[2].strip()
    pieces = split_at(text, r"\cup")
    pieces = split_at(text, "or") if len(pieces) == 1 else pieces
    found = sympy.S.EmptySet
    for piece in pieces:
        piece = piece.strip()
        first, *taken = re.split(r"\\setminus|\\backslash|(?<=[}\])])\s*-\s*(?=\\\{)", piece)
        first = first.strip()
        if first in (r"\mathbb{R}", r"\text{all real numbers}", r"\text{all reals}", "all real numbers", "all reals"):
            part = sympy.S.Reals
        elif first.startswith(r"\{") and first.endswith(r"\}"):
            points = [_number(point) for point in split_at(first[2:-2], ",")]
            part = None if None in points else sympy.FiniteSet(*points)
        elif first[:1] in "([" and first[-1:] in ")]" and len(first) > 2 and not _RELATION.search(first):
            part = _interval(first)
        else:
            chained = _chain(first)
            if chained is None or name not in (None, chained[0]):
                return None
            name, part = chained
        for other in taken:
            points = [_number(point) for point in split_at(re.sub(r"^\\\{|\\\}$", "", other.strip()), ",")]
            part = None if part is None or None in points else part - sympy.FiniteSet(*points)
        if part is None:
            return None
        found = found | part
    return name, found


def same_set(gold: str, answer: str) -> bool | None:
    """Whether both write the same set; None where the gold writes none."""
    left, right = solution_set(gold), solution_set(answer)
    if left is None or right is None:
        return None
    if None not in (left[0], right[0]) and left[0] != right[0]:
        return False
    try:
        return bool(left[1] == right[1] or left[1].symmetric_difference(right[1]).is_empty)
    except Exception:
        return False

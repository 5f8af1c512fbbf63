r"""Intervals, unions and inequalities of one unknown as sets of numbers.

`x < 2 or x > 5` is `(-\infty,2)\cup(5,\infty)`.
"""

import re

from . import judge
from .splitting import split_at, values

_RELATION = re.compile(r"(\\le(?![a-zA-Z])|\\ge(?![a-zA-Z])|\\ne(?![a-zA-Z])|<|>)")
_NAME = re.compile(r"(?:\\?[a-zA-Z]+(?:_\{\w+\})?)(?:\([a-z]\))?$")
_MEMBER = re.compile(r"^\s*(\\?[a-zA-Z]+(?:_\{\w+\})?)\s*\\in(?![a-zA-Z])\s*(.*)$", re.S)
_BUILDER = re.compile(  # {x in R | 2 < x <= 5}
    r"^\\\{ ?(\\?[a-zA-Z]+(?:_\{\w+\})?) ?(?:\\in ?\\mathbb\{R\} ?)?[|:] ?(.*)\\\}$", re.S
)
_EXCEPT = re.compile(
    r"^(?:\\text ?\{ ?)?(?:all (?:real numbers|reals)|\\mathbb\{R\}(?: ?\\text ?\{)?) ?,? ?"
    r"(?:except|but|other than)(?: for)? ?\}? ?"
    r"(?:\\?[a-zA-Z]+ ?(?:=|\\ne) ?)?(.+?)\}?$"
)
_DISTANCE = re.compile(r"^\| ?(\\?[a-zA-Z]+(?:_\{\w+\})?) ?(?:([+-]) ?([^|]+))?\|$")


def looks_like_a_set(text: str) -> bool:
    """Whether a text writes an interval that cannot be a point, a union, an inequality, or a line without points."""
    half_open = re.match(r"^(?:\(.*\]|\[.*\)|\].*|.*\[)$", text, re.S) or _EXCEPT.match(text)
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
    inner = split_at(text[1:-1], ";") if len(inner) == 1 else inner
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
    if len(parts) == 3 and (distance := _DISTANCE.match(parts[0])) is not None:
        return _within(distance, parts[1], _number(parts[2]))
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


def _within(distance: re.Match, sign: str, border) -> tuple[str, object] | None:
    r"""The set of `|x-2| \le 3`."""
    import sympy

    centre = _number(distance[3]) if distance[3] else sympy.S.Zero
    if border is None or centre is None or not bool(border > 0) or sign == "\\ne":
        return None
    centre = centre if distance[2] == "-" else -centre
    strict = sign in ("<", "\\ge")  # the outside of a closed interval is open
    inside = sympy.Interval(centre - border, centre + border, left_open=strict, right_open=strict)
    return distance[1], inside if sign in ("<", "\\le") else sympy.S.Reals - inside


def _usual_brackets(text: str) -> str:
    """`]2, 5[`, as it is written in France, as `(2, 5)`."""
    if not re.match(r"\s*\]", text) and not re.search(r"\[\s*$", text):
        return text
    pieces = [piece.strip() for piece in re.split(r"\\cup(?![a-zA-Z])", text)]
    if not all(re.fullmatch(r"[\[\]][^\[\]]+[\[\]]", piece) for piece in pieces):
        return text
    return " \\cup ".join(
        ("(" if piece[0] == "]" else "[") + piece[1:-1] + (")" if piece[-1] == "[" else "]") for piece in pieces
    )


def _joined(text: str) -> tuple[str | None, object] | None:
    """Several intervals or bounds with commas or `and` between them: all intervals, or where all bounds hold.

    Bounds that exclude each other are meant as cases: `x < -2, x > 2`.
    """
    parts = values(text, False)
    found = [solution_set(part) for part in parts]
    if len(parts) < 2 or len(parts) > 8 or None in found or len({name for name, _ in found} - {None}) > 1:
        return None
    bounds = [_RELATION.search(part) is not None for part in parts]
    if any(bounds) != all(bounds):
        return None
    name, joined = next((name for name, _ in found if name), None), found[0][1]
    for _, other in found[1:]:
        joined = joined & other if all(bounds) else joined | other
    if all(bounds) and joined.is_empty and not re.search(r"(?<![a-zA-Z])and(?![a-zA-Z])|\\land|\\wedge", text):
        joined = found[0][1].union(*(other for _, other in found[1:]))
    return name, joined


def solution_set(text: str) -> tuple[str | None, object] | None:
    r"""The unknown, where one is named, and the sympy set of a cleaned text; None where it writes no set of numbers."""
    import sympy

    name, text = None, _usual_brackets(text)
    if (member := _MEMBER.match(text)) is not None and not _RELATION.search(member[2]):
        name, text = member[1], _usual_brackets(member[2].strip())
    elif (builder := _BUILDER.match(text)) is not None:
        name, text = builder[1], builder[2].strip()
    if (taken := _EXCEPT.match(text)) is not None:
        points = [_number(point) for point in values(taken[1], False)]
        return None if None in points else (name, sympy.S.Reals - sympy.FiniteSet(*points))
    pieces = split_at(text, r"\cup")
    pieces = split_at(text, "or") if len(pieces) == 1 else pieces
    if len(pieces) == 1 and len(values(text, False)) > 1:
        return (found := _joined(text)) and (name or found[0], found[1])
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

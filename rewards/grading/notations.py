r"""Notations that are no formula: choices, times of day, number bases, ratios, tables, orders.

Each function knows one of them. It says True or False where the gold answer is written so, and None where it is not;
`again` compares the parts (`rewards/grading/forms.py`).
"""

import re

from . import vocabulary
from .conventions import BASE_MAY_BE_LEFT_OUT, MODULUS_MAY_BE_LEFT_OUT, OPTION_TEXT_ALONE_IS_ENOUGH
from .exact import rational
from .labels import squeezed
from .spelling import clean

_SAID = r"^(?:(?:the )?(?:(?:correct|right|best) )?(?:option|choice|answer)(?: is|:)?)?\s*"
_CHOICE = re.compile(
    _SAID + r"[(\[]?\s*([A-H])\s*(?:[)\]]\s*[.:,)]?|[.:)])?\s*$",
    re.I,
)
_OPTION = re.compile(
    _SAID + r"[(\[]?\s*([A-H])\s*[)\].:]+\s*(?![,;]|and\b|or\b)(.+)$",
    re.S | re.I,
)
_CLOCK = re.compile(
    r"^(\d{1,2})(?: ?: ?(\d{2}))?(?: ?: ?(\d{2}))? ?([ap]) ?\.? ?m\b\.?$|^(\d{1,2}) ?: ?(\d{2})(?: ?: ?(\d{2}))?$", re.I
)
_BASE = re.compile(r"^\(?([0-9a-zA-Z]+)\)? ?_ ?\{?(?:\\text ?\{)? ?(\w+) ?\}?\}?$")
_MODULUS = re.compile(r"^(?:(.*?)\\equiv)?(.*?)\\pmod\{(\d+)\}$", re.S)
_DERIVATIVE = re.compile(
    r"\\frac ?\{ ?(?:d|\\partial)(?:\^\{\d\})? ?\w* ?\} ?\{ ?(?:(?:d|\\partial) ?\w(?:\^\{\d\})? ?)+\}"
    r"|\\d?dot ?\{ ?\w ?\}|[a-zA-Z]'+(?: ?\([^()]*\))?"
    r"|[a-zA-Z]\^\{\\prime\}(?: ?\([^()]*\))?"
)


def choice(gold: str, answer: str, again) -> bool | None:
    bare = re.sub(r"\\text ?\{([^{}]*)\}", r"\1", gold).strip()
    wanted = re.fullmatch(r"[(\[]?\s*([A-H])\s*[)\]]?[.:]?", bare) or re.fullmatch(
        r"[(\[]\s*([A-H])\s*[)\]]\s*(.+)", bare, re.S
    )
    if wanted is None:
        return None
    given = re.sub(r"\\text ?\{([^{}]*)\}", r"\1", answer).strip()
    found = _CHOICE.match(given) or _OPTION.match(given)
    if found is not None and not found[1].islower():
        return found[1] == wanted[1]
    if OPTION_TEXT_ALONE_IS_ENOUGH and wanted.re.groups == 2:
        return again(clean(wanted[2]), answer)
    return False


def clock(gold: str, answer: str, again) -> bool | None:
    left, right = _minutes(gold), _minutes(answer)
    if left is None or ":" not in gold and left[1] is None:
        return None
    if right is None:
        return None if left[1] is None else False
    if left[1] is not None and right[1] is None and right[0] < 13 * 3600:
        return False  # which half of the day is what was asked
    if left[1] is None and right[1] is not None and left[0] < 13 * 3600:
        return left[0] % (12 * 3600) == right[0] % (12 * 3600)
    return left[0] == right[0]


def _minutes(text: str) -> tuple[int, str | None] | None:
    """The seconds since midnight and the half of the day; None for what is no time of day."""
    found = _CLOCK.match(" ".join(re.sub(r"\\text ?\{([^{}]*)\}", r" \1", text).split()))
    if found is None:
        return None
    hour, minute, second = (int(found[n] or found[m] or 0) for n, m in ((1, 5), (2, 6), (3, 7)))
    half = found[4].lower() if found[4] else None
    if hour > (12 if half else 24) or minute > 59 or second > 59:
        return None
    hour = hour % 12 + 12 * (half == "p") if half else hour
    return hour * 3600 + minute * 60 + second, half


def base(gold: str, answer: str, again) -> bool | None:
    left, right = _in_base(gold), _in_base(answer)
    if left is None:
        return False if right is not None and rational(gold) is not None else None
    if right is None:
        bare = re.sub(r"[() ]", "", answer).lower()
        return BASE_MAY_BE_LEFT_OUT and bare.lstrip("0") == left[0]
    return left == right


def _in_base(text: str) -> tuple[str, int] | None:
    found = _BASE.match(text)
    if found is None:
        return None
    size = int(found[2]) if found[2].isascii() and found[2].isdigit() else vocabulary.BASES.get(found[2].lower(), 0)
    try:
        int(found[1], size) if 2 <= size <= 36 else int("")
    except ValueError:
        return None
    return found[1].lower().lstrip("0"), size


def modulus(gold: str, answer: str, again) -> bool | None:
    left, right = _MODULUS.match(gold), _MODULUS.match(answer)
    if left is None:
        return None if right is None else again(gold, right[2].strip())
    if right is None:
        return MODULUS_MAY_BE_LEFT_OUT and again(left[2].strip(), answer)
    if left[3] != right[3] or None not in (left[1], right[1]) and squeezed(left[1]) != squeezed(right[1]):
        return False
    one, other = rational(left[2].strip()), rational(right[2].strip())
    if None not in (one, other):
        return (one - other) % int(left[3]) == 0
    return again(left[2].strip(), right[2].strip())


def cases(gold: str, answer: str, again) -> bool | None:
    left, right = _branches(gold), _branches(answer)
    if left is None and right is None:
        return None
    if left is None or right is None or len(left) != len(right):
        return False
    return all(any(_same_branch(one, other, again) for other in right) for one in left)


def _branches(text: str) -> list[list[str]] | None:
    found = re.search(r"\\begin\{[dr]?cases\}(.*)\\end\{[dr]?cases\}", text, re.S)
    if found is None:
        return None
    rows = [row for row in re.split(r"\\\\", found[1]) if row.strip()]
    dress = re.compile(r"\\text ?\{\s*,?\s*(?:if|when|for|where)\s*:?\s*\}|(?<![a-zA-Z])(?:if|when|for)(?![a-zA-Z])")
    return [[clean(dress.sub(" ", cell).strip(" ,;")) for cell in row.split("&") if cell.strip()] for row in rows]


def _same_branch(one: list[str], other: list[str], again) -> bool:
    return len(one) == len(other) and all(again(a, b) for a, b in zip(one, other, strict=True))


def matrix(gold: str, answer: str, again) -> bool | None:
    pattern = re.compile(r"\\begin\{pmatrix\}(.*)\\end\{pmatrix\}", re.S)
    left, right = pattern.fullmatch(gold.strip()), pattern.fullmatch(answer.strip())
    if left is None or right is None or "pmatrix" in left[1] + right[1]:
        return None
    one, other = (
        [[clean(cell) for cell in row.split("&")] for row in re.split(r"\\\\", found[1]) if row.strip()]
        for found in (left, right)
    )
    return len(one) == len(other) and all(_same_branch(a, b, again) for a, b in zip(one, other, strict=True))


def sequence(gold: str, answer: str, again) -> bool | None:
    left, right = ("\\ldots" in text and rational(text) is None for text in (gold, answer))
    if not left and not right:
        return None
    if left != right:
        return False
    one, other = (
        [
            clean(part)
            for part in re.split(
                r",|;|(?<=\\ldots)|(?=\\ldots)|(?<=[^\\{(])[+](?=[^}]*$)", re.sub(r"^\\\{|\\\}$|^\(|\)$", "", text)
            )
        ]
        for text in (gold, answer)
    )
    one, other = ([part for part in parts if part] for parts in (one, other))
    return len(one) == len(other) and all(
        a == b or "\\ldots" not in a + b and again(a, b) for a, b in zip(one, other, strict=True)
    )


def arrows(gold: str, answer: str, again) -> bool | None:
    if "\\to" not in gold or re.search(r"\\lim|\\infty", gold):
        return None
    left, right = ([part.strip() for part in re.split(r"\\to(?![a-zA-Z])", text)] for text in (gold, answer))
    return len(left) == len(right) and all(again(a, b) for a, b in zip(left, right, strict=True))


def derivative(gold: str, answer: str, again) -> bool | None:
    r"""`\frac{dy}{dx}`, `y'`, `f'(3)` and `\dot x` are names, not quotients and products."""
    marks = list(
        dict.fromkeys(squeezed(m[0]).replace(" ", "") for text in (gold, answer) for m in _DERIVATIVE.finditer(text))
    )
    if not marks:
        return None
    letters = [f"\\xi_{{{n}}}" for n in range(len(marks))]

    def masked(text):
        return _DERIVATIVE.sub(lambda m: f" {letters[marks.index(squeezed(m[0]).replace(' ', ''))]} ", text)

    return again(clean(masked(gold)), clean(masked(answer)))


def chain(gold: str, answer: str, again) -> bool | None:
    """`P<R<Q`, which may be read from the right."""
    left, right = _relations(gold), _relations(answer)
    if left is None or right is None or len(left[0]) < 3:
        return None
    return left[1] == right[1] and all(
        squeezed(a) == squeezed(b) or again(a, b) for a, b in zip(left[0], right[0], strict=True)
    )


def _relations(text: str) -> tuple[list[str], list[str]] | None:
    parts = [part.strip() for part in re.split(r"(\\le(?![a-zA-Z])|\\ge(?![a-zA-Z])|<|>)", text)]
    terms, signs = parts[::2], parts[1::2]
    if not signs or not all(terms):
        return None
    if set(signs) <= {">", "\\ge"}:
        terms, signs = terms[::-1], ["<" if sign == ">" else "\\le" for sign in signs[::-1]]
    return terms, signs


def ratio(gold: str, answer: str, again) -> bool | None:
    left, right = _terms(gold), _terms(answer)
    if left is None and right is None:
        return None
    if left is None or right is None:
        two, other = (left, answer) if right is None else (right, gold)
        return len(two) == 2 and two[1] != 0 and rational(other) == two[0] / two[1]
    if _minutes(gold) and _minutes(answer) and len(left) == 2:
        return False  # two times of day
    return (
        len(left) == len(right)
        and all(a * right[0] == b * left[0] for a, b in zip(left, right, strict=True))
        and any(right)
    )


def _terms(text: str) -> list | None:
    words = re.sub(r"\\text ?\{\s*to\s*\}| to ", ":", text)
    terms = [rational(part.strip()) for part in words.split(":")]
    return None if len(terms) < 2 or None in terms else terms

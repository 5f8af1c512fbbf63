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

_SAID = (
    r"^(?:(?:the )?(?:(?:correct|right|best) )?(?:option|choice|answer)(?: is|:)?"
    r"|(?:\u7b54\u6848)?[\u662f\u4e3a]?\u9009(?:\u9879|\u62e9)?:?)?\s*"
)
_CHOICE = re.compile(
    _SAID + r"[(\[]?\s*([A-H])\s*(?:[)\]]\s*[.:,)]?|[.:)])?\s*$",
    re.I,
)
# Behind the letter: no other letter, and nothing that takes the letter back.
_NO_TEXT = (
    r"(?!\s*(?:[,;/&]|\+ ?\(?[A-H]\b|(?:and|or|nor)\b|[(\[]\s*[A-H]\s*[)\]]"
    r"|(?:is|are) (?:not|wrong|incorrect|false)\b|isn't))"
)
_OPTION = re.compile(
    _SAID + rf"(?:[(\[]?\s*([A-H])\s*[)\].:]+{_NO_TEXT}|([A-H])\s+(?:-\s|(?=\())(?!\(?[A-H]\b)){_NO_TEXT}\s*(.+)$",
    re.S | re.I,
)
_LETTERS = re.compile(r"\(?([A-H])\)?(?:\s*(?:,|;|&|,?\s*and\b)\s*\(?([A-H])\)?)+", re.S)
_CLOCK = re.compile(
    r"^(\d{1,2})(?: ?: ?(\d{2}))?(?: ?: ?(\d{2}))? ?([ap]) ?\.? ?m\b\.?$"
    r"|^(\d{1,2}) ?[:h] ?(\d{2})(?: ?: ?(\d{2}))?$",
    re.I,
)
_NAMED_TIMES = {"noon": (43200, "p"), "12 noon": (43200, "p"), "midnight": (0, "a"), "12 midnight": (0, "a")}
_BASE = re.compile(
    r"^\(?([0-9a-zA-Z]+)\)? ?_ ?\{? ?(?:\\text ?\{)? ?\(?(?:base ?\}?)? ?(\w+) ?\)? ?\}?\}?$"
    r"|^\(?([0-9a-zA-Z]+)\)? ?\(? ?(?:\\text ?\{)? ?\(?(?:in )?base[ -]?\}? ?(?:\\text ?\{)?(\w+) ?\)? ?\}?\)?$",
    re.I,
)
_PREFIXED = re.compile(r"0([box])([0-9a-f]+)", re.I)  # as in a program: 0b1011, 0xff
_MONTHS = "january february march april may june july august september october november december".split()
_MONTH = rf"({'|'.join(f'{name[:3]}(?:{name[3:]})?' if name[3:] else name for name in _MONTHS)})\.?"
_DATE = [
    re.compile(pattern, re.I)
    for pattern in (
        r"(?P<year>\d{4})-(?P<number>\d{1,2})-(?P<day>\d{1,2})",
        rf"{_MONTH.replace('(', '(?P<month>', 1)} (?:the )?(?P<day>\d{{1,2}})(?:(?: ?,)? (?P<year>\d{{4}}))?",
        rf"(?:the )?(?P<day>\d{{1,2}})(?: of)? {_MONTH.replace('(', '(?P<month>', 1)}(?:(?: ?,)? (?P<year>\d{{4}}))?",
    )
]
_SPAN = re.compile(r"(?:(?:between|from) )?([\d.,]+) ?(?:-|to|and) ?([\d.,]+)")
_MODULUS = re.compile(r"^(?:(.*?)\\equiv)?(.*?)\\pmod\{(\d+)\}$", re.S)
_DERIVATIVE = re.compile(
    r"\\frac ?\{ ?(?:d|\\partial)(?:\^\{\d\})? ?\w* ?\} ?\{ ?(?:(?:d|\\partial) ?\w(?:\^\{\d\})? ?)+\}"
    r"|\\d?dot ?\{ ?\w ?\}|[a-zA-Z]'+(?: ?\([^()]*\))?"
    r"|[a-zA-Z]\^\{\\prime\}(?: ?\([^()]*\))?"
)


def choice(gold: str, answer: str, again) -> bool | None:
    bare = re.sub(r"\\text ?\{([^{}]*)\}", r"\1", gold).strip()
    given = re.sub(r"\\text ?\{([^{}]*)\}", r"\1", answer).strip()
    if (several := _same_letters(bare, given)) is not None:
        return several
    wanted = re.fullmatch(r"[(\[]?\s*([A-H])\s*[)\]]?[.:]?", bare) or re.fullmatch(
        r"[(\[]\s*([A-H])\s*[)\]]\s*(.+)", bare, re.S
    )
    if wanted is None:
        return None
    found = _CHOICE.match(given) or _OPTION.match(given)
    letter = next(filter(None, found.groups()), "") if found is not None else ""
    if letter.isupper():
        return letter == wanted[1]
    if OPTION_TEXT_ALONE_IS_ENOUGH and wanted.re.groups == 2:
        return again(clean(wanted[2]), answer)
    return False


def _same_letters(gold: str, answer: str) -> bool | None:
    """Several options, one side of them written together: `A, C` and `AC`; None where neither or both are.

    Letters out of their order are a sequence, and those of a gold answer may name a segment: there the order counts.
    """
    listed, together = (gold, answer) if _LETTERS.fullmatch(gold) else (answer, gold)
    letters = re.findall("[A-H]", listed)
    if not _LETTERS.fullmatch(listed) or not re.fullmatch("[A-H]{2,8}", together):
        return None
    if listed is gold:
        return sorted(letters) == sorted(together)
    return letters == [*together] if [*together] == sorted(together) else None


def clock(gold: str, answer: str, again) -> bool | None:
    left, right = _minutes(gold), _minutes(answer)
    if left is None or ":" not in gold and left[1] is None:
        return None
    if right is None:
        return None if left[1] is None else False
    if left[1] is not None and right[1] is None and 3600 <= right[0] < 13 * 3600:
        return False  # which half of the day is what was asked
    if left[1] is None and right[1] is not None and 3600 <= left[0] < 13 * 3600:
        return left[0] % (12 * 3600) == right[0] % (12 * 3600)
    return left[0] == right[0]


def _minutes(text: str) -> tuple[int, str | None] | None:
    """The seconds since midnight and the half of the day; None for what is no time of day."""
    bare = " ".join(re.sub(r"\\text ?\{([^{}]*)\}", r" \1", text).split())
    found = _CLOCK.match(bare)
    if found is None:
        return _NAMED_TIMES.get(bare.lower())
    hour, minute, second = (int(found[n] or found[m] or 0) for n, m in ((1, 5), (2, 6), (3, 7)))
    half = found[4].lower() if found[4] else None
    if hour > (12 if half else 24) or minute > 59 or second > 59:
        return None
    hour = hour % 12 + 12 * (half == "p") if half else hour
    return hour * 3600 + minute * 60 + second, half


def base(gold: str, answer: str, again) -> bool | None:
    left, right = _in_base(gold), _in_base(answer)
    if left is None:
        if right is None or rational(gold) is None:
            return None
        return right[1] == 10 and again(gold, right[0])
    if right is None:
        bare = re.sub(r"[() ]", "", answer).lower()
        return BASE_MAY_BE_LEFT_OUT and bare.lstrip("0") == left[0]
    return left == right


def _in_base(text: str) -> tuple[str, int] | None:
    if (prefixed := _PREFIXED.fullmatch(text)) is not None:
        digits, named = prefixed[2], {"b": "2", "o": "8", "x": "16"}[prefixed[1].lower()]
    elif (found := _BASE.match(text)) is not None:
        digits, named = found[1] or found[3], found[2] or found[4]
    else:
        return None
    size = int(named) if named.isascii() and named.isdigit() else vocabulary.BASES.get(named.lower(), 0)
    try:
        int(digits, size) if 2 <= size <= 36 else int("")
    except ValueError:
        return None
    return digits.lower().lstrip("0"), size


def date(gold: str, answer: str, again) -> bool | None:
    """`2020-03-14`, `March 14, 2020`, `14 March 2020`: a day of a year, and no difference of numbers."""
    left, right = _date(gold), _date(answer)
    if left is None:
        return None
    return left == right if right is not None or "-" in gold else None


def _date(text: str) -> tuple[int | None, int, int] | None:
    bare = " ".join(re.sub(r"\\text ?\{([^{}]*)\}", r" \1 ", text).split()).replace(" ,", ",")
    found = next(filter(None, (pattern.fullmatch(bare) for pattern in _DATE)), None)
    if found is None:
        return None
    parts = found.groupdict()
    month = (
        int(parts["number"])
        if "number" in parts
        else [name[:3] for name in _MONTHS].index(parts["month"][:3].lower()) + 1
    )
    year = int(parts["year"]) if parts["year"] else None
    return (year, month, int(parts["day"])) if 1 <= month <= 12 and 1 <= int(parts["day"]) <= 31 else None


def span(gold: str, answer: str, again) -> bool | None:
    """`10-15`, a range (or a score) and no difference; as `10 to 15`, `between 10 and 15`."""
    left, right = _span(gold), _span(answer)
    if left is None:
        return None
    return right is not None and all(again(a, b) for a, b in zip(left, right, strict=True))


def _span(text: str) -> tuple[str, str] | None:
    bare = " ".join(re.sub(r"\\text ?\{([^{}]*)\}", r" \1 ", text).split())
    found = _SPAN.fullmatch(bare.lower())
    if found is None or " and " in bare.lower() and not bare.lower().startswith("between"):
        return None
    return (found[1], found[2]) if None not in (rational(found[1]), rational(found[2])) else None


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

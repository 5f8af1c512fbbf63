r"""Forms of answers that are not one piece of mathematics: compared part by part, the parts by math-verify.

`same` asks the forms of `FORMS` in order. Each knows one form of answer, says True or False where the gold answer has it,
and None where it has not; what no form decides is the judge's (`rewards/judge.py`). Each stands beside the pair that made
it necessary. What is taken off before is in `rewards/spelling.py`.
"""

import re

from rewards import judge, vocabulary
from rewards.exact import rational
from rewards.solution_sets import looks_like_a_set, same_set
from rewards.spelling import balanced, clean
from rewards.splitting import split_at, steps, values
from rewards.wording import Reading, read, stem

# Where good graders disagree; docs/measures.md, "Grading". Each is one choice for all answers.
UNIT_MAY_BE_LEFT_OUT = True  # gold `5 \text{ cm}`, answer 5
PERCENT_SIGN_MAY_BE_LEFT_OUT = True  # gold 35\%, answer 35; and the other way round, from 1 on
BASE_MAY_BE_LEFT_OUT = True  # gold 204_5, answer 204
MODULUS_MAY_BE_LEFT_OUT = True  # gold 5 \pmod 9, answer 5
PARENTHESES_MAY_HOLD_A_LIST = True  # gold 4, 9 or \{4, 9\}, answer (4, 9)
OPEN_INTERVAL_MAY_BE_A_POINT = True  # gold (3, 11), answer 3 < x < 11
OPTION_TEXT_ALONE_IS_ENOUGH = True  # gold (C) 18, answer 18
MAX_GOLD_WORDS = 12  # of a gold answer in prose; a longer one is no answer that can be compared: no opinion

_NUMBER = r"\d+(?:\.\d+)?"
_CHOICE = re.compile(r"^(?:(?:the )?(?:(?:correct|right|best) )?(?:option|choice|answer)(?: is|:)?)?\s*[(\[]?\s*([A-H])\s*(?:[)\]]\s*[.:,)]?|[.:)])?\s*$", re.I)
_OPTION = re.compile(r"^(?:(?:the )?(?:(?:correct|right|best) )?(?:option|choice|answer)(?: is|:)?)?\s*[(\[]?\s*([A-H])\s*[)\].:]+\s*(?![,;]|and\b|or\b)(.+)$", re.S | re.I)
_CLOCK = re.compile(
    r"^(\d{1,2})(?: ?: ?(\d{2}))?(?: ?: ?(\d{2}))? ?([ap]) ?\.? ?m\b\.?$|^(\d{1,2}) ?: ?(\d{2})(?: ?: ?(\d{2}))?$", re.I
)
_BASE = re.compile(r"^\(?([0-9a-zA-Z]+)\)? ?_ ?\{?(?:\\text ?\{)? ?(\w+) ?\}?\}?$")
_MODULUS = re.compile(r"^(?:(.*?)\\equiv)?(.*?)\\pmod\{(\d+)\}$", re.S)
_DERIVATIVE = re.compile(
    r"\\frac ?\{ ?(?:d|\\partial)(?:\^\{\d\})? ?\w* ?\} ?\{ ?(?:(?:d|\\partial) ?\w(?:\^\{\d\})? ?)+\}|\\d?dot ?\{ ?\w ?\}|[a-zA-Z]'+(?: ?\([^()]*\))?"
    r"|[a-zA-Z]\^\{\\prime\}(?: ?\([^()]*\))?"
)
_NAME = re.compile(
    r"^(?:\\text ?\{[^{}]*\}|\\(?!frac|sqrt|sin|cos|tan|log|ln|pm|int|sum|left|begin|infty|le |ge |ne )[a-zA-Z]+ ?(?:\{[^{}]*\})?|[A-Za-z][A-Za-z ]*)+"
    r"(?: ?_\{[^{}]*\})?(?: ?\^\{[^{}]*\})?'*(?: ?\([^()=<>]*\))?$"
)
_LABEL = re.compile(
    r"^(?:(?:so|thus|hence|therefore|i get|we get|we have),? )?(?:(?:the|my|our|your|its|this) )?"
    r"(?:(?:final|correct|right|exact|required|numerical|boxed) )*"
    r"(?:(?:answers?|ans|results?|solutions?|values?|response|r[ée]ponse|antwort|respuesta)(?![a-z])(?: here| set)?"
    r"|\u7b54\u6848|\u6700\u7ec8\u7b54\u6848|\u7b54)"
    r"(?: is| are| equals?| would be| to be| be|\u662f|\u4e3a)?\s*[:=]?\s*",
    re.I,
)
_COLON = re.compile(r"^(?:\\text ?\{)?[^\W\d_]{2,}(?:[ '-][^\W\d_]+){0,5} ?: *\}? ?(?=.*\S)", re.S)


def squeezed(text: str) -> str:
    """Without the blanks that separate nothing: 1 1/4 keeps its one, x + 1 does not."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"(?<![0-9]) (?![a-zA-Z])|(?<![a-zA-Z0-9]) ", "", text)
    return re.sub(r"(?<=[0-9]) (?=[^0-9])", "", text)


def unlabelled(text: str) -> str:
    r"""Without `Answer:` or `The answer is`, in `\text{}` or not, and without an equals sign left over."""
    inner, rest = text, ""
    if (words := re.match(r"\\text ?\{", text)) is not None and (end := balanced(text, words.end() - 1)) > 0:
        inner, rest = text[words.end() : end].lstrip(), text[end + 1 :].strip()
    found = _LABEL.match(inner)
    if found is not None:
        left = inner[found.end() :].strip()
        if left or rest:
            text = f"\\text{{{left}}} {rest}".strip() if words and left else (left or rest)
    if text.count(":") == 1 and not re.match(r"^\W*(?:option|choice)", text, re.I):
        text = _COLON.sub("", text)
    return clean(re.sub(r"^\s*(?:=|:|\\approx(?![a-zA-Z])|\\therefore(?![a-zA-Z]))\s*", "", text))


def sides(text: str) -> list[str]:
    """The sides of an equation or of a chain of them; [text] where there is none. `\\approx` counts as `=`."""
    pieces, current = [], ""
    found = steps(text)
    for place, (token, depth) in enumerate(found):
        before = found[place - 1][0] if place else ""
        if depth == 0 and (token == "=" and before not in ("<", ">", "!", ":") or token == "\\approx"):
            pieces.append(current.strip())
            current = ""
        else:
            current += token
    return [*pieces, current.strip()]


def named(text: str) -> tuple[str | None, str]:
    r"""The name and the value of `S = 8 \cdot 8 = 64`; (None, text) for what names nothing."""
    parts = sides(text)
    if len(parts) == 1 or not parts[-1]:
        return None, text
    first = parts[0].strip()
    if first == "" or _NAME.match(first) or re.fullmatch(r"\|[^|]*\||[A-Z]\([^()]*\)|n\([^()]*\)", first):
        return squeezed(first), parts[-1]
    if len(parts) == 2 and re.fullmatch(r"[a-zA-Z](?:_\{\w+\})?", parts[1]):
        return squeezed(parts[1]), first
    if len(parts) > 2 or not re.search(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", first)):
        return "", parts[-1]
    return None, text


def same(gold: str, answer: str, depth: int = 0) -> bool:
    """Whether two cleaned texts say the same."""
    if not answer or depth > 8:
        return False
    if squeezed(gold) == squeezed(answer):
        return True
    for _, form, _ in FORMS:
        found = form(gold, answer, depth + 1)
        if found is not None:
            return found
    return judge.equal(gold, answer)


def words_alone(gold: str, answer: str, depth: int) -> bool | None:
    left, right = plain(gold), plain(answer)
    if left == right and left:
        return True
    return None


def plain(text: str) -> str:
    """Words in small letters, without articles and the sentence's marks; empty for a text that holds mathematics."""
    text = re.sub(r"\\text ?\{([^{}]*)\}", r" \1 ", text)
    if re.search(r"[\\^_={}<>|+*/]|^[a-zA-Z]$", text.strip()):
        return ""
    text = re.sub(r"^(?:an?|the) ", "", re.sub(r"[\s.,;:!?\"]+", " ", text).strip().casefold())
    return " ".join(map(stem, text.split())) if re.search(r"[^\W\d_]{2}", text) else ""


def numbers(gold: str, answer: str, depth: int) -> bool | None:
    left, right = rational(gold), rational(answer)
    if left is None or right is None:
        return None
    if left == right:
        return True
    if PERCENT_SIGN_MAY_BE_LEFT_OUT and gold.endswith("%") != answer.endswith("%"):
        bare = right if gold.endswith("%") else left
        return abs(bare) >= 1 and left * (100 if gold.endswith("%") else 1) == right * (
            100 if answer.endswith("%") else 1
        )
    return False


def choice(gold: str, answer: str, depth: int) -> bool | None:
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
        return same(clean(wanted[2]), answer, depth)
    return False


def clock(gold: str, answer: str, depth: int) -> bool | None:
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


def base(gold: str, answer: str, depth: int) -> bool | None:
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


def modulus(gold: str, answer: str, depth: int) -> bool | None:
    left, right = _MODULUS.match(gold), _MODULUS.match(answer)
    if left is None:
        return None if right is None else same(gold, right[2].strip(), depth)
    if right is None:
        return MODULUS_MAY_BE_LEFT_OUT and same(left[2].strip(), answer, depth)
    if left[3] != right[3] or None not in (left[1], right[1]) and squeezed(left[1]) != squeezed(right[1]):
        return False
    one, other = rational(left[2].strip()), rational(right[2].strip())
    if None not in (one, other):
        return (one - other) % int(left[3]) == 0
    return same(left[2].strip(), right[2].strip(), depth)


def cases(gold: str, answer: str, depth: int) -> bool | None:
    left, right = _branches(gold), _branches(answer)
    if left is None and right is None:
        return None
    if left is None or right is None or len(left) != len(right):
        return False
    return all(any(_same_branch(one, other, depth) for other in right) for one in left)


def _branches(text: str) -> list[list[str]] | None:
    found = re.search(r"\\begin\{[dr]?cases\}(.*)\\end\{[dr]?cases\}", text, re.S)
    if found is None:
        return None
    rows = [row for row in re.split(r"\\\\", found[1]) if row.strip()]
    dress = re.compile(r"\\text ?\{\s*,?\s*(?:if|when|for|where)\s*:?\s*\}|(?<![a-zA-Z])(?:if|when|for)(?![a-zA-Z])")
    return [[clean(dress.sub(" ", cell).strip(" ,;")) for cell in row.split("&") if cell.strip()] for row in rows]


def _same_branch(one: list[str], other: list[str], depth: int) -> bool:
    return len(one) == len(other) and all(same(a, b, depth) for a, b in zip(one, other, strict=True))


def matrix(gold: str, answer: str, depth: int) -> bool | None:
    pattern = re.compile(r"\\begin\{pmatrix\}(.*)\\end\{pmatrix\}", re.S)
    left, right = pattern.fullmatch(gold.strip()), pattern.fullmatch(answer.strip())
    if left is None or right is None or "pmatrix" in left[1] + right[1]:
        return None
    one, other = (
        [[clean(cell) for cell in row.split("&")] for row in re.split(r"\\\\", found[1]) if row.strip()]
        for found in (left, right)
    )
    return len(one) == len(other) and all(_same_branch(a, b, depth) for a, b in zip(one, other, strict=True))


def sequence(gold: str, answer: str, depth: int) -> bool | None:
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
        a == b or "\\ldots" not in a + b and same(a, b, depth) for a, b in zip(one, other, strict=True)
    )


def arrows(gold: str, answer: str, depth: int) -> bool | None:
    if "\\to" not in gold or re.search(r"\\lim|\\infty", gold):
        return None
    left, right = ([part.strip() for part in re.split(r"\\to(?![a-zA-Z])", text)] for text in (gold, answer))
    return len(left) == len(right) and all(same(a, b, depth) for a, b in zip(left, right, strict=True))


def derivative(gold: str, answer: str, depth: int) -> bool | None:
    r"""`\frac{dy}{dx}`, `y'`, `f'(3)` and `\dot x` are names, not quotients and products."""
    marks = list(
        dict.fromkeys(squeezed(m[0]).replace(" ", "") for text in (gold, answer) for m in _DERIVATIVE.finditer(text))
    )
    if not marks:
        return None
    letters = [f"\\xi_{{{n}}}" for n in range(len(marks))]

    def masked(text):
        return _DERIVATIVE.sub(lambda m: f" {letters[marks.index(squeezed(m[0]).replace(' ', ''))]} ", text)

    return same(clean(masked(gold)), clean(masked(answer)), depth)


def chain(gold: str, answer: str, depth: int) -> bool | None:
    """`P<R<Q`, which may be read from the right."""
    left, right = _relations(gold), _relations(answer)
    if left is None or right is None or len(left[0]) < 3:
        return None
    return left[1] == right[1] and all(
        squeezed(a) == squeezed(b) or same(a, b, depth) for a, b in zip(left[0], right[0], strict=True)
    )


def _relations(text: str) -> tuple[list[str], list[str]] | None:
    parts = [part.strip() for part in re.split(r"(\\le(?![a-zA-Z])|\\ge(?![a-zA-Z])|<|>)", text)]
    terms, signs = parts[::2], parts[1::2]
    if not signs or not all(terms):
        return None
    if set(signs) <= {">", "\\ge"}:
        terms, signs = terms[::-1], ["<" if sign == ">" else "\\le" for sign in signs[::-1]]
    return terms, signs


def ratio(gold: str, answer: str, depth: int) -> bool | None:
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


def tuples(gold: str, answer: str, depth: int) -> bool | None:
    left, right = _inside(gold), _inside(answer)
    if left is None:
        return None
    names, listed = _assignments(answer)
    if right is None and listed is not None and len(set(names)) == len(names):
        return (
            left[0] == "()"
            and len(left[1]) == len(listed)
            and all(same(a, b, depth) for a, b in zip(left[1], listed, strict=True))
        )
    if right is None:
        if looks_like_a_set(gold) or looks_like_a_set(answer) or re.search(r"[a-zA-Z=]", answer):
            return None
        given = values(answer, False)  # without its parentheses, in order
        return (
            left[0] == "()" and len(given) == len(left[1]) and all(map(lambda a, b: same(a, b, depth), left[1], given))
        )
    if left[0] != right[0]:
        return None if looks_like_a_set(gold) else False
    return len(left[1]) == len(right[1]) and all(same(a, b, depth) for a, b in zip(left[1], right[1], strict=True))


def _inside(text: str) -> tuple[str, list[str]] | None:
    r"""The brackets and the parts of `(a, b)`, `[a, b)` or `\langle a, b \rangle`."""
    text = re.sub(r"^\\langle|\\rangle$", lambda m: "(" if m[0] == "\\langle" else ")", text.strip())
    found = steps(text)
    closes = [place for place, (token, depth) in enumerate(found) if depth == 0 and token in (")", "]")]
    if not found or found[0][0] not in ("(", "[") or closes[:1] != [len(found) - 1]:
        return None
    parts = split_at(text[1:-1], ",")
    parts = split_at(text[1:-1], ";") if len(parts) == 1 else parts
    return (
        (text[0] + text[-1], [part.strip() for part in parts])
        if len(parts) > 1 and all(part.strip() for part in parts)
        else None
    )


def _assignments(text: str) -> tuple[list[str], list[str] | None]:
    found = [named(part) for part in values(text, True)]
    if len(found) < 2 or any(name is None or name == "" for name, _ in found):
        return [], None
    return [name for name, _ in found], [value for _, value in found]


def set_of_numbers(gold: str, answer: str, depth: int) -> bool | None:
    if not looks_like_a_set(gold) and not (looks_like_a_set(answer) and _inside(gold)):
        bound = re.search(r"\\le(?![a-zA-Z])|\\ge(?![a-zA-Z])|\\ne(?![a-zA-Z])|<|>", answer)
        return False if bound and rational(gold) is not None else None  # a bound is no value
    if _inside(gold) and _inside(gold)[0] == "()" and not OPEN_INTERVAL_MAY_BE_A_POINT:
        return None
    return same_set(gold, answer)


def compound(gold: str, answer: str, depth: int) -> bool | None:
    """`3 h 25 min`, `5 ft and 7 in`: one quantity in several units of one dimension."""
    left, right = _quantities(gold), _quantities(answer)
    if left is None and right is None:
        return None
    if left is None or right is None or left.keys() != right.keys():
        return False
    return all(same(left[name], right[name], depth) for name in left)


def _quantities(text: str) -> dict[str, str] | None:
    if re.search(r"[,;]", text) and not re.search(r"\d,\d{3}", text):
        text = re.sub(r",", " ", text) if re.search(r"\b(?:h|hours?|ft|feet|lbs?|pounds?|degrees?)\b", text) else text
    found = read(re.sub(r"\\text ?\{\s*and\s*\}|\band\b", " ", text))
    named_units = [next(iter(units)) for _, factor, units in found.values if len(units) == 1 and factor == 1]
    if len(found.values) < 2 or len(named_units) != len(found.values) or len(set(named_units)) != len(named_units):
        return None
    if len({vocabulary.DIMENSIONS.get(name) for name in named_units} - {None}) != 1:
        return None
    return {name: value for name, (value, _, _) in zip(named_units, found.values, strict=True)}


def several(gold: str, answer: str, depth: int) -> bool | None:
    """Answers with several values: all of them, in any order."""
    if _inside(gold) is not None and _inside(answer) is not None:
        return None
    golds = [_elements(gold, thousands) for thousands in (True, False)]
    answers = [_elements(answer, thousands) for thousands in (True, False)]
    if all(len(found) == 1 for found in (*golds, *answers)) and golds[0] == [gold] and answers[0] == [answer]:
        return None
    undivided = [gold], [answer]
    pairs = [(g, a) for g in _unlike(golds) for a in _unlike(answers) if (g, a) != undivided]
    if any(_same_elements(g, a, gold, answer, depth) for g, a in pairs):
        return True
    return None if (golds[0], answers[0]) == undivided else False


def _unlike(readings: list[list[str]]) -> list[list[str]]:
    return readings[:1] if readings[0] == readings[1] else readings


def _elements(text: str, thousands: bool) -> list[str]:
    r"""The values of a list or a set, `\pm` written out."""
    text = re.sub(r"^\\?[a-zA-Z](?:_\{\w+\})? ?(?:\\in(?![a-zA-Z])|=) ?(?=\\\{)", "", text)
    found = steps(text)
    if (
        len(found) > 2
        and found[0][0] == "\\{"
        and [n for n, (t, d) in enumerate(found) if t == "\\}" and d == 0][:1] == [len(found) - 1]
    ):
        text = text[2:-2].strip()
    text = re.sub(r"^\\text ?\{\s*(?:either|both)\s*\}|^(?:either|both)\b", "", text, flags=re.I)
    parts = values(text, thousands)
    names = [named(part)[0] for part in parts]
    if len(parts) > 1 and names[0] and (not any(names[1:]) or len(set(names)) == 1):
        parts = [named(part)[1] for part in parts]
    written = []
    for part in parts:
        if re.search(r"\\pm(?![a-zA-Z])|\\mp(?![a-zA-Z])", part):
            one = re.sub(r"\\pm(?![a-zA-Z])", "+", re.sub(r"\\mp(?![a-zA-Z])", "-", part))
            other = re.sub(r"\\pm(?![a-zA-Z])", "-", re.sub(r"\\mp(?![a-zA-Z])", "+", part))
            written += [clean(re.sub(r"(^|=|\{|\()\s*\+", r"\1", one)), clean(other)]
        else:
            written.append(clean(part))
    return list({squeezed(part): part for part in written if part}.values())


def _same_elements(golds: list[str], answers: list[str], gold: str, answer: str, depth: int) -> bool:
    names, listed = _assignments(gold)
    if listed is not None and len(set(names)) == len(names) and len(names) == len(golds):
        return _same_assignments(names, listed, answer, depth)
    if (
        len(golds) > 1
        and len(answers) == 1
        and PARENTHESES_MAY_HOLD_A_LIST
        and (inner := _inside(answer)) is not None
        and _inside(golds[0]) is None
    ):
        answers = [clean(part) for part in inner[1]]
    if len(golds) != len(answers) or not golds:
        return False
    return all(any(same(g, a, depth) for a in answers) for g in golds) and all(
        any(same(g, a, depth) for g in golds) for a in answers
    )


def _same_assignments(names: list[str], listed: list[str], answer: str, depth: int) -> bool:
    others, given = _assignments(answer)
    if given is not None:
        found = dict(zip(others, given, strict=True))
        return found.keys() == set(names) and all(
            same(value, found[name], depth) for name, value in zip(names, listed, strict=True)
        )
    inner = _inside(answer)
    given = inner[1] if inner is not None else values(answer, True)
    return len(given) == len(listed) and all(same(a, clean(b), depth) for a, b in zip(listed, given, strict=True))


def equation(gold: str, answer: str, depth: int) -> bool | None:
    """The name before an equals sign may be left out; two different ones are two answers."""
    if "=" not in gold and "=" not in answer and "\\approx" not in answer:
        return None
    (name, value), (other, given) = named(gold), named(answer)
    if name is None and other is None:
        if len(sides(gold)) == 1 and len(sides(answer)) > 1:
            return same(gold, sides(answer)[-1], depth)
        return None
    if name and other and name != other and not (_is_curve(name) and _is_curve(other)):
        return judge.equal(gold, answer) or None
    if name is None and len(sides(gold)) > 1:
        return None
    if other is None and len(sides(answer)) > 1:
        return None
    return same(value if name is not None else gold, given if other is not None else answer, depth)


def _is_curve(name: str) -> bool:
    return re.fullmatch(r"y|[fgh]\([a-z]\)", name) is not None or "\\text" in name


def wording(gold: str, answer: str, depth: int) -> bool | None:
    """Units and other words beside a value."""
    left, right = read(gold), read(answer)
    if not _speaks(left, gold) and not _speaks(right, answer):
        return None
    if left.silent or right.silent or len(left.values) != len(right.values):
        return False
    if sorted(left.carrying) != sorted(right.carrying):
        return False
    if left.words != right.words and left.words and (right.words or left.words_first or len(left.values) != 1):
        return False
    if not left.values:
        return left.words == right.words and (bool(left.words) or left.carrying == right.carrying)
    return all(_same_quantity(one, other, depth) for one, other in zip(left.values, right.values, strict=True))


def _speaks(found: Reading, text: str) -> bool:
    return bool(found.carrying or found.words or any(units or factor != 1 for _, factor, units in found.values)) or (
        [value for value, _, _ in found.values] != [text]
    )


def _same_quantity(one, other, depth: int) -> bool:
    (value, factor, units), (given, times, others) = one, other
    if units != others and units and (others or not UNIT_MAY_BE_LEFT_OUT):
        return False
    if factor == times:
        return same(clean(value), clean(given), depth)
    left, right = rational(clean(value)), rational(clean(given))
    if None not in (left, right):
        return left * factor == right * times
    return judge.equal(f"{factor} \\cdot ({value})", f"{times} \\cdot ({given})")


# (what, the form, a gold and an answer that were graded wrong without it)
FORMS = [
    ("words", words_alone, ("Thursday", r"\text{thursday}")),
    ("numbers", numbers, ("19/6", "3 1/6")),
    ("choice", choice, ("C", "C) 18")),
    ("clock", clock, (r"6:50 \text{ a.m.}", r"6:50 \text{ p.m.}")),
    ("base", base, ("3142_5", "3142_6")),
    ("modulus", modulus, (r"5 \pmod{9}", r"5 \pmod 8")),
    ("cases", cases, (r"\begin{cases} 2 & x>1 \\ 5 & x \le 1\end{cases}", "5")),
    ("matrix", matrix, (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}")),
    ("sequence", sequence, (r"1, 2, \ldots, n", r"1, 3, \ldots, 2n-1")),
    ("derivative", derivative, ("f'(3) = 8", "f'(3) = 18")),
    ("arrows", arrows, (r"C \to A \to B", r"A \to C \to B")),
    ("set of numbers", set_of_numbers, ("[3,8)", r"3 \le x < 8")),
    ("chain", chain, ("P<R<Q", "Q>R>P")),
    ("tuple", tuples, ("(35,400)", "(35400)")),
    ("compound", compound, (r"3 \text{ h } 25 \text{ min}", r"3 \text{ h } 35 \text{ min}")),
    ("several", several, ("7, 31", "7")),
    ("equation", equation, ("64", r"S = 8 \cdot 8 = 64")),
    ("ratio", ratio, ("2:3:7", "4:6:14")),
    ("wording", wording, (r"40 \text{ km}", r"40 \text{ m}")),
]


def readable(gold: str) -> bool:
    r"""Whether there is anything in a cleaned gold answer to compare with: not in `\text{ }`, `?` or a page of prose."""
    if not re.search(r"[\w\u221e]|\\(?:infty|emptyset)", re.sub(r"\\text ?\{", "", gold)):
        return False
    found = read(gold)
    return len(found.words) + len(found.carrying) <= MAX_GOLD_WORDS


def compare(gold: str, answer: str) -> bool | None:
    r"""Whether `answer` says what `gold` says; None where the gold answer says nothing that could be compared.

    >>> compare("1 1/4", "5/4"), compare("11/4", "1 1/4"), compare(r"40 \text{ km}", "40 m"), compare("", "3")
    (True, False, False, None)
    """
    left, right = clean(gold), clean(answer)
    if left and right and squeezed(left) == squeezed(right):
        return True
    left, right = unlabelled(left), unlabelled(right)
    if not readable(left):
        return None
    return same(left, right)

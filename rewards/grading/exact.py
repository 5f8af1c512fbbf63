r"""Numbers as they are written, read exactly: no rounding, however small or long they are."""

import re
from fractions import Fraction

MAX_DIGITS = 400  # of a number that is read; its exponent is bounded by the same
_PLAIN = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+)(?:\.\d*)?|\.\d+"
_NUMBER = re.compile(rf"(?P<plain>{_PLAIN})(?: ?\\times 10\^\{{(?P<power>[+-]?\d+)\}})?")
_POWER = re.compile(r"10\^\{(?P<power>[+-]?\d+)\}")
_RATIO = re.compile(rf"\{{?(?P<upper>{_PLAIN})\}}? ?/ ?\{{?(?P<lower>{_PLAIN})\}}?")
_FRAC = re.compile(rf"\\frac ?\{{ ?(?P<upper>[+-]? ?(?:{_PLAIN})) ?\}} ?\{{ ?(?P<lower>[+-]? ?(?:{_PLAIN})) ?\}}")
_MIXED = re.compile(
    r"(?P<whole>\d+)(?: (?P<upper>\d+) ?/ ?(?P<lower>\d+)| ?\\frac ?\{(?P<above>\d+)\} ?\{(?P<below>\d+)\})"
)
_PERIOD = re.compile(
    r"(?P<whole>\d*)\.(?P<before>\d*)(?:\\overline ?\{(?P<over>\d+)\}|\\bar ?\{(?P<bar>\d+)\}|\((?P<round>\d+)\))"
)
_DOTTED = re.compile(
    r"(?P<whole>\d*)\.(?P<before>\d*)\\dot ?\{(?P<first>\d)\}(?:(?P<middle>\d*)\\dot ?\{(?P<last>\d)\})?"
)
_OPEN = re.compile(r"(?P<whole>\d*)\.(?P<digits>\d{3,}) ?\\ldots")
# Digits as they are grouped and pointed elsewhere: 1.234.567,5 and 1 234,5 and 12,34,567 and 1_234; and 0,5.
_ELSEWHERE = re.compile(
    r"(?<![\w.,'(\[{])(?:(?P<comma>\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,}|\d{1,3}(?:[ ']\d{3})+,\d+|\d+,\d+)"
    r"|(?P<point>\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d+)?|\d{1,3}(?:_\{?\d{3}\}?)+(?:\.\d+)?))(?![\w.,'])"
)
_PLAIN_ONLY = re.compile(_PLAIN)
_WRITTEN = re.compile(rf"(?<![\w.,]){_PLAIN}(?![\w,])")
_SIGN = re.compile(r"^(?:([+-]) ?)?(.*)$", re.S)


def _decimal(text: str) -> Fraction:
    return Fraction(text.replace(",", "").replace(" ", "").rstrip(".") or "0")


def _repeating(whole: str, before: str, period: str) -> Fraction:
    r"""0.1(6) = 1/10 + 6/90."""
    return Fraction(int(whole + before or 0)) / 10 ** len(before) + Fraction(
        int(period), (10 ** len(period) - 1) * 10 ** len(before)
    )


def _open(digits: str) -> tuple[str, str] | None:
    """What stands before a period, and the period, of digits that go on; a period must be seen three times or, of more
    than one digit, twice and more: 454545 and 1666, not 123 or 4545."""
    for start in range(min(len(digits), 6)):
        rest = digits[start:]
        for size in range(1, len(rest) // 3 + 1):
            if (rest[:size] * len(rest))[: len(rest)] == rest:
                return digits[:start], rest[:size]
    return None


def _unsigned(text: str) -> Fraction | None:
    if found := _NUMBER.fullmatch(text):
        value = _decimal(found["plain"])
        power = int(found["power"] or 0) if len(found["power"] or "") < 6 else MAX_DIGITS + 1
        return value * Fraction(10) ** power if abs(power) <= MAX_DIGITS else None
    if found := _POWER.fullmatch(text):
        return Fraction(10) ** int(found["power"]) if len(found["power"]) <= 3 else None
    if found := _MIXED.fullmatch(text):
        upper, lower = int(found["upper"] or found["above"]), int(found["lower"] or found["below"])
        return Fraction(int(found["whole"])) + Fraction(upper, lower) if lower else None
    if found := _RATIO.fullmatch(text) or _FRAC.fullmatch(text):
        upper, lower = rational(found["upper"]), rational(found["lower"])
        return upper / lower if lower else None
    if found := _PERIOD.fullmatch(text):
        return _repeating(found["whole"], found["before"], found["over"] or found["bar"] or found["round"])
    if found := _DOTTED.fullmatch(text):
        period = found["first"] + (found["middle"] or "") + (found["last"] or "")
        return _repeating(found["whole"], found["before"], period)
    if (found := _OPEN.fullmatch(text)) and (parts := _open(found["digits"])):
        return _repeating(found["whole"], *parts)
    return None


def in_the_same_digits(gold: str, answer: str) -> str:
    """The answer with its one number spelled as the gold answer spells its own, where the two are the same number.

    >>> in_the_same_digits("1234567", "1.234.567 m"), in_the_same_digits("0.5", "0,5"), in_the_same_digits("5", "0,5")
    ('1234567 m', '0.5', '0,5')
    """
    wanted, given = _WRITTEN.findall(gold), list(_ELSEWHERE.finditer(answer))
    if len(wanted) != 1 or len(given) != 1 or re.search(r"[\d]", answer[: given[0].start()] + answer[given[0].end() :]):
        return answer
    found = given[0]
    if (text := found["comma"]) is not None:
        if _PLAIN_ONLY.fullmatch(text) or "." not in wanted[0] and re.fullmatch(r"\d+,\d+", text):
            return answer  # 12,750 has thousands, and 2,5 may be two values
        value = re.sub("[ '.]", "", text).replace(",", ".")
    else:
        value = re.sub("[,_{}]", "", found["point"])
    same = len(value) <= MAX_DIGITS and Fraction(value) == _decimal(wanted[0])
    return answer[: found.start()] + wanted[0] + answer[found.end() :] if same else answer


def rational(text: str) -> Fraction | None:
    r"""The number that a cleaned text writes; None where it writes no plain number.

    >>> rational("1 1/4"), rational(r"-2\frac{1}{4}"), rational("1,234.50"), rational("12 750"), rational("6 8")
    (Fraction(5, 4), Fraction(-9, 4), Fraction(2469, 2), Fraction(12750, 1), None)
    >>> rational(r"4.5 \times 10^{5}"), rational(r"0.1\overline{6}"), rational(r"35\%"), rational("(20,100)")
    (Fraction(450000, 1), Fraction(1, 6), Fraction(7, 20), None)
    """
    if len(text) > MAX_DIGITS or not text.isascii():
        return None
    text = re.sub(r"(?<=\d)\s+(?=\\(?:over|bar|dot))", "", text.strip())
    if text.endswith("\\%"):
        value = rational(text[:-2])
        return None if value is None else value / 100
    sign, rest = _SIGN.match(text).groups()
    value = _unsigned(rest)
    return -value if value is not None and sign == "-" else value

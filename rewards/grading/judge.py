r"""math-verify as the judge of two pieces of mathematics, with an exact comparison where it rounds.

Runs in the grading server's children only: what is parsed here is not trusted (`rewards/grader.py`).
"""

import functools
import itertools
import re
from fractions import Fraction

from .exact import rational
from .spelling import MATH_WORDS

DIGITS = 60  # to which two constants are worked out; they are equal where they agree to two thirds of them
POINTS = (Fraction(7, 5), Fraction(23, 9), Fraction(-11, 8), Fraction(31, 4), Fraction(-5, 2), Fraction(3, 10))
_ADDED = re.compile(r"[ck](?:_\{?[01]\}?)?")
_CONSTANT = re.compile(r"(?<![a-zA-Z\\])([CcKk]_ ?\{\d\}|[A-DK](?![A-Z(]))")  # in a text: sympy's are small letters
_VARIABLES = re.compile(r"[xtuzs]|theta")
_WHOLE = re.compile(r"[klmn]")
_FUNCTION = re.compile(r"(?<![\\a-zA-Z])(" + "|".join(sorted(MATH_WORDS, key=len, reverse=True)) + r")(?![a-zA-Z])")
_PREPARE = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"(?<![\w.}])(\d+) ?(\\frac ?\{\d+\} ?\{\d+\})", r"(\1+\2)"),  # a mixed number is a sum
        (r"(?<![\w.}])(\d+) (\d+)/(\d+)", r"(\1+\\frac{\2}{\3})"),
        (r"(\d+(?:\.\d+)?) ?\\degree", r"(\\frac{\1\\pi}{180})"),
        (r"\\exp(?![a-zA-Z])\s*\{", r"e^{"),
        (r"(?<=[\d)}])\s*i(?![a-zA-Z])", " i "),  # math-verify looks for an i that stands alone
        (r"(?<![\\a-zA-Z])i(?=\\)", " i "),
        (r"\*", r"\\cdot "),
        (r"(?<=[\d)])\s*\(", r" \\cdot ("),  # math-verify reads 2(3) as a mixed number
        (r"\+\s*\\infty", r"\\infty"),
    ]
]


@functools.cache
def _configuration():
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig

    plain = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none")
    return [LatexExtractionConfig(boxed_match_priority=0, normalization_config=plain)]


def _typed(text: str) -> str:
    r"""`2*sin(sqrt(x))`, as typed in a program, as LaTeX."""
    text = _FUNCTION.sub(r"\\\1 ", text)
    for name, opening, closing in ((r"\sqrt", r"\sqrt{", "}"), (r"\exp", "e^{", "}")):
        place = 0
        while (found := re.compile(re.escape(name) + r"\s*\(").search(text, place)) is not None:
            depth, end = 1, found.end()
            while end < len(text) and depth:
                depth += {"(": 1, ")": -1}.get(text[end], 0)
                end += 1
            if depth:
                break
            text = text[: found.start()] + opening + text[found.end() : end - 1] + closing + text[end:]
            place = found.start() + len(opening)
    return text


def _parenthesised_exponents(text: str) -> str:
    r"""`2^(n(n+1))` as `2^{n(n+1)}`: math-verify closes it at the first parenthesis."""
    while (found := re.search(r"\^\s*\(", text)) is not None:
        depth, end = 1, found.end()
        while end < len(text) and depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        if depth:
            return text
        text = text[: found.start()] + "^{" + text[found.end() : end - 1] + "}" + text[end:]
    return text


@functools.lru_cache(maxsize=256)
def value(text: str):
    """The text as sympy's object, decimals as exact fractions; None where it cannot be read whole."""
    import sympy
    from math_verify import parse

    number = rational(text)
    if number is not None:
        return sympy.Rational(number.numerator, number.denominator)
    if not text or re.search(r"\\text|\\pmod|\\ldots", text):
        return None
    text = _parenthesised_exponents(_typed(text))
    if not re.search(r"[(\[]|\\\{", text):  # in brackets, a comma is not one of thousands
        text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    if (bound := re.search(r"\\(?:sum|prod)[^_]{0,20}_\s*\{?\s*i\s*=", text)) is not None and bound:
        text = re.sub(r"(?<![\\a-zA-Z])i(?![a-zA-Z])", "j", text)
    for pattern, replacement in _PREPARE:
        text = pattern.sub(replacement, text)
    if re.search(r"\d \d", text):
        return None  # two numbers side by side are no product
    found = parse(
        f"\\boxed{{{text}}}", extraction_config=_configuration(), parsing_timeout=None, fallback_mode="no_fallback"
    )
    return _exact(found[0]) if found and not isinstance(found[0], str) else None


def _exact(found):
    """Decimals as fractions, i as the imaginary unit, and every unknown real, of which math-verify has two kinds."""
    import sympy

    try:
        exact = {number: sympy.Rational(str(number)) for number in found.atoms(sympy.Float)}
        for symbol in found.free_symbols:
            exact[symbol] = sympy.I if symbol.name == "i" else sympy.Symbol(symbol.name, real=True)
        return found.xreplace(exact) if exact else found
    except Exception:  # what math-verify returns has many types, some without these methods
        return found


def _close(left, right) -> bool | None:
    """Whether two constants agree to DIGITS; None where they cannot be worked out."""
    import sympy

    try:
        difference = (left - right).doit()
        if difference.is_Rational:
            return bool(difference == 0)
        left, right = sympy.N(left.doit(), DIGITS), sympy.N(right.doit(), DIGITS)
        if (
            not (left.is_number and right.is_number)
            or left.has(sympy.nan, sympy.zoo)
            or right.has(sympy.nan, sympy.zoo)
        ):
            return None
        if left.is_infinite or right.is_infinite:
            return bool(left == right)
        size = max(abs(left), abs(right))
        gap = abs(sympy.N(difference, DIGITS, maxn=400))
        return bool(gap <= size * sympy.Float(10, DIGITS) ** (-2 * DIGITS // 3))
    except Exception:
        return None


def _on_points(left, right) -> bool | None:
    """Whether two formulas agree wherever both are real, at a few points; None where fewer than three are."""
    import sympy

    names = sorted({symbol.name for symbol in left.free_symbols | right.free_symbols})
    found = []
    for shift in range(len(POINTS) + 3):
        at = {name: POINTS[(n + shift) % len(POINTS)] + Fraction(n // 6 * 2, 7) for n, name in enumerate(names)}
        if shift >= len(POINTS):  # roots of unknowns may be real where all are positive only
            at = {name: abs(point) for name, point in at.items()}
        sides = []
        for side in (left, right):
            values = {s: sympy.Rational(at[s.name].numerator, at[s.name].denominator) for s in side.free_symbols}
            try:
                sides.append(sympy.N(side.subs(values).doit(), DIGITS))
            except Exception:
                return None
        if not all(side.is_number and not side.has(sympy.nan, sympy.zoo, sympy.oo) for side in sides):
            continue
        if all(side.is_real for side in sides):
            found.append(_close(*sides))
            if found[-1] is False:
                return False
            if found.count(True) == 4:  # one of them with a negative value
                break
    return True if found.count(True) >= 3 else None


def _formula(found) -> bool:
    import sympy
    from sympy.core.function import AppliedUndef

    return isinstance(found, sympy.Expr) and not found.has(AppliedUndef) and not isinstance(found, sympy.MatrixBase)


def _same_constants(left, right, constants: set[str]):
    r"""Both with the same names for what may be any number, and the constant of integration off where only it differs.

    `x^2+C` is `x^2+K` and `x^2+C+1`; `C_1e^x+C_2` is `A+Be^x`; `\pi/6+2\pi k` is `\pi/6+2\pi n`.
    """
    import sympy

    ones, others = ({symbol.name: symbol for symbol in side.free_symbols} for side in (left, right))
    shared = ones.keys() & others.keys()
    mine, yours = sorted(ones.keys() - shared), sorted(others.keys() - shared)
    added = [
        next((s for name, s in names.items() if _ADDED.fullmatch(name) and side.diff(s) == 1), None)
        for names, side in ((ones, left), (others, right))
    ]
    if None not in added:
        rests = [side - constant for side, constant in zip((left, right), added, strict=True)]
        unknown = rests[0].free_symbols
        if len(unknown) == 1 and unknown == rests[1].free_symbols and _VARIABLES.fullmatch(next(iter(unknown)).name):
            slopes = [rest.diff(next(iter(unknown))) for rest in rests]
            return (
                (slopes[0], slopes[1])
                if all(slope.free_symbols or slope.is_number for slope in slopes)
                else (left, right)
            )
    if not mine or len(mine) != len(yours) or len(mine) > 2:
        return left, right
    if constants.issuperset(mine + yours) and any(map(_VARIABLES.fullmatch, shared)):
        orders = itertools.permutations(mine)
    elif len(mine) == 1 and not shared and left.has(sympy.pi) and all(map(_WHOLE.fullmatch, mine + yours)):
        orders = [mine]
    else:
        return left, right
    for order in orders:
        renamed = right.xreplace({others[b]: ones[a] for a, b in zip(order, yours, strict=True)})
        if _on_points(left, renamed):
            return left, renamed
    return left, right


def equal(gold: str, answer: str) -> bool:
    """Whether math-verify takes the two for equal, and they are.

    Constants are compared exactly, whatever math-verify's tolerance of 1e-15 says; formulas also at a few points.
    """
    import sympy

    left, right = value(gold), value(answer)
    if left is None or right is None:
        return False
    if _formula(left) and _formula(right):
        letters = {re.sub(r"[ {}]", "", name).lower() for name in _CONSTANT.findall(f"{gold} {answer}")}
        left, right = _same_constants(left, right, letters)
        free = left.free_symbols | right.free_symbols
        found = _on_points(left, right) if free else _close(left, right)
        if found is not None:
            return found
    if isinstance(left, sympy.Eq) and isinstance(right, sympy.Eq):
        found = _same_curve(left, right)
        if found is not None:
            return found
    return _verified(left, right)


def _same_curve(left, right) -> bool | None:
    """Whether one equation is a multiple of the other; None where they may be alike in another way."""
    import sympy

    one, other = left.lhs - left.rhs, right.lhs - right.rhs
    if not (_formula(one) and _formula(other)) or one.free_symbols != other.free_symbols or not one.free_symbols:
        return None
    values = {symbol: sympy.Rational(n + 2, 7) for n, symbol in enumerate(sorted(one.free_symbols, key=str))}
    try:
        top, bottom = one.subs(values), other.subs(values)
        if _close(top, sympy.S.Zero) is not False or _close(bottom, sympy.S.Zero) is not False:
            return None
        if _on_points(one * bottom, other * top) is True:
            return True
        polynomials = all(side.is_polynomial(*one.free_symbols) for side in (one, other))
        return False if polynomials else None
    except Exception:
        return None


def _verified(left, right) -> bool:
    from math_verify import verify

    return bool(verify([left], [right], timeout_seconds=None, allow_set_relation_comp=True))

"""Formulas of docstrings as MathML, which browsers draw by themselves: no script, and no request to another host.

Understood are sums, products, fractions, comparisons, calls, |x|, [condition], Greek names, and a_b as an index.
"""

import html
import re

TOKEN = re.compile(r"\s*(\d+(?:\.\d+)?(?:e-?\d+)?|[A-Za-z]\w*|<=|>=|!=|\S)")
GREEK = dict(zip("alpha beta gamma delta lambda sigma pi".split(), "αβγδλσπ", strict=True))
SIGNS = {"<=": "≤", ">=": "≥", "!=": "≠", "-": "−", "*": "·"}
SPACE = '<mspace width="0.2em"/>'
SUMS, COMPARED = ("+", "-"), ("=", "<", ">", "<=", ">=", "!=", "or", "and")


def mathml(formula: str) -> str:
    """One formula.

    >>> mathml("r = c / n_x")
    '<mrow><mi>r</mi><mo>=</mo><mfrac><mi>c</mi><msub><mi>n</mi><mi>x</mi></msub></mfrac></mrow>'
    >>> mathml("a * (b")
    Traceback (most recent call last):
    ValueError: formula 'a * (b': a ')' is missing
    """
    return _Reader(formula).all()


def block(lines: list[tuple[str, str]]) -> str:
    """Formulas below one another, each with the condition beside it."""
    rows = [
        f"<mtr><mtd>{mathml(formula)}</mtd><mtd><mtext>{html.escape(_drawn(when))}</mtext></mtd></mtr>"
        for formula, when in lines
    ]
    table = f'<mtable columnalign="left left">{"".join(rows)}</mtable>'
    return f'<div class="formula"><math display="block">{table}</math></div>'


class _Reader:
    def __init__(self, formula: str):
        self.formula, self.tokens = formula, TOKEN.findall(formula)

    def all(self) -> str:
        found = self.compared()
        if self.tokens:
            raise ValueError(f"formula {self.formula!r}: {self.tokens[0]!r} is not understood here")
        return found

    def next(self) -> str:
        return self.tokens[0] if self.tokens else ""

    def close(self, sign: str) -> None:
        if self.next() != sign:
            raise ValueError(f"formula {self.formula!r}: a {sign!r} is missing")
        self.tokens.pop(0)

    def compared(self) -> str:
        return self.row(self.sum, COMPARED)

    def sum(self) -> str:
        return self.row(self.product, SUMS)

    def row(self, part, signs) -> str:
        found = [part()]
        while self.next() in signs:
            sign = self.tokens.pop(0)
            drawn = f"<mtext>&nbsp;{sign}&nbsp;</mtext>" if sign.isalpha() else _sign(sign)
            found += [drawn, part()]
        return found[0] if len(found) == 1 else f"<mrow>{''.join(found)}</mrow>"

    def product(self) -> str:
        found = self.factor()
        while self.next() in ("*", "/") or self.begins():
            sign = self.tokens.pop(0) if self.next() in ("*", "/") else ""
            other = self.factor()
            if sign == "/":
                found = f"<mfrac>{_bare(found)}{_bare(other)}</mfrac>"
            else:
                found = f"<mrow>{found}{_sign(sign) if sign else SPACE}{other}</mrow>"
        return found

    def begins(self) -> bool:
        """Whether a factor stands here without a sign before it, as in pi t."""
        return bool(re.match(r"[A-Za-z\d]", self.next())) and self.next() not in COMPARED

    def factor(self) -> str:
        token = self.tokens.pop(0) if self.tokens else ""
        if token == "-":
            return f"<mrow>{_sign('-')}{self.factor()}</mrow>"
        for opening, closing in (("(", ")"), ("[", "]"), ("|", "|")):
            if token == opening:
                inner = self.compared()
                self.close(closing)
                return f"<mrow><mo>{opening}</mo>{inner}<mo>{closing}</mo></mrow>"
        if not re.match(r"[A-Za-z\d]", token):
            raise ValueError(f"formula {self.formula!r}: {token or 'its end'!r} is not understood here")
        if token[0].isdigit():
            number = f"<mn>{token}</mn>"
            return f"<mrow>{number}{self.factor()}</mrow>" if self.next() == "[" else number
        return self.call(_name(token)) if self.next() == "(" else _name(token)

    def call(self, name: str) -> str:
        self.tokens.pop(0)
        inner = [self.compared()]
        while self.next() == ",":
            self.tokens.pop(0)
            inner.append(self.compared())
        self.close(")")
        return f"<mrow>{name}<mo>(</mo>{'<mo>,</mo>'.join(inner)}<mo>)</mo></mrow>"


def _drawn(text: str) -> str:
    return re.sub("<=|>=", lambda found: SIGNS[found[0]], text)


def _sign(sign: str) -> str:
    return f"<mo>{html.escape(SIGNS.get(sign, sign))}</mo>"


def _name(token: str) -> str:
    first, _, index = token.partition("_")
    if index and len(first) == 1:
        return f"<msub>{_name(first)}<mi>{index}</mi></msub>"
    return f"<mi>{GREEK.get(token, token)}</mi>"


def _bare(part: str) -> str:
    """Without the parentheses that a fraction's line takes the place of."""
    inner = re.fullmatch(r"<mrow><mo>\(</mo>(.*)<mo>\)</mo></mrow>", part)
    return f"<mrow>{inner[1]}</mrow>" if inner and _balanced(inner[1]) else part


def _balanced(text: str) -> bool:
    depth = 0
    for sign in re.findall(r"<mo>([()])</mo>", text):
        depth += 1 if sign == "(" else -1
        if depth < 0:
            return False
    return depth == 0

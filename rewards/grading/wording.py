r"""A value with its words: the number, its unit, and what else is said about it.

`18 \text{ km/h east}` is the value 18, the unit km/h, and the word east, which changes what is said. Which word is what
stands in `rewards/grading/vocabulary.py`.
"""

import re
from dataclasses import dataclass, field
from itertools import takewhile

from . import vocabulary
from .spelling import MATH_WORDS, balanced

_TOKEN = re.compile(
    r"\\text ?\{|\\(?:begin|end|mathbb|mathcal|overline|overrightarrow|vec|hat|bar|operatorname) ?\{[^{}]*\}"
    r"|_\{[^{}]*\}"
    r"|\\degree ?(?:C|F|K|\\text ?\{ ?[CFK] ?\})(?![a-zA-Z])|\\degree|\\mu ?(?=m\b|s\b|g\b|\\text)"
    r"|\\\$|[\u20ac\u00a3\u00a5\uffe5\u20b9]"
    r"|\\[a-zA-Z]+|\\.|[^\W\d_]+(?:[-'][^\W\d_]+)*|.",
    re.S,
)
_EXPONENT = re.compile(r"\s*\^ ?\{?([+-]?\d)\}?")
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_RANK = ("more", "less", "fewer", "greater", "larger", "smaller", "higher", "lower", "over", "under", "above", "below")


@dataclass
class Reading:
    """The values, each with its factor and its units (name to exponent), the words that carry, and the others."""

    values: list[tuple[str, int, dict[str, int]]] = field(default_factory=list)
    carrying: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    words_first: bool = False

    @property
    def silent(self) -> bool:
        return not (self.values or self.carrying or self.words)


def _tokens(text: str, inside: bool = False, before: str = "", measured: bool = False):
    """Pairs of (is a word, token); `measured` says that the last word was a unit."""
    place = 0
    while place < len(text):
        token = _TOKEN.match(text, place)[0]
        place += len(token)
        if token.startswith("\\text"):
            end = balanced(text, place - 1)
            inner = text[place:end] if end > 0 else text[place:]
            place = end + 1 if end > 0 else len(text)
            yield False, " "
            measured = yield from _tokens(inner, True, before, measured)
            before = "}"
            continue
        if token[0].isalpha():
            word = _is_word(token, before, text[place:], inside, measured)
            measured = word and vocabulary.unit(token) is not None
            yield word, token
        elif token == "\\$" or token in vocabulary.CURRENCIES:
            yield True, vocabulary.CURRENCIES[token]
        elif token.startswith("\\degree"):
            scale = re.sub(r"\\degree|\\text|[ {}]", "", token)
            rest = re.sub(r"\\text ?\{[^{}]*\}", "", text[place:])
            trailing = not re.search(r"[\d\\(]", rest) and not re.search(r"\\(?:sin|cos|tan|cot|sec|csc)", text[:place])
            yield (
                (True, {"C": "celsius", "F": "fahrenheit", "K": "kelvin", "": "degree"}[scale])
                if trailing
                else (
                    False,
                    token,
                )
            )
        elif token.startswith("\\mu"):
            yield True, "micro"
        else:
            yield False, token
        before = token if not token.isspace() else before + " "
    return measured


def _is_word(run: str, before: str, after: str, inside: bool, measured: bool) -> bool:
    known = (
        vocabulary.unit(run) is not None
        or run.lower() in vocabulary.MULTIPLIERS
        or run.lower() in vocabulary.CARRYING
        or run.lower() in vocabulary.SILENT
        or run.lower() in vocabulary.CURRENCIES
        or run.lower() in _POWERS
    )
    spaced = before == "" or before.endswith(" ")
    last = before.rstrip()[-1:]
    valued = last.isdigit() or last in ("}", ")", "!") or before.strip().lower() in _POWERS
    if not run.isascii():
        return True
    if not inside and vocabulary.unit(run) is None and after.lstrip().startswith("^"):
        return False  # the powers of Be^{2x} are no word
    if run in MATH_WORDS and not inside and not (known and valued):
        return False
    if len(run) == 1:
        ends = re.match(r"\s*(?:$|[/^,.;]|\\text|\\cdot|\^|[a-zA-Z]{2}|\s[a-zA-Z] ?\^ ?\{?-)", after) is not None
        # the s of m/s and of m s^{-1}
        follows = measured and (inside or last == "/" or re.match(r"\s*\^ ?\{?-", after) is not None)
        counted = valued and (inside or spaced and ends) or last.isdigit() and re.match(r"\s+\d", after) is not None
        return known and run.lower() != "a" and (follows or counted)
    if inside or len(run) >= 5:
        return True
    alone = before == "" and after.strip(" .") == ""
    if run.isupper():
        return alone or known and spaced or len(run) >= 3 and spaced and not re.match(r"\s*[=+*/^-]", after)
    if known:
        return spaced or last == "/" and measured or last == "$" or last.isdigit() and run in vocabulary.GLUED
    words_beside = re.match(r"\s+[a-zA-Z]{2}", after) is not None or bool(re.search(r"[a-zA-Z]{2} $", before))
    return len(run) >= 3 and spaced and (valued or words_beside or run[0].isupper())


class _Reader:
    """Reads tokens from left to right: mathematics until a word, then the words that belong to it."""

    def __init__(self, tokens: list[tuple[bool, str]]):
        self.tokens, self.place, self.found = tokens, 0, Reading()
        self.math, self.factor, self.units = "", 1, {}
        self.sign, self.power = 1, 1  # of the next unit: -1 behind a slash, 2 behind "square"
        self.closed = False  # a word has come after the number: what follows is another one

    def read(self) -> Reading:
        while self.place < len(self.tokens):
            word, token = self.tokens[self.place]
            self.place += 1
            self.word(token) if word else self.mathematics(token)
        self.close()
        return self.found

    def close(self) -> None:
        """One value is whole."""
        ends = " ,;:.~" if re.search(r"\w|\\", self.math) else " ,;:.~-"
        shown = re.sub(r"\(\s*\)|\{\s*\}", "", self.math).strip(ends)
        if shown:
            self.found.values.append((shown, self.factor, self.units))
            self.factor, self.units = 1, {}
        self.math, self.sign, self.power, self.closed = "", 1, 1, False

    def mathematics(self, token: str) -> None:
        joins = self.closed and self.units and token.strip() in ("/", "\\cdot", "*", "\\times")
        if joins and next((word for word, following in self.tokens[self.place :] if word or following.strip()), False):
            self.sign = -1 if token.strip() == "/" else 1
            return
        said = self.units or self.found.words or self.factor != 1 or self.found.carrying
        if self.closed and said and re.search(r"[\w\\+^-]", token):
            self.close()
        self.math += token

    def word(self, token: str) -> None:
        lower, name = token.lower(), vocabulary.unit(token)
        valued = bool(self.math.strip(" (+-"))
        if lower in vocabulary.MULTIPLIERS and valued:
            self.factor, self.closed = self.factor * vocabulary.MULTIPLIERS[lower], True
        elif lower in _POWERS:
            self.power = _POWERS[lower]
        elif lower in ("squared", "cubed") and self.units:
            self.units[next(reversed(self.units))] *= 2 if lower[0] == "s" else 3
        elif lower == "per" and self.units:
            self.sign = -1
        elif token == "micro":
            following = next((n for n in range(self.place, len(self.tokens)) if self.tokens[n][0]), self.place)
            self.units["micro" + "".join(token for _, token in self.tokens[following : following + 1])] = 1
            self.place, self.closed = following + 1, True
        elif name and name not in vocabulary.NEUTRAL and (valued or _currency(name, self.tokens[self.place :])):
            self.unit(name)
            self.closed = valued
        elif _carries(lower, valued, self.found):
            self.found.carrying.append(vocabulary.ALIKE.get(lower, lower))
            self.closed = valued
        elif lower not in vocabulary.SILENT and name not in vocabulary.NEUTRAL:
            self.found.words_first |= not valued and not self.found.values
            self.found.words.append(stem(token))
            self.closed = valued
        else:
            self.closed |= valued

    def unit(self, name: str) -> None:
        """A unit and the exponent behind it."""
        exponent = self.power
        rest = "".join(token for _, token in takewhile(lambda pair: not pair[0], self.tokens[self.place :]))
        if (found := _EXPONENT.match(rest)) is not None:
            exponent, length = int(found[1]), len(found[0])
            while length > 0 and self.place < len(self.tokens):
                length -= len(self.tokens[self.place][1])
                self.place += 1
        for part, times in vocabulary.COMPOUNDS.get(name, {name: 1}).items():
            self.units[part] = self.units.get(part, 0) + self.sign * exponent * times
        if vocabulary.DIMENSIONS.get(name) == "temperature":
            self.units.pop("degree", None)
        self.sign, self.power = 1, 1


def read(text: str) -> Reading:
    r"""The reading of a cleaned text.

    >>> found = read(r"18\text{ km/h east}")
    >>> found.values, found.carrying
    ([('18', 1, {'km': 1, 'h': -1})], ['east'])
    """
    return _Reader(list(_tokens(text))).read()


def _currency(name: str, after: list[tuple[bool, str]]) -> bool:
    """Whether a unit of money stands before its number: `USD 36,000`."""
    return vocabulary.DIMENSIONS.get(name) == "money" and any(c.isdigit() for _, token in after for c in token)


def _carries(word: str, valued: bool, found: Reading) -> bool:
    if word in _RANK:
        return not valued or bool(found.carrying)
    if word in ("left", "right"):
        return not found.words
    return word in vocabulary.CARRYING


def stem(word: str) -> str:
    lower = word if word.isupper() and len(word) > 1 else word.lower()
    return lower[:-1] if len(lower) > 3 and lower.endswith("s") and not lower.endswith("ss") else lower

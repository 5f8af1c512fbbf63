r"""Where an answer falls into several: its values, the parts of a tuple, the two sides of an equation."""

import re

from .spelling import balanced

_STEP = re.compile(
    r"\\text ?\{|\\(?:lbrack|rbrack|langle|rangle|lfloor|rfloor|lceil|rceil|cup|lor|land|vee|wedge)(?![a-zA-Z])"
    r"|\\begin\{[a-z*]+\}|\\end\{[a-z*]+\}|\\[a-zA-Z]+|\\.|[^\W\d_]+|\d+(?:,\d+)+|\s+|.",
    re.S,
)
_OPEN = {"(", "[", "{", "\\{", "\\langle", "\\lfloor", "\\lceil", "\\lbrack"}
_CLOSE = {")", "]", "}", "\\}", "\\rangle", "\\rfloor", "\\rceil", "\\rbrack"}
_JOINING = re.compile(r"\s*[,;]?\s*(and|or|as well as)\s*[,;]?\s*", re.I)
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+")


def steps(text: str) -> list[tuple[str, int]]:
    r"""The text's tokens, a `\text{...}` in one piece, each with its depth in brackets (0 outside all of them)."""
    found, place, depth = [], 0, 0
    while place < len(text):
        token = _STEP.match(text, place)[0]
        if token.startswith("\\text") and token.endswith("{"):
            end = balanced(text, place + len(token) - 1)
            token = text[place : end + 1] if end > 0 else text[place:]
            found.append((token, depth))
        elif token in _OPEN or token.startswith("\\begin"):
            found.append((token, depth))
            depth += 1
        elif token in _CLOSE or token.startswith("\\end"):
            depth -= 1
            found.append((token, depth))
        else:
            found.append((token, depth))
        place += len(token)
    return found


def is_thousands(token: str) -> bool:
    """Whether a comma may be one of thousands: 12,750 and 3,406,000, not 2500,7500 or 0,750."""
    return _THOUSANDS.fullmatch(token) is not None and not token.startswith("0")


def split_at(text: str, separator: str) -> list[str]:
    r"""The pieces between a separator that stands outside all brackets; brackets that do not close divide nothing.

    >>> split_at(r"(1,2),\{3,4\}", ","), split_at("x<2 \\text{ or } x>5", "or")
    (['(1,2)', '\\{3,4\\}'], ['x<2 ', ' x>5'])
    """
    pieces, current = [], ""
    found = steps(text)
    if found and sum(
        (token in _OPEN or token.startswith("\\begin")) - (token in _CLOSE or token.startswith("\\end"))
        for token, _ in found
    ):
        return [text]
    for token, depth in found:
        if depth == 0 and (token == separator or _is_joining(token, separator)):
            pieces.append(current)
            current = ""
        elif depth == 0 and separator == "," and re.fullmatch(r"\d+(,\d+)+", token):
            first, *middle, last = token.split(",")
            pieces += [current + first, *middle]
            current = last
        else:
            current += token
    return [*pieces, current]


def _is_joining(token: str, separator: str) -> bool:
    if separator != "or":
        return False
    words = token[token.index("{") + 1 : -1] if token.startswith("\\text") and token.endswith("}") else token
    return words.strip(" ,").lower() == "or" or token in ("\\lor", "\\vee")


def values(text: str, thousands: bool) -> list[str]:
    r"""The values of an answer, one for each comma, semicolon, `and` or `or` outside brackets.

    With `thousands`, the comma of 12,750 separates no values.

    >>> values(r"14, 52, \text{ and } 90", True), values("12,750", True), values("12,750", False)
    (['14', '52', '90'], ['12,750'], ['12', '750'])
    """
    whole = re.fullmatch(r"\\text ?\{([^{}]*)\}", text)
    if whole and re.search(r"[,;]| and | or ", whole[1]):
        return [f"\\text{{{piece}}}" for piece in values(whole[1], thousands)]
    pieces, current, found = [], "", steps(text)
    if sum(
        (token in _OPEN or token.startswith("\\begin")) - (token in _CLOSE or token.startswith("\\end"))
        for token, _ in found
    ):
        return [text]
    for token, depth in found:
        words = token[token.index("{") + 1 : -1] if token.startswith("\\text") and token.endswith("}") else token
        if depth == 0 and (token in (",", ";", "\\lor", "\\land", "\\vee", "\\wedge") or _JOINING.fullmatch(words)):
            pieces.append(current)
            current = ""
        elif depth == 0 and re.fullmatch(r"\d+(,\d+)+", token) and not (thousands and is_thousands(token)):
            first, *middle, last = token.split(",")
            pieces += [current + first, *middle]
            current = last
        else:
            current += token
    pieces.append(current)
    return [piece.strip() for piece in pieces if piece.strip()]

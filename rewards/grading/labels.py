r"""What stands before a value and names it: `Answer:`, `x =`, `\text{Area} =`."""

import re

from .spelling import balanced, clean
from .splitting import steps
from .wording import stem

_NAME = re.compile(
    r"^(?:\\text ?\{[^{}]*\}|\\(?!frac|sqrt|sin|cos|tan|log|ln|pm|int|sum|left|begin|infty|le |ge |ne )"
    r"[a-zA-Z]+ ?(?:\{[^{}]*\})?|[A-Za-z][A-Za-z ]*)+"
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
    if (
        first == ""
        or _NAME.match(first)
        or re.fullmatch(r"\|[^|]*\||[A-Z]\([^()]*\)|n\([^()]*\)|\([a-zA-Z](?: ?[,;] ?[a-zA-Z])+\)", first)
    ):
        return squeezed(first), parts[-1]
    if len(parts) == 2 and re.fullmatch(r"[a-zA-Z](?:_\{\w+\})?", parts[1]):
        return squeezed(parts[1]), first
    if len(parts) > 2 or not re.search(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", first)):
        return "", parts[-1]
    return None, text


def plain(text: str) -> str:
    """Words in small letters, without articles and the sentence's marks; empty for a text that holds mathematics."""
    text = re.sub(r"\\text ?\{([^{}]*)\}", r" \1 ", text)
    if re.search(r"[\\^_={}<>|+*/]|^[a-zA-Z]$", text.strip()):
        return ""
    text = re.sub(r"^(?:an?|the) ", "", re.sub(r"[\s.,;:!?\"]+", " ", text).strip().casefold())
    return " ".join(map(stem, text.split())) if re.search(r"[^\W\d_]{2}", text) else ""

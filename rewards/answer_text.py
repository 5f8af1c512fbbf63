r"""Answers in free text: what a completion without a box says its answer is.

    visible(text)            the text without its thinking, of which nothing counts
    answer_in(text)          what it announces: after "the final answer is", "####", "<answer>" ...; None without
    answer_for(text, gold)   that, read as what the gold answer is: a number, the letter of an option, or as it stands

Announcements are, in any language of answer_phrases.py: a noun with a link ("the answer, in cm, is 12"), a label
("Answer: 12"), a heading alone on its line, `####`, `<answer>`; the last one counts. Without any, a last sentence that
concludes ("Therefore x = 12") says the answer; and where the gold answer is a number, the last number.
"""

import re

from .answer_phrases import CLOSINGS, LANGUAGES, NEXT_QUESTION, SPECIAL_TOKENS, THINKING, WRAPPERS

MAX_CHARACTERS = 400  # of a statement that is read as an answer
TAIL = 4_000  # characters at the end of a text in which its answer is looked for: hostile texts stay cheap
PROSE_WORDS = 6  # more of them without a value are the beginning of a solution, not an answer


def _either(words, spaced: bool = True) -> str:
    """A regular expression for any of the words, the longest first."""
    found = "|".join(re.escape(word).replace(r"\ ", r"\s+") for word in sorted(set(words), key=len, reverse=True))
    return rf"(?<!\w)(?:{found})(?!\w)" if spaced else f"(?:{found})"


def _any(name: str) -> str:
    """A regular expression for the words in that field of every language."""
    parts = [_either(getattr(one, name), one.spaced) for one in LANGUAGES.values() if getattr(one, name)]
    return f"(?:{'|'.join(parts)})"


# What may stand between a noun and its link ("the answer, in cm, is"): few characters, so that it stays linear.
_BETWEEN = r"[^.\n:=?!。：？]{0,50}?"


def _announcements() -> str:
    parts = []
    for one in LANGUAGES.values():
        link, noun = _either(one.links, one.spaced), _either(one.answers, one.spaced)
        label, heading = (_either([*one.answers, *more], one.spaced) for more in (one.labels, ("final answer",)))
        unless = rf"(?!\s*{_either(one.negations, one.spaced)})" if one.negations else ""
        parts.append(rf"{noun}{_BETWEEN}(?:\s*[:：=]|{link}{unless}\s*[:：]?)")
        if one.linked:
            parts.append(rf"{_either(one.linked, one.spaced)}{_BETWEEN}{link}{unless}\s*[:：]?")
        parts.append(rf"(?m:^)[ \t#>-]*{label}[ \t]*(?:[:：=]|[–—-][ \t])")
        parts.append(rf"(?m:^)[ \t#]*{heading}[ \t]*\n")
        if one.direct:
            parts.append(_either(one.direct, one.spaced))
    return "|".join(parts)


def _denials() -> str:
    """A noun and its link with a negation beside it: "the answer is not", "la respuesta no es"."""
    parts = []
    for one in LANGUAGES.values():
        if one.negations:
            link, noun, negation = (
                _either(words, one.spaced) for words in (one.links, (*one.answers, *one.linked), one.negations)
            )
            parts.append(rf"{noun}{_BETWEEN}(?:{link}\s*{negation}|{negation}\s*{link})")
    return "|".join(parts)


_DENIED = re.compile(_denials(), flags=re.IGNORECASE)
_CONTRAST = re.compile(_any("contrasts"), flags=re.IGNORECASE)
_OPEN_END = re.compile(r"\s*or\s+(?:more|less|fewer|above|below|higher|lower|greater|larger)\b", flags=re.IGNORECASE)
_ANNOUNCED = re.compile(_announcements(), flags=re.IGNORECASE)
_CONCLUSION = re.compile(_any("conclusions"), flags=re.IGNORECASE)
_LINK = re.compile(rf"=|{_any('links')}", flags=re.IGNORECASE)
_REASON = re.compile(rf"(?<!^)[,;，；]?\s*{_any('reasons')}", flags=re.IGNORECASE)
_REFUSAL = re.compile(_any("refusals"), flags=re.IGNORECASE)
_RANGE = re.compile(_any("ranges"), flags=re.IGNORECASE)
_MULTIPLIER = re.compile(rf"\s*({_any('multipliers')})", flags=re.IGNORECASE)
_ENDING = re.compile(rf"{_either((word for one in LANGUAGES.values() for word in one.endings), spaced=False)}\s*$")
_CLOSING = re.compile(rf"\s*{_either(CLOSINGS)}", flags=re.IGNORECASE)
_NEXT = re.compile(rf"\n\s*(?:#+\s*)?{_either(NEXT_QUESTION)}\s*\d*\s*:", flags=re.IGNORECASE)
_TAG, _END_TAG = (re.compile(tag, flags=re.IGNORECASE) for tag in ("<answer>", "</answer>"))
# `####` before a number, formula or bracket, or in the last line; else it is a heading, as is "#### 1. Setup".
_HASH = re.compile(
    r"^[ \t]*####[ \t]*(?!\d+[.)][ \t]+[^\W\d_]{2})(?=[-+−$\\(\[{.\d]|\S{1,40}\s*\Z)(.+)$", flags=re.MULTILINE
)
_BOLD = re.compile(r"(?<!\w)(?:\*\*|__)(?=\S)|(?<=\S)(?:\*\*|__)(?!\w)")  # two stars between numbers are a power
_SPECIAL = re.compile(_either(SPECIAL_TOKENS, spaced=False))
_WRAPPED = re.compile(rf"\\(?:{'|'.join(WRAPPERS)})\s*\{{([^{{}}]*)\}}")
_MATHS = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|\$([^$\n]+)\$(?!\d)", flags=re.DOTALL)
_SENTENCE_END = re.compile(r"[.!?]+(?=[\s\"')]|$)|[。！？\n]")
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_WORD = re.compile(r"[^\W\d_]{2,}")
_OPTION = rf"(?:\w{{1,3}}\s+)?{_any('options')}\s*"
_LETTER = re.compile(rf"(?:{_OPTION})?(?:\(([A-J])\)|([A-J])(?=$|[\s).:,;，。、]))", flags=re.IGNORECASE)
_NAMED_LETTER = re.compile(
    rf"\(([A-J])\)|{_any('options')}\s*\(?([A-J])(?![^\W_])"
    r"|(?<!not )(?<!n't )\b(?:choose|pick|select|go with) ([A-J])\b|\b([A-J]) is (?:the )?(?:correct|right|best)\b"
)
_INVERTED = re.compile(_any("inverted"), flags=re.IGNORECASE)
_ASIDE = re.compile(r"\([^()]*[^\W\d_]{2}[^()]*\)")
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?![\d,])(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_EXPONENT = r"(?:[eE][+-]?\d+|\s*(?:\\times|\\cdot|×|\*)\s*10\^(?:\{-?\d+\}|-?\d+))"
_NUMBER = re.compile(
    r"(?:(?<![\w)\]}])(?<![\d)]\s)[-+−])?(?:\\?[$€£¥])?(?<![A-Za-z0-9_^.])"
    rf"(?:\\[dt]?frac\{{-?\d+\}}\{{\d+\}}|{_DIGITS}(?:{_EXPONENT}|/\d+)?)(?:\s?\\?%)?"
)
_GOES_ON = re.compile(r"[\^_!/]|(?:st|nd|rd|th)\b|[abceiknpqrtuvwxyz](?![a-zA-Z.])|\\(?:sqrt|pi)")  # 10^5, 5!, 3rd, 2x
# A formula ends before the first word; a single letter is a variable.
_FORMULA = re.compile(r"(?:\\[a-zA-Z]+|(?!(?<=\s)[aAI]\s+[^\W\d_]{2})[A-Za-zα-ω](?![^\W\d_])|[^\w\\]|[\d_])*")


def visible(text: str, end_of_thinking: str = "</think>") -> str:
    """The text after its thinking; what stands in a thinking that never ends is dropped, too.

    An `end_of_thinking` of "" is that of a model without one.

    >>> visible("<think>12?</think> It is 13."), visible("So: <think>12"), visible("It is 13.", "")
    (' It is 13.', 'So: ', 'It is 13.')
    """
    for start, end in (*THINKING, *([("<think>", end_of_thinking)] if end_of_thinking else [])):
        text = text.rpartition(end)[2].partition(start)[0]
    return text


def answer_in(text: str, end_of_thinking: str = "</think>") -> str | None:
    r"""The statement that a text without a box announces as its answer, without bold, `$` and the words after it.

    None where nothing is announced, or nothing after the announcement.

    >>> answer_in("Final Answer: The final answer is $[3, 9)$. I hope it is correct.")
    '[3, 9)'
    >>> answer_in("<think>The answer is 7.</think> **Answer:** x = 12, since 12 < 13"), answer_in("6 * 2 is 12.")
    ('x = 12', None)
    """
    return _announced(_cleaned(text, end_of_thinking)) or None


def answer_for(text: str, gold: str, end_of_thinking: str = "</think>") -> str | None:
    """The answer of a text without a box, read as what the gold answer is; None where there is none.

    >>> answer_for("The answer is 12 tiles.", "12"), answer_for("The answer is (B) 12 m", "B")
    ('12', 'B')
    >>> answer_for("Half of 96 is 48.", "50"), answer_for("Half of 96 is 48.", "x + 1")
    ('48', None)
    >>> answer_for("The answer is 47 or 74.", "47"), answer_for("I cannot tell which of the 48.", "48")
    (None, None)
    """
    body = _cleaned(text, end_of_thinking)
    number, letter = is_number(gold), re.fullmatch(r"\(?[A-Ja-j]\)?", gold.strip())
    read = _as_number if number else _as_letter if letter else _as_it_stands
    statement = _announced(body)
    if statement is not None:
        return read(statement)
    if len(body) <= MAX_CHARACTERS and not _REFUSAL.search(body) and not _DENIED.search(body) and _is_bare(body):
        return read(_statement(body))
    sentences = _sentences(body)
    if not sentences or any(_REFUSAL.search(one) for one in (sentences[0], *sentences[-2:])):
        return None
    last, whole = _statement(sentences[-1]), sentences[-1]
    if (denied := _DENIED.search(whole)) is not None:
        instead = _CONTRAST.search(whole, denied.end())
        return read(_statement(whole[instead.end() :])) if instead else None
    concluded = list(_CONCLUSION.finditer(last))
    link = _LINK.search(last, concluded[-1].end()) if concluded else None
    if link and (found := read(last[link.end() :].strip())):
        return found
    if letter:
        named = {"".join(found) for found in _NAMED_LETTER.findall(whole)}
        return named.pop() if len(named) == 1 else None
    return last_number(whole if _NUMBER.search(whole) else body) if number else None


def is_number(text: str) -> bool:
    r"""Whether a gold answer is one number: an integer, decimal or fraction, with or without `%` or currency.

    >>> is_number("1,250"), is_number(r"\frac{7}{12}"), is_number("-3/4"), is_number("x + 1"), is_number("3, 4")
    (True, True, True, False, False)
    """
    return bool(_NUMBER.fullmatch(text.strip().strip("$ ")))


def last_number(text: str) -> str | None:
    """The last number of a text; None where it is part of something larger, or one end of a range.

    >>> last_number("130 - 82 = 48"), last_number("down to -6 degrees"), last_number("that is 10^5")
    ('48', '-6', None)
    """
    text = _ASIDE.sub("", text)
    found = list(_NUMBER.finditer(text))
    if not found or _GOES_ON.match(text, found[-1].end()):
        return None
    if len(found) > 1:
        before, between = text[: found[-2].start()], text[found[-2].end() : found[-1].start()]
        apart = _WORD.sub("", _RANGE.sub("", between)).strip()
        if _RANGE.fullmatch(between.strip()) and not apart and (_RANGE.search(before[-12:]) or "or" in between):
            return None
    return _plain(found[-1].group())


def _cleaned(text: str, end_of_thinking: str) -> str:
    """The visible text, without bold and what follows where a base model asks itself another question."""
    body = _SPECIAL.sub(" ", visible(text, end_of_thinking)).strip()
    following = _NEXT.search(body)
    if following:
        before = body[: following.start()][-TAIL:]
        body = before if _announced(before) or _NUMBER.search(before) else body
    return _BOLD.sub("", body[-TAIL:]).strip()


def _announced(body: str) -> str | None:
    """What follows the last announcement; empty where that is nothing, None without an announcement."""
    best: tuple[int, str] | None = None
    opened = list(_TAG.finditer(body))
    if opened:
        inner = _END_TAG.split(body[opened[-1].end() :])[0].strip()
        best = (opened[-1].end() + len(inner), _announced(inner) or _statement(inner))
    for match in _HASH.finditer(body):
        if best is None or match.start() > best[0]:
            best = (match.start(), _statement(match.group(1)))
    for match in _ANNOUNCED.finditer(body):
        if _DENIED.search(match.group()):
            continue
        if best is None or match.start() > best[0]:
            rest = body[match.end() :]
            if (end := _SENTENCE_END.search(rest.partition("\n")[0])) is not None and "?" in end.group():
                continue  # "The answer is 42? No."
            statement = _statement(rest)
            if _LINK.search(match.group()) or _is_answer(statement, rest):
                best = (match.start(), statement)
    if best is None and (inverted := _INVERTED.search(body)):
        sentence = _SENTENCE_END.split(body[: inverted.start()])[-1]
        return _statement(_CONCLUSION.split(sentence)[-1])
    return best[1] if best else None


def _is_answer(statement: str, rest: str) -> bool:
    """Not where a label begins a solution: prose with a number that is not at its head, and more text after it."""
    words = _WORD.findall(_COMMAND.sub("", statement))
    prose = len(words) > PROSE_WORDS or bool(words and re.search(r"\d", statement))
    return not prose or bool(_NUMBER.match(statement)) or len(_sentences(rest)) <= 1


def _statement(rest: str) -> str:
    """The first sentence of a text, or its displayed formula, without delimiters of maths and what is said after."""
    rest = rest.lstrip(" \t\n:：=>\"'“”,，").removeprefix("\\!")
    opened = re.match(r"\\\[|\$\$", rest)
    if opened and (closed := _MATHS.match(rest)):
        line = rest[: closed.end()].replace("\n", " ") + rest[closed.end() :].partition("\n")[0]
    else:
        line = rest.partition("\n")[0]
    line = _MATHS.sub(_without_delimiters, line[:MAX_CHARACTERS])
    start = 2 if re.match(r"\(?[A-J][.)]", line) else 0  # the dot after the letter of an option ends nothing
    end = _SENTENCE_END.search(line, start)
    if end and not end.group().startswith("!"):  # a factorial is no punctuation
        line = line[: end.start()]
    reason = _REASON.search(line)
    if reason and reason.start() > 0:
        line = line[: reason.start()]
    return _ENDING.sub("", line).strip(" \t\"'“”「」『』*,;；，。")


def _without_delimiters(match: re.Match) -> str:
    inner = next(group for group in match.groups() if group is not None)
    # "$48 per week and $5" is money, no formula.
    words = _WORD.findall(_COMMAND.sub("", _WRAPPED.sub("", inner)))
    return match.group() if any(len(word) > 2 for word in words) and match.group(4) else f" {inner.strip()} "


def _sentences(text: str) -> list[str]:
    """The sentences, without those that only say goodbye."""
    found, start = [], 0
    for end in _SENTENCE_END.finditer(text):
        found.append(text[start : end.end()])
        start = end.end()
    found = [one.strip() for one in (*found, text[start:]) if one.strip(" .\n")]
    while len(found) > 1 and _CLOSING.match(found[-1]):
        found.pop()
    return found


def _is_bare(text: str) -> bool:
    """Whether the whole text is but an answer: one word, or a formula without words."""
    return bool(text) and (not re.search(r"\s", text) or not _WORD.search(_COMMAND.sub("", _WRAPPED.sub("", text))))


def _as_it_stands(statement: str) -> str | None:
    return statement or None


def _as_letter(statement: str) -> str | None:
    """The letter of the option at the head of a statement; None for two of them."""
    text = _WRAPPED.sub(r"\1", statement).strip(" \t*$")
    match = _LETTER.match(text)
    if match is None:
        return None
    letter, rest = match.group(1) or match.group(2), text[match.end() :].strip()
    bare = (
        match.group(1) is None
        and match.group() == letter
        and not rest.startswith((")", ".", ":", ",", ";", "。", "，"))
    )
    if bare and (letter.islower() or letter in "AI") and rest:
        return None  # "a triangle"
    return None if _RANGE.match(rest) and _LETTER.search(rest) else letter.upper()


def _as_number(statement: str) -> str | None:
    """The number of a statement: its formula's, or the only one; what it is part of stays with it."""
    text = _WRAPPED.sub(r" \1 ", statement)
    head = _FORMULA.match(text).group()
    value = head.rpartition("=")[2].lstrip(" \t,;:*$€£¥–—").rstrip(" \t,;:.*$€£¥–—(")
    rest = text[len(head) :]
    if not re.search(r"\d", value):
        numbers = [match.group() for match in _NUMBER.finditer(text)]
        if "=" in text[len(head) :]:
            return _as_number(text.rpartition("=")[2].strip())
        return _plain(numbers[0]) if len(numbers) == 1 and not _RANGE.search(text) else None
    if _OPEN_END.match(rest):
        return None
    if (joined := _RANGE.match(rest)) and re.match(r"\s*(?:[A-Za-z]\s*=\s*)?[-−$\\(]*\d", rest[joined.end() :]):
        return None
    multiplier = _MULTIPLIER.match(rest)
    return f"{value} {multiplier.group(1)}" if multiplier else value


def _plain(number: str) -> str:
    return re.sub(r"\\?[$€£¥]", "", number)

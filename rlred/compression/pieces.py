r"""The pieces of a text: what rlred/compression/spans.py joins to spans. One table of kinds, read from left to right.

Every pattern takes time linear in the text: a run is read once, nothing is repeated inside a repeat without a
separator between, and delimiters that have no partner are looked for once.
"""

import re
import unicodedata
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple


class Role(Enum):
    """What a piece can do in an expression."""

    WHOLE = auto()  # protected, and never joined
    OPERAND = auto()  # protected, alone too
    LETTER = auto()  # an operand beside an operator, otherwise a word
    COMMAND = auto()  # a LaTeX command without arguments: operand or operator
    OPERATOR = auto()  # protected, alone too
    LINK = auto()  # an operator between operands, otherwise punctuation
    AFTER = auto()  # belongs to the operand that it touches: 5!
    HOLE = auto()  # an operand after an operator: 3 + ? = 5
    OPEN = auto()
    CLOSE = auto()
    BAR = auto()
    MARK = auto()  # emphasis; opens or closes
    HEADING = auto()  # opens, and the end of the line closes
    SEPARATOR = auto()
    WORD = auto()
    OTHER = auto()
    NEWLINE = auto()


class Piece(NamedTuple):
    """A stretch of characters."""

    start: int
    end: int
    kind: str
    role: Role


_MARKS = "".join(chr(c) for c in range(0x300, 0x1100) if unicodedata.category(chr(c))[0] == "M")
_CJK = (
    r"\u2e80-\u2fff\u3005-\u3007\u3021-\u30ff\u3100-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # no blanks between words
)
_RAISED = r"\u00b2\u00b3\u00b9\u2070-\u209c"  # superscripts and subscripts
_FRACTIONS = r"\u00bc-\u00be\u2150-\u218b\u2460-\u24ff\u2776-\u2793"  # one half, Roman and circled numbers
L = rf"(?:[^\W\d_{_CJK}{_RAISED}{_FRACTIONS}]|[{_MARKS}])"  # a letter, with the accents that follow it
W = rf"(?:{L}|[\d_{_RAISED}{_FRACTIONS}])"  # what a name with numbers is made of
_B = r"[^\S\n]"  # a blank within the line
_START, _END = rf"(?<![^\W{_CJK}])", rf"(?![^\W{_CJK}])"  # of a word; Chinese has no blanks there

_CODE = "(?:USD|EUR|GBP|JPY|CNY|RMB|INR|CHF)"
_BEFORE = (
    rf"(?:[A-Z]{{0,3}}\\?[$\u20ac\u00a3\u00a5\u20b9\uffe5\u20a9\u20bd]{_B}?-?(?=[\d.])|{_CODE} ?(?=\d)"  # $5, US$5
    r"|(?:[#\u2116\u00a7]|No\. )(?=\d)|['\u2019](?=\d0s))"  # #7, No. 7, '90s
)
_SYMBOL = (
    r"(?:[mcdk]?m|[mk]?g|[mcd]?[lL]|m?s|min|hr?s?|[kMG]?Hz|kWh|[kM]?W|k?V|k?J|k?N|k?Pa|mol|[mk]ph|ft|yd|mi|lbs?|oz"
    r"|[KMGT]B)(?:\^\{?-?\d\}?|[\u00b2\u00b3])?"
)
_MULTIPLE = rf"(?:(?:hundred|thousand|million|billion|trillion|dozen)s?|percent|o['\u2019]clock){_END}"
_PARTS = (  # 5 feet 11 inches, 2 hours and 30 minutes: a number that has a smaller unit behind its unit
    rf"\d+ (?:days?|hours?|hrs?|h|minutes?|mins?|feet|foot|ft|yards?|pounds?|lbs?)"
    rf"(?:,? (?:and )?\d+ (?:hours?|hrs?|h|minutes?|mins?|seconds?|secs?|s|inch(?:es)?|in|ounces?|oz){_END})+"
)
_HAN = (  # Chinese multiples and measures
    "[百千万亿萬億]*(?:美元|元|厘米|毫米|千米|公里|平方米|米|千克|公斤|克|吨|升|度|岁|倍|年|月|日|点|分钟|小时|时|秒|天)?"
)
_UNIT = (
    rf"(?:{_B}?(?:\\?%(?!\s?\d)|[\u2030\uff05]|\u00b0{_B}?[CF]?{_END}|[\u00a2\u20ac\u00a3\u00a5\u20bd]|[ap]\.m\.|[AaPp][Mm]{_END}|{_CODE}{_END}"
    rf"|{_SYMBOL}(?:[/\u00b7*]{_SYMBOL})*(?:/{L}+)?{_END}(?!['\u2019])|{_MULTIPLE})"
    rf"|['\u2032]\d+(?:\.\d+)?(?:[\"\u2033]|'')?|[\u2032\u2033]|{_HAN})"
)
_NUMERAL = (
    rf"(?:(?=(?:{L})*[\d_{_RAISED}{_FRACTIONS}]){W}+|{L}+(?=-\d)|(?<![\w.])\.\d{W}*)"  # 7, x_1, H2O; COVID(-19); .5
    rf"(?:[.,:/\u2013\u2044-]\d{W}*)*"  # 1,499.5, 1.4e-5, 5/8, 14:35, 2031-04-09, v1.2.3
    rf"(?:(?<=[eE])\+\d+)?(?:[\u00a0\u2009\u202f]\d{{3}}(?!\d))*(?:{_B}\d{{1,3}}/\d{{1,3}}(?![\d/]))?"  # e+6, 2 1/2
    rf"(?:-{L}{{2,}})*(?:/{L}+[\u00b2\u00b3]?)*(?:['\u2019]s(?!\w))?"  # 3-digit, $5/hour, 1870's
)
_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sep(?:t(?:ember)?)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?)\.?"
)
_DAY = rf"\d{{1,2}}(?:st|nd|rd|th)?{_END}"
_YEAR = r"(?:,? \d{4}(?!\d))"
_NAME = "[A-Za-z0-9_-]+"
_ADDRESS = r"(?:[^\s()<>\"'`*\u0080-\uffff]|\([^\s()<>]*\))*(?:[A-Za-z0-9_/#=&%~+-]|\([^\s()<>]*\))"
_FILE = (
    "py|txt|csv|tsv|jsonl?|pdf|md|html?|tex|png|jpe?g|svg|gif|docx?|xlsx?|zip|tar|gz|exe|cpp|c|h|js|ts|java|sh|ya?ml"
    "|toml|xml|sql|log"
)
_SIGN = (
    r"[+\-*/^=<>\u00b1\u00b7\u00d7\u00f7\u00ac\u2190-\u22ff\u27c0-\u27ff\u2900-\u2aff\u25b3"  # Unicode's mathematics
    r"\uff0b\uff0d\uff1d\uff1c\uff1e\uff0f\uff0a]"  # and full-width forms
)
_LETTER_END = rf"(?!{L}|['\u2019]{L}|-{L}{{2,}}|\(e?s\)(?!{_B}*{_SIGN}))"

KINDS: tuple[tuple[str, Role, str, str], ...] = (
    (
        "function",
        Role.COMMAND,
        rf"{_START}(?:arc)?(?:sin|cos|tan|cot|ln|log|exp)(?= (?:-?\d|[b-zA-HJ-Z\u03b1-\u03c9]{_END}))",
        "sin x",
    ),
    ("word", Role.WORD, r"(?!mod )[a-z]{2,}(?= )", "so"),  # most of a text, and quickly told
    ("code", Role.WHOLE, r"``(?:[^`\n]|`(?!`))+``(?!`)|`[^`\n]+`", "`n // 2`"),
    ("calculator", Role.OPERAND, r"\$?<<[^<>\n]*>>", "<<48/2=24>>"),  # GSM8K's annotations
    ("address", Role.WHOLE, rf"{_START}(?:https?://|ftp://|www\.){_ADDRESS}", "https://example.org/a?b=1"),
    (
        "address",
        Role.WHOLE,
        rf"(?<![A-Za-z0-9_.-])(?:{_NAME}\.)+(?:com|org|net|edu|gov|io){_END}(?!-)(?:/{_ADDRESS})?",
        "example.org/a",
    ),
    (
        "address",
        Role.WHOLE,
        rf"!?\[[^\[\]\n]*\]\((?:https?:|[.#/]|{_NAME}[./])[^()\s]*\)",
        "[map](https://example.org)",
    ),
    ("address", Role.WHOLE, rf"(?<![A-Za-z0-9_.+-])[A-Za-z0-9_.+-]+@{_NAME}(?:\.{_NAME})+", "ida@example.org"),
    ("path", Role.WHOLE, rf"{_START}[A-Za-z]:\\(?:[\w.-]+\\)*[\w.-]*\w", r"C:\data\rows.csv"),
    (
        "path",
        Role.WHOLE,
        rf"(?<![A-Za-z0-9_/)\]}}.~])(?:(?:~|\.{{1,2}})/{_NAME}|/{_NAME}(?:\.{_NAME})*/{_NAME})(?:[./]{_NAME})*/?",
        "/usr/local/bin",
    ),
    ("path", Role.WHOLE, rf"(?<![A-Za-z0-9_/.-])(?:{_NAME}/)*{_NAME}\.(?:{_FILE}){_END}", "src/main.py"),
    ("tag", Role.WHOLE, r"</?[A-Za-z][\w-]*(?: [\w-]+=\"[^\"<>\n]*\")*\s?/?>", "</b>"),
    ("emphasis", Role.WORD, r"(?<!\w)(_{1,2})(?=[^\s_\d])[^_\n\d]*(?<=[^\s_])\1(?!\w)", "_really_"),
    ("date", Role.OPERAND, rf"{_DAY}(?: of)? {_MONTH}{_END}{_YEAR}?", "9 April 2031"),
    ("date", Role.OPERAND, rf"{_START}{_MONTH} (?:{_DAY}{_YEAR}?|\d{{4}}{_END})", "April 9, 2031"),
    ("date", Role.OPERAND, r"\d+年\d+月(?:\d+[日号])?", "2031年4月9日"),
    ("number", Role.OPERAND, _PARTS, "5 feet 11 inches"),
    ("number", Role.OPERAND, rf"{_BEFORE}?{_NUMERAL}{_UNIT}?", "$1,200.50; 12.5 %; x_1; 3.7e18; 5/8; 14:35; H2O"),
    (
        "rate",
        Role.OPERAND,
        rf"(?:(?<![\w-])(?:{L}+-)+)?{L}+(?:/{L}+)+(?:\^-?\d|[\u00b2\u00b3])?|{L}{{2,}}\^-?\d+",
        "km/h; cm^2",
    ),
    ("word", Role.WORD, rf"{_START}(?:(?:{L}\.){{2,}}|(?:Mrs?|Ms|Dr|Prof|vs|etc|approx|Fig|Eq)\.)", "e.g."),
    ("ion", Role.OPERAND, r"(?<![A-Za-z0-9])(?:[A-Z][a-z]?){1,3}[+-](?=[\s,.;:)]|\Z)", "Na+"),
    (
        "letter",
        Role.LETTER,
        rf"(?:{L}|(?:[A-Z][a-z]?){{1,5}})['\u2032]{{0,3}}{_LETTER_END}|(?<=\()[ivxIVX]{{2,4}}(?=\))|[\u221e\u2205]",
        "x; f'; AB",
    ),
    ("link", Role.LINK, r"(?<=[\s(])mod(?=\s)", "n mod 5"),
    ("word", Role.WORD, rf"{L}+(?:['\u2019-]{L}+)*(?:\(e?s\)(?!{_B}*{_SIGN}))?|[{_CJK}]+", "twenty-four"),
    ("mark", Role.MARK, r"\*{1,3}|~~", "**"),
    ("dash", Role.OTHER, r"-{2,}(?!>)|\u2014+", "--"),
    ("operator", Role.OPERATOR, rf"<=>|[<>=!:]=|<?[-=]>|//|[%~](?=\s?\d)|{_SIGN}", "+; <=; ->"),
    ("dots", Role.HOLE, r"\.{2,}|\u2026+|\?(?!\w)", "..."),
    ("link", Role.LINK, r"(?<=\s)[:\u2013](?=\s)|(?<=\S)[:\u2013](?=\S)", "2 : 3"),
    ("after", Role.AFTER, r"!+(?!=)|\u00b0|\\[,;:!%]", "!"),
    ("open", Role.OPEN, r"[(\[{\uff08\uff3b\uff5b]|\\\{", "("),
    ("close", Role.CLOSE, r"[)\]}\uff09\uff3d\uff5d]|\\\}", ")"),
    ("bar", Role.BAR, r"\||\uff5c", "|"),
    ("escape", Role.WHOLE, r"\\[^\sA-Za-z]", r"\\"),
    ("separator", Role.SEPARATOR, r"[,;\uff0c\uff1b\u3001]", ","),
    ("other", Role.OTHER, rf"\S(?:[{_MARKS}\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]|\u200d\S)*", "."),
)
"""Kind, role, pattern, examples with "; " between. Where several patterns match, the first wins."""

LINE_STARTS: tuple[tuple[str, Role, str, str], ...] = (
    ("answer", Role.WHOLE, rf"####{_B}\S*\d\S*(?={_B}*(?:\n|\Z))", "#### 18"),  # GSM8K's last line
    ("heading", Role.HEADING, rf"#{{1,6}}(?={_B})", "##"),
    ("item", Role.WHOLE, rf"(?:[-*+\u2022]|(?:\d{{1,3}}|[A-Za-z])[.)])(?={_B})", "1."),
)
_ENCLOSED = {"```": "```", "~~~": "~~~", "[asy]": "[/asy]", "$$": "$$", "\\[": "\\]", "\\(": "\\)"}
_PROSE = {"itemize", "enumerate", "center", "quote", "document", "proof", "solution"}  # environments that hold text

_NEWLINE = re.compile(rf"{_B}*\n\s*")
_BLANKS = re.compile(r"\s*")
_OPENER = re.compile("|".join(map(re.escape, _ENCLOSED)))
_DOLLARS = re.compile(rf"\$((?:\\.|[^$\\\n]|\n(?!{_B}*\n))+)\$(?!\d)")
_TAIL = re.compile(rf"(?:-{L}+)+(?!{W})|(?:th|st|nd|rd|s)(?!{W})")  # the $x$-axis, the $n$th
_COMMAND = re.compile(r"\\[A-Za-z]+\*?")
_OPTION = re.compile(r"\[[^\[\]{}\n]*\](?=\{)")
_ENVIRONMENT = re.compile(r"\\(begin|end)\{([A-Za-z]+\*?)\}")


def _compiled(kinds) -> re.Pattern:
    return re.compile("|".join(f"(?P<k{i}>{_local(p, i)})" for i, (_, _, p, _) in enumerate(kinds)))


def _local(pattern: str, index: int) -> str:
    """The pattern with a name for its group, if it has one: numbers would count those of other patterns."""
    return pattern.replace("(_{1,2})", f"(?P<u{index}>_{{1,2}})").replace(r"\1", f"(?P=u{index})")


_PIECE, _START = _compiled(KINDS), _compiled(LINE_STARTS)


def split_pieces(text: str) -> list[Piece]:
    """The pieces of a text, in order; all characters but blanks are in one of them.

    >>> [(piece.kind, text[piece.start : piece.end]) for text in ["Then x_1 = 2!"] for piece in split_pieces(text)]
    [('word', 'Then'), ('number', 'x_1'), ('operator', '='), ('number', '2'), ('after', '!')]
    """
    return list(_pieces(text))


def _pieces(text: str) -> Iterator[Piece]:
    braces, environments, tables, absent = _braces(text), _environments(text), _tables(text), set()
    position, line_start = 0, True
    while position < len(text):
        if newline := _NEWLINE.match(text, position):
            position, line_start = newline.end(), True
            yield Piece(*newline.span(), "newline", Role.NEWLINE)
            continue
        position = _BLANKS.match(text, position).end()
        if position == len(text):
            return
        if line_start and position in tables:
            piece = Piece(position, tables[position], "table", Role.WHOLE)
        elif position in environments:
            piece = Piece(position, environments[position], "environment", Role.WHOLE)
        else:
            piece = (
                _enclosed(text, position, line_start, absent)
                or _command(text, position, braces)
                or (line_start and _match(_START, LINE_STARTS, text, position))
                or _match(_PIECE, KINDS, text, position)
            )
        yield piece
        position, line_start = piece.end, False


def _match(pattern: re.Pattern, kinds, text: str, position: int) -> Piece | None:
    if match := pattern.match(text, position):
        kind, role, _, _ = kinds[int(match.lastgroup[1:])]
        return Piece(position, match.end(), kind, role)
    return None


def _enclosed(text: str, position: int, line_start: bool, absent: set[str]) -> Piece | None:
    """What stands between two delimiters: code, drawings, formulas. `absent` holds those that do not come any more."""
    opener = _OPENER.match(text, position)
    if opener and (opener.group() != "~~~" or line_start):
        closer = _ENCLOSED[opener.group()]
        closed = -1 if closer in absent else text.find(closer, opener.end() + 1)
        if closer in ("```", "~~~", "[/asy]"):
            if closed < 0 and closer == "[/asy]":
                return None
            return Piece(position, closed + len(closer) if closed >= 0 else len(text), "code", Role.WHOLE)
        if closed >= 0:
            return Piece(position, _with_tail(text, closed + len(closer)), "formula", Role.OPERAND)
        absent.add(closer)
    if (inline := _DOLLARS.match(text, position)) and _is_formula(inline.group(1)):
        return Piece(position, _with_tail(text, inline.end()), "formula", Role.OPERAND)
    return None


def _is_formula(inner: str) -> bool:
    """Whether what stands between two dollars is a formula, and not "5 and " as in "$5 and $3"."""
    if re.search(r"\\[A-Za-z]", inner):
        return True
    if inner.startswith("<<") or re.search(r"[A-Za-z]{2}\s+[A-Za-z]{2}", inner):
        return False
    if re.match(r"[\d.]", inner) and re.search(r"\s[A-Za-z]{2}|\n", inner):
        return False
    blanks = inner[0].isspace() + inner[-1].isspace()
    return (
        blanks == 0
        or re.search(r"[=^_<>]", inner) is not None
        or (blanks == 2 and not re.search(r"[^\W\d_]{2}", inner))
    )


def _with_tail(text: str, end: int) -> int:
    tail = _TAIL.match(text, end)
    return tail.end() if tail else end


def _command(text: str, position: int, braces: dict[int, int]) -> Piece | None:
    r"""A command of LaTeX with its arguments: \frac{1}{2}, \sqrt[3]{8}."""
    command = _COMMAND.match(text, position)
    if command is None:
        return None
    end = command.end()
    while True:
        option = _OPTION.match(text, end)
        start = option.end() if option else end
        if start not in braces:
            break
        end = braces[start]
    return Piece(position, end, "command", Role.COMMAND if end == command.end() else Role.OPERAND)


def _braces(text: str) -> dict[int, int]:
    """By the index of an opening brace the index after the one that closes it, where one does."""
    found, stack = {}, []
    for match in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        if match.group() == "{":
            stack.append(match.start())
        elif match.group() == "}" and stack:
            found[stack.pop()] = match.end()
    return found


def _environments(text: str) -> dict[int, int]:
    r"""By the index of \begin{..} the index after its \end{..}; not where running text is inside."""
    found, stack = {}, []
    for match in _ENVIRONMENT.finditer(text):
        side, name = match.groups()
        if side == "begin":
            stack.append((name, match.start()))
        elif stack and stack[-1][0] == name:
            _, start = stack.pop()
            if name not in _PROSE:
                found[start] = match.end()
    return found


def _tables(text: str) -> dict[int, int]:
    """By the index of a Markdown table's first character that of its end; the line of dashes is what makes a table."""
    found, lines, position = {}, [], 0
    for line in text.split("\n"):
        lines.append((position, line.rstrip()))
        position += len(line) + 1
    number = 1
    while number < len(lines):
        dashes = lines[number][1]
        if "|" in lines[number - 1][1] and "|" in dashes and "-" in dashes and set(dashes) <= set("|-: \t"):
            start, head = lines[number - 1]
            while number + 1 < len(lines) and "|" in lines[number + 1][1]:
                number += 1
            end, last = lines[number]
            found[start + len(head) - len(head.lstrip())] = end + len(last)
        number += 1
    return found

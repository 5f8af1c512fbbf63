r"""One spelling for an answer: what never changes its value is taken off, before anything is compared.

`clean` is a list of rules in order; each stands beside the pair of spellings that made it necessary. Units, labels and
other words stay: they may carry the value (`rewards/grading/forms.py`).
"""

import re
import unicodedata

# Characters that have a name in LaTeX; NFKC, which comes after, would take some of them for others (a superscript 2
# for 2, a double-struck R for R).
SIGNS = {
    "\u2212": "-", "\u2013": "-", "\u2014": "-", "\u2010": "-", "\u2011": "-", "\u2012": "-", "\ufe63": "-",
    "\u00d7": r"\times ", "\u00b7": r"\cdot ", "\u22c5": r"\cdot ", "\u2219": r"\cdot ", "\u2217": "*",
    "\u00f7": "/", "\u2044": "/", "\u2215": "/",
    "\u03c0": r"\pi ", "\u221e": r"\infty ", "\u2264": r"\le ", "\u2a7d": r"\le ", "\u2265": r"\ge ", "\u2a7e": r"\ge ",
    "\u2260": r"\ne ", "\u2248": r"\approx ", "\u2243": r"\approx ", "\u2245": r"\cong ", "\u2261": r"\equiv ",
    "\u222a": r"\cup ", "\u2229": r"\cap ", "\u2205": r"\emptyset ", "\u00d8": r"\emptyset ", "\u2208": r"\in ",
    "\u211d": r"\mathbb{R}", "\u2124": r"\mathbb{Z}", "\u2115": r"\mathbb{N}", "\u211a": r"\mathbb{Q}",
    "\u2102": r"\mathbb{C}", "\u2216": r"\setminus ", "\u00b1": r"\pm ", "\u2213": r"\mp ", "\u00b0": r"\degree ",
    "\u00ba": r"\degree ", "\u2192": r"\to ", "\u27f6": r"\to ", "\u21d2": r"\to ", "\u2032": "'", "\u2019": "'",
    "\u2018": "'", "\u2033": "''", "\u2234": r"\therefore ", "\u2220": r"\angle ", "\u25b3": r"\triangle ",
    "\u2206": r"\triangle ", "\u2211": r"\sum ", "\u222b": r"\int ", "\u2026": r"\ldots ", "\u22ef": r"\ldots ",
    "\u3002": ".", "\uff61": ".", "\u3001": ",", "\u2713": " ", "\u2714": " ", "\u2705": " ", "\u220e": " ",
    "\u25a0": " ", "\u25a1": " ", "\u2236": ":", "\u2308": r"\lceil ", "\u2309": r"\rceil ", "\u230a": r"\lfloor ",
    "\u230b": r"\rfloor ", "\u27e8": r"\langle ", "\u27e9": r"\rangle ", "\u2103": r"\degree C", "\u2109": r"\degree F",
    "\u00b5": r"\mu ", "\u00a2": r"\text{ cents}", "\u2223": "|", "\u2202": r"\partial ", "\u201c": " ", "\u201d": " ",
}  # fmt: skip
_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron - rho - sigma tau upsilon phi"
)
_GREEK += " chi psi omega"
SIGNS |= {chr(0x3B1 + n): f"\\{name} " for n, name in enumerate(_GREEK.split()) if name != "-"}
SIGNS |= {chr(0x391 + n): f"\\{name} " for n, name in [(2, "Gamma"), (3, "Delta"), (7, "Theta"), (10, "Lambda")]}
SIGNS |= {"\u03a3": r"\Sigma ", "\u03a6": r"\Phi ", "\u03a8": r"\Psi ", "\u03a9": r"\Omega ", "\u03c6": r"\phi "}
_SIGNS = str.maketrans(SIGNS)
_RAISED = str.maketrans(
    "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b\u207f\u2071", "0123456789+-ni"
)
_LOWERED = str.maketrans("\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089\u2099\u2093", "0123456789nx")
_VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215e]")
_ROOT = re.compile("([\u221a\u221b\u221c])\\s*(\\(|\\{|[\\w.]+|\\\\pi)")

# Commands whose content counts as it stands, and those whose content is words.
STYLES = (
    "mathbf boldsymbol bm pmb underline underbar overbrace underbrace mathcal mathscr mathsf mathtt mathit ensuremath"
    " uline emphmath textcircled circled boxed fbox framebox displaystyle textstyle"
).split()
TEXTS = "text textbf textit textrm textsf texttt textnormal mathrm mbox hbox emph operatorname textup rm bf it".split()
_COMMAND = re.compile(r"\\([a-zA-Z]+)\*?\s*(?=\{)|\\[\\{}]|[{}]")
_CLOSED = re.compile(r"\\[\\{}]|[{}]")
_ENDS = re.compile(
    r"(?:\s|\\(?:blacksquare|square|Box|qed|checkmark|hfill|newline|quad)(?![a-zA-Z])|\\\\|\\[,;:!]|\\$|[,;:]|(?<!\.)\.|\\text\{[\s.,;:]*\})+$"
)
MATH_WORDS = (
    "sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan log ln lg exp sqrt max min gcd lcm mod det lim sup inf"
    " deg dim ker arg pi"
).split()


def balanced(text: str, start: int) -> int:
    """The place of the brace that closes the one at `start`; -1 where none does."""
    depth = 0
    for match in _CLOSED.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return match.start()
    return -1


def _unicode(text: str) -> str:
    text = re.sub(
        "[\u2070\u00b9\u00b2\u00b3\u2074-\u207b\u207f\u2071]+", lambda m: "^{" + m[0].translate(_RAISED) + "}", text
    )
    text = re.sub("[\u2080-\u2089\u2099\u2093]+", lambda m: "_{" + m[0].translate(_LOWERED) + "}", text)
    text = _VULGAR.sub(_vulgar, text).translate(_SIGNS)
    text = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) not in ("Cf", "Cs"))
    text = re.sub(r"[\x00-\x08\x0e-\x1f\x7f]", "", text.translate(_SIGNS))
    return _ROOT.sub(_root, text)


def _vulgar(match: re.Match) -> str:
    upper, _, lower = unicodedata.normalize("NFKD", match[0]).partition("\u2044")
    return f" \\frac{{{upper}}}{{{lower}}}" if lower else match[0]


def _root(match: re.Match) -> str:
    head = {"\u221a": r"\sqrt", "\u221b": r"\sqrt[3]", "\u221c": r"\sqrt[4]"}[match[1]]
    return head + match[2] if match[2] in ("(", "{") else f"{head}{{{match[2]}}}"


def _delimiters(text: str) -> str:
    text = re.sub(r"(?<!\\)\\[()\[\]]", " ", text)
    dollars = [m.start() for m in re.finditer(r"(?<!\\)\$", text)]
    if len(dollars) % 2 and re.match(r"\$\s*\d", text[dollars[0] :]):  # `$36,000`: one sign opens no formula
        text = text[: dollars[0]] + r"\$" + re.sub(r"(?<!\\)\$", " ", text[dollars[0] + 1 :])
        return text
    return re.sub(r"(?<!\\)\$", " ", text)


def _unwrap(text: str) -> str:
    r"""Styles and colours off, one command for all that holds words: `\bm{64}` is 64, `\mbox{cm}` is `\text{cm}`."""
    found = _COMMAND.search(text)
    while found:
        name, brace = found[1], found.end()
        if name is None or (end := balanced(text, brace)) < 0:
            found = _COMMAND.search(text, found.end())
            continue
        inner, rest = text[brace + 1 : end], text[end + 1 :]
        if name in ("color", "textcolor", "colorbox"):
            rest = rest.lstrip() if name == "color" else rest
            new = "" if name == "color" else None
            if rest.startswith("{") and (close := balanced(rest, 0)) >= 0:
                rest, new = rest[1:close] + rest[close + 1 :], ""
            text = text[: found.start()] + (" " if new is not None else inner) + rest
        elif name in ("phantom", "hphantom", "vphantom", "hspace", "vspace", "label", "tag", "kern"):
            text = text[: found.start()] + " " + rest
        elif name in STYLES:
            text = text[: found.start()] + " " + inner + rest
        elif name in TEXTS and (formula := _as_mathematics(inner, name)):
            text = text[: found.start()] + " " + formula + " " + rest
        elif name in TEXTS and name != "text":
            text = text[: found.start()] + r"\text{" + inner + "}" + rest
            found = _COMMAND.search(text, found.start() + 6)
            continue
        else:
            found = _COMMAND.search(text, found.end())
            continue
        found = _COMMAND.search(text, found.start())
    return text


def _as_mathematics(inner: str, command: str) -> str | None:
    r"""What `\text{...}` holds, where that is mathematics: `\text{6:50}`, `\mathrm{e}`, `\operatorname{lcm}`."""
    name = inner.strip()
    if name in MATH_WORDS and (command == "operatorname" or name not in ("min", "max", "deg", "inf")):
        return "\\" + name
    if name in ("e", "i", "d") or name and "\\" not in name and not any(c.isalpha() for c in name):
        return name
    return None


def _power(match: re.Match) -> str:
    return "^"


# (what, pattern, replacement, a spelling and what it becomes the same as)
RULES = [
    (name, re.compile(pattern), replacement, pair)
    for name, pattern, replacement, pair in [
        ("line break", r"\\\\(?=\s*$)|\\newline(?![a-zA-Z])", " ", (r"64 \\", "64")),
        ("negative space", r"\\!\s*", "", (r"9,\!375", "9,375")),
        (
            "space",
            r"(?<!\\)\\[,;:> ]|~|\\(?:quad|qquad|enspace|thinspace|space|hfill)(?![a-zA-Z])",
            " ",
            (r"12\,750", "12 750"),
        ),
        ("plus or minus", r"\+ ?/ ?-", r"\\pm ", ("+/-3", r"\pm 3")),
        (
            "infinity",
            r"\\text\{\s*infinity\s*\}|(?<![\\a-zA-Z{])(?:inf|infty|infinity)(?![a-zA-Z])",
            r"\\infty ",
            ("(-inf, 3)", r"(-\infty, 3)"),
        ),
        ("union", r"(?<=[)\]])\s*U\s*(?=[(\[])", r" \\cup ", ("(0,1) U (3,4)", r"(0,1) \cup (3,4)")),
        ("whose dollars", r"(?<![a-zA-Z])(?:US|U\.S\.|[AC]|AU|CA|HK|NZ)\s?\\\$", r"\\$", (r"US\$48", r"\$48")),
        ("square", r"(?<![a-zA-Z])(sq|cu)(?:\.\s*|\s+)(?=[a-zA-Z])", r"\1 ", ("12 sq. cm", "12 sq cm")),
        ("size", r"\\m?(?:left|right|middle|[bB]igg?[lrm]?)(?![a-zA-Z])\s*\.?", "", (r"\left(2\right)", "(2)")),
        (
            "display",
            r"\\(?:displaystyle|textstyle|limits|nolimits|rm|bf|it|tiny|small|normalsize|[lL]arge|LARGE|[hH]uge)(?![a-zA-Z])",
            " ",
            (r"\displaystyle 5", "5"),
        ),
        ("phantom brace", r"\{\s*([,:])\s*\}", r"\1", ("29{,}000", "29,000")),
        ("fraction", r"\\(?:[dtcsx]|nice)frac(?![a-zA-Z])", r"\\frac", (r"\dfrac{1}{2}", r"\frac{1}{2}")),
        ("at most", r"\\(?:leq?q?|leqslant|lte)(?![a-zA-Z])|<=|=<", r"\\le ", (r"x \leq 6", "x <= 6")),
        ("at least", r"\\(?:geq?q?|geqslant|gte)(?![a-zA-Z])|>=", r"\\ge ", (r"x \geqslant 6", "x >= 6")),
        ("unequal", r"\\(?:neq?|not\s*=)(?![a-zA-Z])|!=", r"\\ne ", (r"x \neq 9", "x != 9")),
        ("less", r"\\lt(?![a-zA-Z])", "<", (r"x \lt 6", "x < 6")),
        ("more", r"\\gt(?![a-zA-Z])", ">", (r"x \gt 6", "x > 6")),
        (
            "arrow",
            r"\\(?:long)?rightarrow(?![a-zA-Z])|\\(?:implies|Rightarrow)(?![a-zA-Z])|[-=]>",
            r"\\to ",
            ("A -> B", r"A \to B"),
        ),
        ("dots", r"\\(?:[lc]?dots[cbm]?)(?![a-zA-Z])|\.\s?\.\s?\.", r"\\ldots ", ("0, 7, ...", r"0, 7, \ldots")),
        (
            "empty set",
            r"\\varnothing(?![a-zA-Z])|\\\{\s*\\\}|\\empty(?![a-zA-Z])",
            r"\\emptyset ",
            (r"\{\}", r"\emptyset"),
        ),
        (
            "degree",
            r"\^\s*\{?\s*\\(?:circ|degree)(?![a-zA-Z])\s*\}?|\\(?:degree|textdegree)(?![a-zA-Z])|\^\s*o\b",
            r"\\degree ",
            (r"40^{\circ}", "40^\\circ"),
        ),
        (
            "ordinal",
            r"(?<=\d)\s*(?:\^\s*\{?\s*)?(?:\\text\{\s*(?:st|nd|rd|th)\s*\}|(?:st|nd|rd|th)\b)(?:\s*\})?",
            "",
            ("18th", "18"),
        ),
        (
            "real line",
            r"\\(?:R|reals|Reals)(?![a-zA-Z])|\\Bbb\s*\{?R\}?|\\mathbb\s*R",
            r"\\mathbb{R}",
            (r"\R", r"\mathbb{R}"),
        ),
        ("logarithm", r"\\lg(?![a-zA-Z])", r"\\log_{10} ", (r"\lg 1000", r"\log_{10} 1000")),
        ("percent", r"\s*(?:\\text\{\s*)?\b(?:percent|per cent|pct)\b\s*\}?|(?<!\\)%", r"\\%", ("35 percent", r"35\%")),
        ("set braces", r"\\lbrace(?![a-zA-Z])", r"\\{", (r"\lbrace 1 \rbrace", r"\{1\}")),
        ("set braces", r"\\rbrace(?![a-zA-Z])", r"\\}", (r"\lbrace 1 \rbrace", r"\{1\}")),
        ("bar", r"\\(?:[lr]?vert|mid)(?![a-zA-Z])", "|", (r"\lvert x \rvert", "|x|")),
        ("divided", r"\\div(?![a-zA-Z])", "/", (r"8 \div 2", "8/2")),
        ("colon", r"\\colon(?![a-zA-Z])", ":", (r"5\colon 3", "5:3")),
        (
            "choose",
            r"\{?\s*([\w+-]+)\s*\\choose(?![a-zA-Z])\s*([\w+-]+)\s*\}?",
            r"\\binom{\1}{\2}",
            (r"{5 \choose 2}", r"\binom{5}{2}"),
        ),
        (
            "over",
            r"\{?\s*([\w+-]+)\s*\\over(?![a-zA-Z])\s*([\w+-]+)\s*\}?",
            r"\\frac{\1}{\2}",
            (r"{5 \over 2}", r"\frac{5}{2}"),
        ),
        ("choice", r"\\[dt]?binom\s*(\d)\s*(\d)", r"\\binom{\1}{\2}", (r"\binom52", r"\binom{5}{2}")),
        ("root of a digit", r"\\sqrt\s*([0-9a-zA-Z])", r"\\sqrt{\1}", (r"6\sqrt2", r"6\sqrt{2}")),
        ("fraction of digits", r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", (r"\frac37", r"\frac{3}{7}")),
        ("fraction of a digit", r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{", (r"\frac3{7}", r"\frac{3}{7}")),
        ("fraction by a digit", r"\\frac\s*\{([^{}]*)\}\s*(\d)", r"\\frac{\1}{\2}", (r"\frac{3}7", r"\frac{3}{7}")),
        ("Python's power", r"(?<=[\w)}])\s*\*\*\s*(?=[\w({-])", "^", ("2**6", "2^6")),
        (
            "times ten",
            r"(?<=\d)\s*(?:x|X|\*|\\times|\\cdot)\s*10\s*(?:\^|\*\*)\s*\{?\s*([+-]?\d+)\s*\}?",
            r" \\times 10^{\1}",
            ("4.5 x 10^5", r"4.5 \times 10^{5}"),
        ),
        (
            "e notation",
            r"(?<![\w.])(\d+\.?\d*|\.\d+)[eE]([+-]?)\+?0*(\d+)(?![\w.])",
            r"\1 \\times 10^{\2\3}",
            ("4.5e5", r"4.5 \times 10^{5}"),
        ),
        ("braced exponent", r"\^\s*([0-9a-zA-Z])(?![0-9])", r"^{\1}", ("6x^2", "6x^{2}")),
        ("braced index", r"_\s*(\d+|[a-zA-Z])(?![a-zA-Z0-9])", r"_{\1}", ("a_1", "a_{1}")),
        (
            "modulus",
            r"\(?\s*\\?(?:pmod|bmod|mod)(?![a-zA-Z])\s*\{?\s*(\d+)\s*\}?\s*\)?",
            r" \\pmod{\1}",
            (r"5 \pmod 9", r"5 (\bmod 9)"),
        ),
        ("about", r"^\s*(?:\\approx|\\therefore|\\because|\\implies|\\sim)(?![a-zA-Z])", " ", (r"\approx 47", "47")),
    ]
]
_ONE_CELL = re.compile(
    r"^\\begin\{(array|aligned?|gathered|split|equation|center|align\*|equation\*)\}(?:\{[lcr|]*\})?(.*)\\end\{\1\}$",
    re.S,
)


_ASSIGNED = re.compile(r"\s*[a-zA-Z](?:_\{?\w\}?)?\s*=[^&]+")
_SYSTEM = re.compile(r"^\\begin\{(cases|aligned?|align\*|gathered|array)\}(?:\{[lcr|]*\})?(.*)\\end\{\1\}$", re.S)
_LISTED_ROW = r"\[[^\[\]]+\]"


def _environments(text: str) -> str:
    system = _SYSTEM.match(text.strip())
    rows = [re.sub(r"&(?=\s*=)|(?<==)\s*&", "", row) for row in (system[2] if system else text).split("\\\\")]
    rows = [row for row in rows if row.strip()]
    if len(rows) > 1 and all(_ASSIGNED.fullmatch(row) for row in rows):  # x = 1 \\ y = 2
        return ", ".join(row.strip(" ,;.") for row in rows)
    if re.fullmatch(rf"\[\s*{_LISTED_ROW}(?:\s*,\s*{_LISTED_ROW})*\s*\]", text.strip()):  # [[1, 2], [3, 4]]
        rows = re.findall(_LISTED_ROW, text.strip()[1:-1])
        text = r"\begin{pmatrix}" + r"\\".join(row[1:-1].replace(",", "&") for row in rows) + r"\end{pmatrix}"
    one = _ONE_CELL.match(text.strip())
    if one and "\\\\" not in one[2].strip().rstrip("\\") and (one[1] != "array" or "&" not in one[2]):
        return one[2].replace("&", " ").strip().rstrip("\\")
    text = re.sub(r"\\begin\{array\}\s*\{[lcr|\s]*\}", r"\\begin{pmatrix}", text).replace(
        r"\end{array}", r"\end{pmatrix}"
    )
    text = re.sub(r"\\(begin|end)\{(?:[bBp]?matrix|smallmatrix)\}", r"\\\1{pmatrix}", text)
    return re.sub(
        r"[(\[]\s*(\\begin\{pmatrix\}[^\\]*(?:\\(?!end\{pmatrix\})[^\\]*)*\\end\{pmatrix\})\s*[)\]]", r"\1", text
    )


def _outside(text: str) -> str:
    """Markdown, braces around all and the punctuation of the sentence, however they are nested."""
    for _ in range(12):
        before, text = text, text.strip()
        text = _ENDS.sub("", text) if not text.endswith(("\\ldots", "\\,")) else text
        for mark in ("**", "__", "*", "`", "_"):
            if text.startswith(mark) and text.endswith(mark) and len(text) > 2 * len(mark):
                text = text[len(mark) : -len(mark)]
        if text.startswith("{") and balanced(text, 0) == len(text) - 1:
            text = text[1:-1]
        if text == before:
            break
    return text


def clean(text: str) -> str:
    r"""The answer in the one spelling that answers are compared in.

    >>> clean(r"**$\dfrac12$**."), clean("\uff13\uff18\u00b2"), clean(r"{\color{red} 64} \text{ cm}")
    ('\\frac{1}{2}', '38^{2}', '64 \\text{ cm}')
    """
    text = re.sub(r"\\\\\[[\d.]+ ?(?:mm|cm|pt|em|ex|in)\]", r"\\\\", text)  # the height of a row
    text = _outside(_delimiters(_unicode(text)))
    if "matrix" not in text and "array" not in text and "cases" not in text and "align" not in text:
        text = re.sub(r"\\\\(?=[a-zA-Z])(?![a-zA-Z](?:_\w)?\s*=)", r"\\", text)  # a string that was escaped twice
    text = _outside(_unwrap(text))
    if "\\begin" not in text:  # no separator of cells
        text = re.sub(r"\\?&", r" \\text{ and } ", text)
    for _, pattern, replacement, _ in RULES:
        text = pattern.sub(replacement, text)
    text = _outside(_environments(re.sub(r"^\{([^{}]*)\}(?=\s)", r"\1", text)))
    return re.sub(r"\s+", " ", text).strip()

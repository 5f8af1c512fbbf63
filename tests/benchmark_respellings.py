r"""Gold answers of MATH-500, spelled in 36 other ways that mean the same and in 12 that do not: what is accepted.

    python -m tests.benchmark_respellings [--golds 100] [--show 3]

Each way is tried on the first golds (in a fixed shuffle) that it changes, up to `--golds`. Prints a table for
docs/reliability.md; with `--show`, also the first spellings that were judged against the expectation.
"""

import argparse
import json
import random
import re
from fractions import Fraction

from rlred.rewards import Correctness
from tests.paths import ROOT

MATH = ROOT.parent / "shared" / "data" / "math500" / "test.jsonl"
NUMBER = re.compile(r"-?\d+(\.\d+)?")
INTEGER = re.compile(r"-?\d+")
FULL = str.maketrans(
    "0123456789+-=(),",
    "\uff10\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18\uff19\uff0b\uff0d\uff1d\uff08\uff09\uff0c",
)
RAISED = str.maketrans("0123456789", "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")


def is_words(gold):
    return "\\text" in gold and not re.search(r"\d", gold)


def plain_number(gold):
    return NUMBER.fullmatch(gold) is not None


def formula(gold):
    """Whether blanks, brackets and signs may be put around: no words, no units, no list."""
    return "\\text" not in gold and "\\mbox" not in gold and "," not in gold


def on(condition, change):
    """The change where the condition holds; the text unchanged elsewhere, which takes it out of the way's golds."""
    return lambda gold: change(gold) if condition(gold) else gold


def fraction_of(gold):
    found = Fraction(gold)
    return f"\\frac{{{found.numerator * 3}}}{{{found.denominator * 3}}}"


def decimal_of(gold):
    found = re.fullmatch(r"(-?)\\d?frac\{?(\d+)\}?\{?(\d+)\}?", gold)
    value = Fraction(int(found[2]), int(found[3])) if found else None
    if value is None or re.sub(r"[25]", "", "".join(map(str, _factors(value.denominator)))):
        return gold
    return found[1] + format(float(value), ".10f").rstrip("0").rstrip(".")


def _factors(number):
    found, prime = [], 2
    while number > 1:
        while number % prime == 0:
            found, number = [*found, prime], number // prime
        prime += 1
    return found


def commuted(gold):
    found = re.fullmatch(r"([^-+(){}=,<>]+) ?\+ ?([^-+(){}=,<>]+)", gold)
    return f"{found[2].strip()} + {found[1].strip()}" if found else gold


def reordered(gold):
    parts = [part.strip() for part in gold.split(",")]
    listed = len(parts) > 1 and not re.search(r"[(){}\\]", gold) and all(map(NUMBER.fullmatch, parts))
    return ", ".join(reversed(parts)) if listed and "!" not in gold else gold


def grouped(gold):
    return f"{int(gold):,}" if INTEGER.fullmatch(gold) and len(gold) > 4 else gold


def mixed(gold):
    found = re.fullmatch(r"\\d?frac\{(\d+)\}\{(\d+)\}", gold)
    if not found or int(found[1]) < int(found[2]) or int(found[1]) % int(found[2]) == 0:
        return gold
    whole, rest = divmod(int(found[1]), int(found[2]))
    return f"{whole}\\frac{{{rest}}}{{{found[2]}}}"


WAYS = {
    r"\dfrac": lambda g: re.sub(r"\\d?frac", r"\\dfrac", g),
    r"\tfrac": lambda g: re.sub(r"\\d?frac", r"\\tfrac", g),
    r"\frac12 without braces": lambda g: re.sub(r"\\d?frac\{(\d)\}\{(\d)\}", r"\\frac\1\2", g),
    "a/b for a fraction": lambda g: re.sub(r"^(-?)\\d?frac\{(\d+)\}\{(\d+)\}$", r"\1\2/\3", g),
    "a mixed number": mixed,
    "a decimal for an exact fraction": decimal_of,
    "a fraction for a number": on(plain_number, fraction_of),
    r"\left( \right)": on(lambda g: "\\left" not in g, lambda g: g.replace("(", r"\left(").replace(")", r"\right)")),
    "$ around": lambda g: f"${g}$",
    r"\( \) around": lambda g: rf"\({g}\)",
    "blanks around operators": on(formula, lambda g: re.sub(r"(?<=[\w}])([+=-])", r" \1 ", g)),
    "no blanks": on(
        lambda g: formula(g) and not re.search(r"\d \\frac", g),
        lambda g: re.sub(r"(?<![a-zA-Z]) | (?![a-zA-Z])", "", g),
    ),
    r"\, and \! between": on(formula, lambda g: re.sub(r"([+=])", r"\\,\1\\!", g)),
    r"\text{} around": on(
        lambda g: plain_number(g) or is_words(g), lambda g: r"\text{" + re.sub(r"\\text\{(.*)\}", r"\1", g) + "}"
    ),
    r"without \text": on(is_words, lambda g: re.sub(r"\\text\{(.*?)\}", r"\1", g)),
    r"\mathbf": lambda g: rf"\mathbf{{{g}}}",
    r"\boldsymbol": lambda g: rf"\boldsymbol{{{g}}}",
    "Markdown bold": lambda g: f"**{g}**",
    r"\color": lambda g: rf"\color{{red}}{{{g}}}",
    "a full stop": lambda g: g + ".",
    "a comma": lambda g: g + ",",
    "a unit": on(plain_number, lambda g: g + r" \text{ cm}"),
    "a counted word": on(plain_number, lambda g: g + " apples"),
    "fullwidth digits": lambda g: g.translate(FULL) if "\\" not in g and re.search(r"\d", g) else g,
    "the root sign": lambda g: re.sub(r"\\sqrt\{?(\d+)\}?", "\u221a\\1", g),
    "superscripts": lambda g: (
        re.sub(r"\^(\d)|\^\{(\d+)\}", lambda m: (m[1] or m[2]).translate(RAISED), g) if "circ" not in g else g
    ),
    "the minus sign": lambda g: g.replace("-", "\u2212"),
    "the letter pi": lambda g: g.replace("\\pi", "\u03c0"),
    "the degree sign": lambda g: re.sub(r"\^\{?\\circ\}?", "\u00b0", g),
    "thousands commas": grouped,
    r"thousands with \,": on(lambda g: grouped(g) != g, lambda g: grouped(g).replace(",", r"\,")),
    "braces around all": lambda g: "{" + g + "}",
    "x = before": on(lambda g: plain_number(g) or g.startswith("\\frac"), lambda g: "x = " + g),
    "Answer: before": lambda g: r"\text{Answer: }" + g if not is_words(g) else "Answer: " + g,
    "a commuted sum": commuted,
    "a reordered list": reordered,
}
_DIGIT = re.compile(r"\d")


def digit_changed(gold):
    found = _DIGIT.search(gold)
    return gold[: found.start()] + str((int(found[0]) + 1) % 9 + 1) + gold[found.end() :] if found else gold


NEAR_MISSES = {
    "another first digit": digit_changed,
    "a digit more": lambda g: re.sub(r"(\d)(?!.*\d)", r"\g<1>7", g),
    "the sign": lambda g: (
        g[1:] if g.startswith("-") else ("-" + g if plain_number(g) and g != "0" or g.startswith("\\frac") else g)
    ),
    "plus for minus": lambda g: re.sub(r"(?<=\w) ?- ?", "+", g, count=1),
    "a fraction turned over": lambda g: re.sub(r"^\\d?frac\{(\d+)\}\{(\d+)\}$", r"\\frac{\2}{\1}", g),
    "a tuple turned over": lambda g: re.sub(r"^\((-?\d+),\s*(-?\d+)\)$", r"(\2,\1)", g),
    "another bracket": lambda g: (
        re.sub(r"^\((?!-?\\infty)(.*)\]$", r"[\1]", g) if g.endswith("]") else re.sub(r"^(\(.*\\infty)\)$", r"[\1)", g)
    ),
    "a value more": on(plain_number, lambda g: g + ", 999"),
    "a value less": lambda g: g.split(",")[0] if re.fullmatch(r"-?\d+(, ?-?\d+)+", g) else g,
    "the root left out": lambda g: re.sub(r"\\sqrt\{(\w+)\}", r"\1", g),
    "times ten": on(lambda g: plain_number(g) and float(g) != 0, lambda g: str(Fraction(g) * 10)),
    "or another": on(plain_number, lambda g: g + r" \text{ or } " + str(Fraction(g) + 1)),
}


def rows_of(change, golds, count):
    return [(gold, spelled) for gold in golds if (spelled := change(gold)) != gold][:count]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--golds", type=int, default=100)
    parser.add_argument("--show", type=int, default=0)
    options = parser.parse_args()
    golds = list(dict.fromkeys(json.loads(line)["answer"] for line in MATH.read_text(encoding="utf-8").splitlines()))
    random.Random(0).shuffle(golds)
    reward = Correctness()
    for title, ways, wanted in (("way", WAYS, 1.0), ("near miss", NEAR_MISSES, 0.0)):
        print(f"\n| {title} | golds | {'accepted' if wanted else 'refused'} |\n|---|---|---|")
        tried = as_wanted = 0
        for name, change in ways.items():
            rows = rows_of(change, golds, options.golds)
            grades = reward([f"\\boxed{{{spelled}}}" for _, spelled in rows], solution=[gold for gold, _ in rows])
            other = [row for row, grade in zip(rows, grades, strict=True) if grade != wanted]
            tried, as_wanted = tried + len(rows), as_wanted + len(rows) - len(other)
            print(f"| {name.replace('|', '')} | {len(rows)} | {(1 - len(other) / max(1, len(rows))):.1%} |", flush=True)
            for gold, spelled in other[: options.show]:
                print(f"    {gold}  <-  {spelled}")
        print(f"| all | {tried} | {as_wanted / tried:.1%} |")


if __name__ == "__main__":
    main()

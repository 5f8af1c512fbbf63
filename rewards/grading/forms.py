r"""Forms of answers that are not one piece of mathematics: compared part by part, the parts by math-verify.

`same` asks the forms of `FORMS` in order. Each knows one form of answer, says True or False where the gold answer has
it and None where it has not; what no form decides is the judge's (`rewards/grading/judge.py`). Each stands beside the
pair that made it necessary. What is taken off before is in `rewards/grading/spelling.py`.
"""

import functools
import re

from . import judge, notations, vocabulary
from .conventions import (
    MAX_GOLD_WORDS,
    OPEN_INTERVAL_MAY_BE_A_POINT,
    PARENTHESES_MAY_HOLD_A_LIST,
    PERCENT_SIGN_MAY_BE_LEFT_OUT,
    UNIT_MAY_BE_LEFT_OUT,
)
from .exact import in_the_same_digits, rational
from .labels import named, plain, sides, squeezed, unlabelled
from .solution_sets import looks_like_a_set, same_set
from .spelling import clean
from .splitting import split_at, steps, values
from .wording import Reading, read


def same(gold: str, answer: str, depth: int = 0) -> bool:
    """Whether two cleaned texts say the same."""
    if not answer or depth > 8:
        return False
    if squeezed(gold) == squeezed(answer):
        return True
    again = functools.partial(same, depth=depth + 1)
    for _, form, _ in FORMS:
        found = form(gold, answer, again)
        if found is not None:
            return found
    return judge.equal(gold, answer)


def words_alone(gold: str, answer: str, again) -> bool | None:
    left, right = plain(gold), plain(answer)
    if left == right and left:
        return True
    return None


def numbers(gold: str, answer: str, again) -> bool | None:
    left, right = rational(gold), rational(answer)
    if left is None or right is None:
        return None
    if left == right:
        return True
    if PERCENT_SIGN_MAY_BE_LEFT_OUT and gold.endswith("%") != answer.endswith("%"):
        bare = right if gold.endswith("%") else left
        return abs(bare) >= 1 and left * (100 if gold.endswith("%") else 1) == right * (
            100 if answer.endswith("%") else 1
        )
    return False


def tuples(gold: str, answer: str, again) -> bool | None:
    left = _inside(gold)
    right = _inside(
        re.sub(r"^[A-Z]'? ?(?=\()", "", answer) if left and left[0] == "()" else answer
    )  # the point P(1, 2)
    if left is None:
        return None
    names, listed = _assignments(answer)
    if right is None and listed is not None and len(set(names)) == len(names):
        if all(re.fullmatch(r"[a-zA-Z](?:_\{\w\})?", name) for name in names):  # y = 2, x = 1 is (1, 2)
            listed = [value for _, value in sorted(zip(names, listed, strict=True))]
        return (
            left[0] == "()"
            and len(left[1]) == len(listed)
            and all(again(a, b) for a, b in zip(left[1], listed, strict=True))
        )
    if right is None:
        if looks_like_a_set(gold) or looks_like_a_set(answer) or re.search(r"[a-zA-Z=]", answer):
            return None
        given = values(answer, False)  # without its parentheses, in order
        return left[0] == "()" and len(given) == len(left[1]) and all(map(lambda a, b: again(a, b), left[1], given))
    if left[0] != right[0]:
        return None if looks_like_a_set(gold) else False
    return len(left[1]) == len(right[1]) and all(again(a, b) for a, b in zip(left[1], right[1], strict=True))


def _inside(text: str) -> tuple[str, list[str]] | None:
    r"""The brackets and the parts of `(a, b)`, `[a, b)` or `\langle a, b \rangle`."""
    text = re.sub(r"^\\langle|\\rangle$", lambda m: "(" if m[0] == "\\langle" else ")", text.strip())
    found = steps(text)
    closes = [place for place, (token, depth) in enumerate(found) if depth == 0 and token in (")", "]")]
    if not found or found[0][0] not in ("(", "[") or closes[:1] != [len(found) - 1]:
        return None
    parts = split_at(text[1:-1], ",")
    parts = split_at(text[1:-1], ";") if len(parts) == 1 else parts
    return (
        (text[0] + text[-1], [part.strip() for part in parts])
        if len(parts) > 1 and all(part.strip() for part in parts)
        else None
    )


def _each_named(text: str) -> str:
    """`(x, y) = (1, 2)` as `x = 1, y = 2`."""
    found = sides(text)
    if len(found) != 2 or not re.fullmatch(r"\( ?[a-zA-Z](?:_\{\w\})?(?: ?[,;] ?[a-zA-Z](?:_\{\w\})?)+ ?\)", found[0]):
        return text
    names, given = _inside(found[0])[1], _inside(found[1])
    if given is None or given[0] != "()" or len(given[1]) != len(names):
        return text
    return ", ".join(f"{name} = {value}" for name, value in zip(names, given[1], strict=True))


def _assignments(text: str) -> tuple[list[str], list[str] | None]:
    found = [named(part) for part in values(text, True)]
    if len(found) < 2 or any(name is None or name == "" for name, _ in found):
        return [], None
    return [name for name, _ in found], [value for _, value in found]


def set_of_numbers(gold: str, answer: str, again) -> bool | None:
    if not looks_like_a_set(gold) and not (looks_like_a_set(answer) and _inside(gold)):
        bound = re.search(r"\\le(?![a-zA-Z])|\\ge(?![a-zA-Z])|\\ne(?![a-zA-Z])|<|>", answer)
        return False if bound and rational(gold) is not None else None  # a bound is no value
    if _inside(gold) and _inside(gold)[0] == "()" and not OPEN_INTERVAL_MAY_BE_A_POINT:
        return None
    return same_set(gold, answer)


def compound(gold: str, answer: str, again) -> bool | None:
    """`3 h 25 min`, `5 ft and 7 in`: one quantity in several units of one dimension."""
    left, right = _quantities(gold), _quantities(answer)
    if left is None and right is None:
        return None
    if left is None or right is None or left.keys() != right.keys():
        return False
    return all(again(left[name], right[name]) for name in left)


def _quantities(text: str) -> dict[str, str] | None:
    if re.search(r"[,;]", text) and not re.search(r"\d,\d{3}", text):
        text = re.sub(r",", " ", text) if re.search(r"\b(?:h|hours?|ft|feet|lbs?|pounds?|degrees?)\b", text) else text
    found = read(re.sub(r"\\text ?\{\s*and\s*\}|\band\b", " ", text))
    named_units = [next(iter(units)) for _, factor, units in found.values if len(units) == 1 and factor == 1]
    if len(found.values) < 2 or len(named_units) != len(found.values) or len(set(named_units)) != len(named_units):
        return None
    if len({vocabulary.DIMENSIONS.get(name) for name in named_units} - {None}) != 1:
        return None
    return {name: value for name, (value, _, _) in zip(named_units, found.values, strict=True)}


def several(gold: str, answer: str, again) -> bool | None:
    """Answers with several values: all of them, in any order."""
    if _inside(gold) is not None and _inside(answer) is not None:
        return None
    golds = [_elements(gold, thousands) for thousands in (True, False)]
    answers = [_elements(answer, thousands) for thousands in (True, False)]
    if all(len(found) == 1 for found in (*golds, *answers)) and golds[0] == [gold] and answers[0] == [answer]:
        return None
    undivided = [gold], [answer]
    pairs = [(g, a) for g in _unlike(golds) for a in _unlike(answers) if (g, a) != undivided]
    if any(_same_elements(g, a, gold, answer, again) for g, a in pairs):
        return True
    return None if (golds[0], answers[0]) == undivided else False


def _unlike(readings: list[list[str]]) -> list[list[str]]:
    return readings[:1] if readings[0] == readings[1] else readings


def _elements(text: str, thousands: bool) -> list[str]:
    r"""The values of a list or a set, `\pm` written out."""
    text = re.sub(r"^\\?[a-zA-Z](?:_\{\w+\})? ?(?:\\in(?![a-zA-Z])|=) ?(?=\\\{)", "", text)
    found = steps(text)
    if (
        len(found) > 2
        and found[0][0] == "\\{"
        and [n for n, (t, d) in enumerate(found) if t == "\\}" and d == 0][:1] == [len(found) - 1]
    ):
        text = text[2:-2].strip()
    text = re.sub(r"^\\text ?\{\s*(?:either|both)\s*\}|^(?:either|both)\b", "", text, flags=re.I)
    parts = values(text, thousands)
    names = [named(part)[0] for part in parts]
    if len(parts) > 1 and names[0] and (not any(names[1:]) or len(set(names)) == 1):
        parts = [named(part)[1] for part in parts]
    written = []
    for part in parts:
        if re.search(r"\\pm(?![a-zA-Z])|\\mp(?![a-zA-Z])", part):
            one = re.sub(r"\\pm(?![a-zA-Z])", "+", re.sub(r"\\mp(?![a-zA-Z])", "-", part))
            other = re.sub(r"\\pm(?![a-zA-Z])", "-", re.sub(r"\\mp(?![a-zA-Z])", "+", part))
            written += [clean(re.sub(r"(^|=|\{|\()\s*\+", r"\1", one)), clean(other)]
        else:
            written.append(clean(part))
    return list({squeezed(part): part for part in written if part}.values())


def _same_elements(golds: list[str], answers: list[str], gold: str, answer: str, again) -> bool:
    names, listed = _assignments(gold)
    if listed is not None and len(set(names)) == len(names) and len(names) == len(golds):
        return _same_assignments(names, listed, answer, again)
    if (
        len(golds) > 1
        and len(answers) == 1
        and PARENTHESES_MAY_HOLD_A_LIST
        and (inner := _inside(answer)) is not None
        and _inside(golds[0]) is None
    ):
        answers = [clean(part) for part in inner[1]]
    if len(golds) != len(answers) or not golds:
        return False
    return all(any(again(g, a) for a in answers) for g in golds) and all(
        any(again(g, a) for g in golds) for a in answers
    )


def _same_assignments(names: list[str], listed: list[str], answer: str, again) -> bool:
    others, given = _assignments(answer)
    if given is not None:
        found = dict(zip(others, given, strict=True))
        return found.keys() == set(names) and all(
            again(value, found[name]) for name, value in zip(names, listed, strict=True)
        )
    inner = _inside(answer)
    given = inner[1] if inner is not None else values(answer, True)
    return len(given) == len(listed) and all(again(a, clean(b)) for a, b in zip(listed, given, strict=True))


def equation(gold: str, answer: str, again) -> bool | None:
    """The name before an equals sign may be left out; two different ones are two answers."""
    if "=" not in gold and "=" not in answer and "\\approx" not in answer:
        return None
    if "\\approx" in answer and "\\approx" not in gold:
        exact, rounded = re.split(r"\(? ?\\approx", answer, maxsplit=1)
        if exact.strip() and _near(sides(exact)[-1], sides(rounded)[-1].rstrip(") ")) and again(gold, clean(exact)):
            return True
    (name, value), (other, given) = named(gold), named(answer)
    if name is None and other is None:
        if len(sides(gold)) == 1 and len(sides(answer)) > 1:
            return again(gold, sides(answer)[-1])
        return None
    if name and other and name != other and not (_is_curve(name) and _is_curve(other)):
        return judge.equal(gold, answer) or None
    if name is None and len(sides(gold)) > 1:
        return None
    if other is None and len(sides(answer)) > 1:
        return None
    return again(value if name is not None else gold, given if other is not None else answer)


def _near(exact: str, rounded: str) -> bool:
    """Whether a rounded value may be that of the exact one: two plain numbers differ by a tenth at most."""
    left, right = rational(clean(exact)), rational(clean(rounded))
    return None in (left, right) or abs(left - right) * 10 <= max(abs(left), abs(right))


def _is_curve(name: str) -> bool:
    return re.fullmatch(r"y|[fgh]\([a-z]\)", name) is not None or "\\text" in name


def wording(gold: str, answer: str, again) -> bool | None:
    """Units and other words beside a value."""
    left, right = read(gold), read(answer)
    if not _speaks(left, gold) and not _speaks(right, answer):
        return None
    if left.silent or right.silent or len(left.values) != len(right.values):
        return False
    if sorted(left.carrying) != sorted(right.carrying):
        return False
    if left.words != right.words and left.words and (right.words or left.words_first or len(left.values) != 1):
        return False
    if not left.values:
        return left.words == right.words and (bool(left.words) or left.carrying == right.carrying)
    return all(_same_quantity(one, other, again) for one, other in zip(left.values, right.values, strict=True))


def _speaks(found: Reading, text: str) -> bool:
    return bool(found.carrying or found.words or any(units or factor != 1 for _, factor, units in found.values)) or (
        [value for value, _, _ in found.values] != [text]
    )


def _same_quantity(one, other, again) -> bool:
    (value, factor, units), (given, times, others) = one, other
    if units != others and units and (others or not UNIT_MAY_BE_LEFT_OUT):
        return False
    if factor == times:
        return again(clean(value), clean(given))
    left, right = rational(clean(value)), rational(clean(given))
    if None not in (left, right):
        return left * factor == right * times
    return judge.equal(f"{factor} \\cdot ({value})", f"{times} \\cdot ({given})")


# (what, the form, a gold and an answer that were graded incorrect without it)
FORMS = [
    ("words", words_alone, ("Thursday", r"\text{thursday}")),
    ("numbers", numbers, ("19/6", "3 1/6")),
    ("choice", notations.choice, ("C", "C) 18")),
    ("clock", notations.clock, (r"6:50 \text{ a.m.}", r"6:50 \text{ p.m.}")),
    ("base", notations.base, ("3142_5", "3142_6")),
    ("date", notations.date, ("2020-03-14", "2003")),
    ("span", notations.span, ("10-15", r"10 \text{ to } 15")),
    ("modulus", notations.modulus, (r"5 \pmod{9}", r"5 \pmod 8")),
    ("cases", notations.cases, (r"\begin{cases} 2 & x>1 \\ 5 & x \le 1\end{cases}", "5")),
    ("matrix", notations.matrix, (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}")),
    ("sequence", notations.sequence, (r"1, 2, \ldots, n", r"1, 3, \ldots, 2n-1")),
    ("derivative", notations.derivative, ("f'(3) = 8", "f'(3) = 18")),
    ("arrows", notations.arrows, (r"C \to A \to B", r"A \to C \to B")),
    ("set of numbers", set_of_numbers, ("[3,8)", r"3 \le x < 8")),
    ("chain", notations.chain, ("P<R<Q", "Q>R>P")),
    ("tuple", tuples, ("(35,400)", "(35400)")),
    ("compound", compound, (r"3 \text{ h } 25 \text{ min}", r"3 \text{ h } 35 \text{ min}")),
    ("several", several, ("7, 31", "7")),
    ("equation", equation, ("64", r"S = 8 \cdot 8 = 64")),
    ("ratio", notations.ratio, ("2:3:7", "4:6:14")),
    ("wording", wording, (r"40 \text{ km}", r"40 \text{ m}")),
]


MAX_DEPTH = 60  # of brackets; what is deeper takes the parser minutes


def readable(gold: str) -> bool:
    r"""Whether a cleaned gold answer holds anything to compare with: not `\text{ }`, `?` or a page of prose."""
    if not re.search(r"[\w\u221e]|\\(?:infty|emptyset)", re.sub(r"\\text ?\{", "", gold)):
        return False
    found = read(gold)
    return len(found.words) + len(found.carrying) <= MAX_GOLD_WORDS


def compare(gold: str, answer: str) -> bool | None:
    r"""Whether `answer` says what `gold` says; None where the gold answer says nothing that could be compared.

    >>> compare("1 1/4", "5/4"), compare("11/4", "1 1/4"), compare(r"40 \text{ km}", "40 m"), compare("", "3")
    (True, False, False, None)
    """
    left, right = clean(gold), clean(answer)
    if left and right and (squeezed(left) == squeezed(right) or words_alone(left, right, same)):
        return True
    left, right = unlabelled(left), unlabelled(right)
    right = in_the_same_digits(left, right)
    left, right = _each_named(left), _each_named(right)
    if not readable(left):
        return None
    return not (nested(left) or nested(right)) and same(left, right)


def nested(text: str) -> bool:
    """Whether brackets stand deeper in each other than in any answer that is meant."""
    depth = deepest = 0
    for character in text:
        depth += (character in "({[") - (character in ")}]")
        deepest = max(deepest, depth)
    return deepest > MAX_DEPTH

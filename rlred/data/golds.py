r"""The final answer in a gold field, whatever a dataset keeps there: a text, a worked solution, a list, an object.

solution_of("6 * 3 = 18\n#### 18")     '18'
solution_of(["7.06", "7.1"])           ['7.06', '7.1']: alternatives, any of which is correct
solution_of(None)                      None: nothing to compare with
"""

import ast
import json
import math
import re

from rlred.rewards.correctness import boxed_answer
from rlred.rewards.grader import MAX_CHARACTERS

NO_ANSWER = ("nan", "<na>", "n/a", "null", "proof", "notfound", "not found")  # what files write for "there is none"
GOLD_FIELDS = (
    "ground_truth",
    "final_answer",
    "answer",
    "value",
    "number",
    "target",
    "text",
)  # of a gold that is an object
PROSE_WORDS = 25  # a gold answer with so many words and no mark is an explanation
STATEMENT = re.compile(
    r"(?:\b(?:the|final|correct|our|my) (?:final |correct )?answer ?(?:is|:|=)|^[ >*#]{0,8}answer ?:)[\s:*]*"
    r"(?P<answer>[^\n]+?)(?=\.[*]*(?:\s|$)|\n|$)",
    re.IGNORECASE | re.MULTILINE,
)

LONGEST_LIST = 2**20  # characters of a text that is read as a list
_TEXT = r"""(?:'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*")"""
_ITEM = rf"(?:{_TEXT}|[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?|True|False|None|true|false|null)"
_LIST = re.compile(rf"\[\s*{_ITEM}(?:\s*,\s*{_ITEM})*\s*,?\s*\]", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:[\\'\"nrt]|x[0-9a-f]{2}|u[0-9a-fA-F]{4}|U[0-9a-f]{8})")  # as both languages write them


def is_missing(value: object) -> bool:
    """Whether a field holds nothing: null, NaN, blank text, or an empty list or object.

    >>> is_missing(float("nan")), is_missing(" "), is_missing([None]), is_missing(0)
    (True, True, True, False)
    """
    if isinstance(value, list | tuple):
        return all(map(is_missing, value))
    if isinstance(value, dict):
        return all(map(is_missing, value.values()))
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or isinstance(value, str) and not value.strip()


def value_at(row: dict, name: str) -> object:
    """The field of a row, or what is inside it where the name has dots; objects may be kept as JSON text.

    >>> value_at({"reward_model": {"ground_truth": "42"}}, "reward_model.ground_truth"), value_at({"a.b": 1}, "a.b")
    ('42', 1)
    """
    if name in row or "." not in name:
        return row.get(name)
    value: object = row
    for part in name.split("."):
        value = from_json_text(value)
        if not isinstance(value, dict):
            return None
        value = value.get(part)
    return value


def from_json_text(value: object) -> object:
    """The object or list of a text that is one in JSON; any other value as it is (so `[1, 2]`, an interval, stays).

    >>> from_json_text('{"a": 1}'), from_json_text('["16"]'), from_json_text("[1, 2]"), from_json_text("{1, 2}")
    ({'a': 1}, ['16'], '[1, 2]', '{1, 2}')
    """
    if isinstance(value, str) and re.match(r'\s*(\{\s*"|\[\s*["{])', value):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            pass
    return value


def list_in(value: object) -> list | None:
    r"""The list that a text is as a whole: in JSON, or as Python writes one (`str(list)`, in a CSV); None for others.

    Its items are texts, numbers, true, false and null. Backslashes that nobody doubled are taken as they stand.

    >>> list_in("['2', 'two']"), list_in('["a", 1]'), list_in("[0, 1]"), list_in("so ['2']"), list_in("['2' 'two']")
    (['2', 'two'], ['a', 1], [0, 1], None, None)
    """
    text = value.strip() if isinstance(value, str) and len(value) <= LONGEST_LIST else ""
    if not text.startswith("[") or not _LIST.fullmatch(text):
        return None
    if "\\" in _ESCAPE.sub("", text):
        text = text.replace("\\", "\\\\")
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            pass
    return None


def gold_list(value: object) -> object:
    """A gold field that is a list kept as text, with a text in it, as that list; any other value as it is.

    >>> gold_list("['2', 'two']"), gold_list("[0, 1]"), gold_list("(1, 2)")
    (['2', 'two'], '[0, 1]', '(1, 2)')
    """
    found = list_in(value)
    return found if found and any(isinstance(one, str) for one in found) else value


def worked_answer(text: str) -> str | None:
    r"""What a worked solution says its answer is: after `####`, in the last `\boxed{}`, or after "the answer is".

    None where it does not say. Thinking (up to `</think>`) says nothing.

    >>> worked_answer("7 * 6 = 42\n#### 42"), worked_answer("The final answer is $42$. I hope it is correct.")
    ('42', '42')
    >>> worked_answer("#### Step 1\nSo it is $\\boxed{42}$."), worked_answer("It is 42.") is None
    ('42', True)
    """
    text = text.rpartition("</think>")[2]
    _, mark, after = text.rpartition("####")
    boxed = boxed_answer(after)
    if boxed is None and mark:
        # One line is an answer. More are the section below a heading, unless its words are those of LaTeX.
        line, _, rest = after.strip().partition("\n")
        if not rest.strip() or not re.search(r"(?<![\\A-Za-z])[A-Za-z]{3,}", line):
            return line.strip() or None
    boxed = boxed_answer(text) if boxed is None else boxed
    if boxed is not None or "\\boxed{" in text:
        return (boxed or "").strip() or None
    said = list(STATEMENT.finditer(text))
    return _bare(said[-1]["answer"]) if said else None


def _bare(said: str) -> str | None:
    """What is said, without marks of emphasis and without the reason that follows the formula."""
    formula = re.match(r"(\$[^$]+\$|\\\(.+?\\\))\s*(?:,\s*)?(?:since|because|as|for|so|which)\b", said)
    text = (formula[1] if formula else said).strip(" *")
    return (text.strip("$") if text.count("$") == 2 else text).strip() or None


def is_prose(text: str) -> bool:
    """Whether a text is an explanation rather than an answer: `PROSE_WORDS` words, those of LaTeX apart.

    >>> is_prose("All integers greater than 2."), is_prose("each row has six jars " * 6)
    (False, True)
    """
    return len(re.findall(r"(?<![\\A-Za-z])[A-Za-z]{2,}", text)) >= PROSE_WORDS


def solution_of(value: object, *, all_needed: bool = False) -> str | list[str] | None:
    r"""The final answer in a gold field: text, a list of alternatives, or None where there is none to compare with.

    A list holds alternatives, and one entry may hold several values ("3, 8"); with `all_needed` its entries are those
    values. An object is its `ground_truth`, `value`, ...; true and false, and an explanation that does not say what its
    answer is, are nothing to compare with.

    >>> solution_of("6 * 3 = <<6*3=18>>18\n#### 18"), solution_of("It is $\\boxed{\\frac{1}{2}}$."), solution_of(142.0)
    ('18', '\\frac{1}{2}', '142')
    >>> solution_of(["12"]), solution_of(["7.06\n", "7.1"]), solution_of(["3", "8"], all_needed=True), solution_of("")
    ('12', ['7.06', '7.1'], '3, 8', None)
    """
    value = from_json_text(gold_list(value))
    if is_missing(value) or isinstance(value, bool | bytes):
        return None
    if isinstance(value, dict):
        return _solution_of_object(value)
    if isinstance(value, list | tuple):
        return _solution_of_list(value, all_needed)
    if isinstance(value, float):
        if math.isinf(value):
            return None
        value = int(value) if value.is_integer() else value
    text = str(value).strip()
    if isinstance(value, str):
        found = worked_answer(text)
        if found is None and (is_prose(text) or "####" in text or "\\boxed{" in text):
            return None
        text = clean(text if found is None else found)
    usable = text.strip(" \t\n$.,;:#") and text.lower() not in NO_ANSWER and len(text) <= MAX_CHARACTERS
    return text if usable else None


def _solution_of_object(value: dict) -> str | list[str] | None:
    aliases = value.get("aliases")  # TriviaQA: the usual name, and others that are as good
    if isinstance(aliases, list) and not is_missing(value.get("value")):
        return solution_of([value["value"], *aliases])
    held = [name for name in GOLD_FIELDS if not is_missing(value.get(name))]
    return solution_of(value[held[0]]) if held else None


def _solution_of_list(values: list | tuple, all_needed: bool) -> str | list[str] | None:
    found: list[str] = []
    for one in values:
        several = isinstance(one, list | tuple)  # one alternative that has several values
        solution = solution_of(one, all_needed=several)
        if solution is None and (several or all_needed):
            return None
        found += [] if solution is None else [solution] if isinstance(solution, str) else solution
    found = list(dict.fromkeys(found)) if not all_needed else found
    if all_needed:
        return ", ".join(found) or None
    return found[0] if len(found) == 1 else found or None


def clean(text: str) -> str:
    """The text without halves of surrogate pairs, which no file and no tokenizer takes."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def one_of(solution: str | list[str] | None) -> str:
    """A solution as one text, for who needs to say it: the first of alternatives, empty where there is none.

    >>> one_of(["7.06", "7.1"]), one_of("3, 8"), one_of(None)
    ('7.06', '3, 8', '')
    """
    return (solution[0] if solution else "") if isinstance(solution, list) else solution or ""

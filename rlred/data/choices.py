"""Multiple choice: the options go into the question, and the gold answer becomes a letter.

A file keeps the options in a list, under labels, in columns of their own or in one text, and marks the correct one by
letter, by label, by position or by its text. A question without its options cannot be answered, and a position that
counts from 0 or from 1 is told by the whole column.
"""

import re
from collections.abc import Iterable, Sequence
from string import ascii_uppercase as LETTERS
from typing import NamedTuple

from rlred.data.golds import from_json_text, gold_list, is_missing, solution_of

OPTION_COLUMNS = (
    ("options", "choices", "answer_choices", "answer_options", "option_list", "endings")
    + ("question.choices", "question.options")
)  # fmt: skip
KEY_COLUMNS = (
    ("answer_key", "answer_letter", "correct_letter", "correct_option", "correct_choice", "answer_option")
    + ("expected_answer", "reward_model.ground_truth", "ground_truth", "gold", "correct_answer", "answer")
    + ("final_answer", "correct", "target", "label", "answer_index", "answer_idx", "correct_index", "correct_idx")
    + ("correct_answer_index", "cop", "solution")
)  # fmt: skip
POSITIONS = ("answerindex", "answeridx", "correctindex", "correctidx", "correctanswerindex", "cop", "label")
ASKED_FOR = "Answer with the letter of the correct option."
_SEPARATE = re.compile(r"(?:option|opt|op|choice|ending)([a-j]|\d)")
_MARK = re.compile(r"(?:^|[\s,;])\(?([A-Ja-j])\s?[).:]\s*")
_LETTERED = re.compile(
    r"(?:option|answer|choice)?\s*:?\s*\(?([A-Za-z])(?:\s?[).:]+\s*(.*)|)", re.IGNORECASE | re.DOTALL
)


class Option(NamedTuple):
    label: str  # the file's own; empty where it has none
    text: str


def plain(name: str) -> str:
    """A column's name without case and separators.

    >>> plain("Answer Key"), plain("answerKey"), plain("reward_model.ground_truth")
    ('answerkey', 'answerkey', 'rewardmodel.groundtruth')
    """
    return re.sub(r"[^\w.]|_", "", name).lower()


def match_columns(names: Sequence[str], usual: Iterable[str]) -> list[str]:
    """The columns with these names, in this order; case and separators do not count.

    >>> match_columns(["ID", "Final Answer", "answer"], ["answer", "final_answer", "gold"])
    ['answer', 'Final Answer']
    """
    known: dict[str, str] = {}
    for name in names:
        known.setdefault(plain(name), name)
    known |= {name: name for name in names}  # an exact name wins
    found = []
    for name in usual:
        column = known.get(name) or known.get(plain(name))
        if column is not None and column not in found:
            found.append(column)
    return found


def option_columns(names: Sequence[str], source: str, named_gold: str | None) -> list[str]:
    """The columns that hold the options: one, several ("A", "B", ... or "option1", ...), or none.

    Raises `ValueError` where a file has incorrect answers but no options: their order and letters are not known.
    """
    has_key = bool(match_columns(names, ("answer_key", "label", "answer_index", "answer_idx", "correct_index")))
    found = match_columns(names, (*OPTION_COLUMNS, *(("answers",) if has_key else ())))
    if found:
        return found[:1]
    for separate in ({name: name for name in names if name in LETTERS[:10]}, _separate_columns(names)):
        if len(separate) > 1:
            return [separate[key] for key in sorted(separate)]
    incorrect = [name for name in names if plain(name).startswith(("incorrect", "wronganswer", "distractor"))]
    if incorrect and named_gold is None:
        raise ValueError(
            f"{source}: column {incorrect[0]!r} holds incorrect answers, and there is no column of options; put all "
            "into a column 'options' and the letter of the correct one into 'answer', or name solution_column to ask "
            "without options"
        )
    return []


def _separate_columns(names: Sequence[str]) -> dict[str, str]:
    found = {match[1]: name for name in names if (match := _SEPARATE.fullmatch(plain(name)))}
    first = min(found, default="")
    return found if first in ("a", "0", "1") else {}


def options_of(value: object) -> list[Option] | None:
    """The options in a field; empty where there are none, None where they cannot be read.

    >>> options_of({"text": ["51", "59"], "label": ["1", "2"]})
    [Option(label='1', text='51'), Option(label='2', text='59')]
    >>> options_of(["A) 51", "B) 59"]) == options_of({"A": "51", "B": 59, "C": None}) == options_of("A) 51, B) 59")
    True
    """
    value = from_json_text(value)
    if is_missing(value):
        return []
    if isinstance(value, str):
        return _options_of_text(value)
    if isinstance(value, dict):
        texts, labels = value.get("text", value.get("texts")), value.get("label", value.get("labels"))
        if isinstance(texts, list):
            labels = labels if isinstance(labels, list) and len(labels) == len(texts) else [""] * len(texts)
            pairs = list(zip(labels, texts, strict=True))
        else:
            pairs = [(label, text) for label, text in value.items() if not is_missing(text)]
    elif isinstance(value, list | tuple):
        pairs = [_labelled(one) if isinstance(one, dict) else ("", one) for one in value]
        while pairs and is_missing(pairs[-1][1]):
            pairs.pop()
    else:
        return None
    if len(pairs) < 2 or any(isinstance(text, dict | list | bytes) or is_missing(text) for _, text in pairs):
        return None
    return _without_marks([Option(str(label).strip(), str(text).strip()) for label, text in pairs])


def _labelled(one: dict) -> tuple[object, object]:
    def first(*names):
        return next((one[name] for name in names if not is_missing(one.get(name))), None)

    return first("label", "key", "letter", "id", "identifier") or "", first(
        "text", "content", "value", "option", "answer"
    )


def _without_marks(options: list[Option]) -> list[Option]:
    """Options that carry their letters in the text ("A) 51", "(B) 57", ...) with the letters as labels."""
    marks = [_MARK.match(option.text) for option in options]
    for letters in (LETTERS, LETTERS.lower()):
        if all(mark and mark[1] == letter for mark, letter in zip(marks, letters, strict=False)):
            texts = [option.text[mark.end() :].strip() for option, mark in zip(options, marks, strict=True)]
            return [Option(letter, text) for letter, text in zip(LETTERS, texts, strict=False)]
    return options


def _options_of_text(text: str) -> list[Option] | None:
    marks, wanted = [], 0
    for match in _MARK.finditer(text):
        if match[1].upper() == LETTERS[wanted]:  # in order, so that a letter inside an option is none
            marks.append(match)
            wanted += 1
    if len(marks) < 2 or text[: marks[0].start()].strip():
        return None
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    texts = [text[mark.end() : end].strip(" \t\n,;") for mark, end in zip(marks, ends, strict=True)]
    return [Option(letter, one) for letter, one in zip(LETTERS, texts, strict=False)] if all(texts) else None


def letters_of(options: Sequence[Option]) -> list[str]:
    """The letter of each option: its own label where those are letters, else A, B, C, ...

    >>> letters_of([Option("1", "x"), Option("2", "y")]), letters_of([Option("f", "x"), Option("g", "y")])
    (['A', 'B'], ['F', 'G'])
    """
    own = [option.label.upper() for option in options]
    return (
        own if len(set(own)) == len(own) and all(re.fullmatch("[A-Z]", one) for one in own) else [*LETTERS[: len(own)]]
    )


def question_with(question: str, options: Sequence[Option]) -> str:
    """The question with its lettered options below it, unless it lists them itself.

    >>> print(question_with("Which is prime?", [Option("", "57"), Option("", "59")]))
    Which is prime?
    <BLANKLINE>
    A) 57
    B) 59
    <BLANKLINE>
    Answer with the letter of the correct option.
    """
    pairs = list(zip(letters_of(options), options, strict=True))
    listed = all(re.search(rf"(?<!\w)\(?{a}\s?[).:]\s*{re.escape(o.text)}", question) for a, o in pairs)
    lines = "" if listed else "\n\n" + "\n".join(f"{letter}) {option.text}" for letter, option in pairs)
    return f"{question}{lines}\n\n{ASKED_FOR}"


def number_of(gold: object) -> int | None:
    """A position, as a file may spell it: 2, 2.0 or "2"."""
    if (
        isinstance(gold, float)
        and gold.is_integer()
        or isinstance(gold, str)
        and re.fullmatch(r"\s*-?\d{1,9}\s*", gold)
    ):
        return int(gold)
    return gold if isinstance(gold, int) and not isinstance(gold, bool) else None


def position_of_text(gold: str, options: Sequence[Option]) -> int | None:
    """The option that a gold names by label, letter or text; None where none or more than one is meant."""

    def same(text: str) -> str:
        return re.sub(r"\s+", "", text.strip().strip("$").rstrip(".")).casefold()

    letters = letters_of(options)
    equal = [i for i, option in enumerate(options) if same(option.text) == same(gold)]
    named = [i for i, option in enumerate(options) if option.label and same(option.label) == same(gold)]
    bare = re.sub(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}|\*\*", r"\1", gold.strip().strip("$")).strip()
    match = _LETTERED.fullmatch(bare)
    if not named and match and match[1].upper() in letters:
        index = letters.index(match[1].upper())
        if not match[2] or same(match[2]) == same(options[index].text):
            named = [index]
    if named:
        return named[0] if not equal or named[0] in equal else None
    return equal[0] if len(equal) == 1 else None


def numbering_of(cases: Iterable[tuple[int, int, Sequence[Option]]], column: str, source: str) -> int | None:
    """What the numbers of a gold column are: positions from 0 or from 1, or (None) the options' own texts.

    `cases` are (row, number, options). Numbers that fit from 0 count from 0. Raises `ValueError` where they fit
    nothing, or fit as positions and as texts that are different options.
    """
    rows = list(cases)
    fitting = [base for base in (0, 1) if all(0 <= n - base < len(options) for _, n, options in rows)]
    texts = [None if plain(column) in POSITIONS else position_of_text(str(n), options) for _, n, options in rows]
    if None in texts or not rows:
        if fitting:
            return fitting[0]
        row, number, options = next(case for case in rows if not 0 <= case[1] < len(case[2]))
        raise ValueError(
            f"{source}: row {row + 1}: {column}={number} is no position among its {len(options)} options (from 0), and "
            "other rows do not count from 1; write the letter of the correct option instead"
        )
    if fitting and texts != [n - fitting[0] for _, n, _ in rows]:
        raise ValueError(
            f"{source}: row {rows[0][0] + 1}: {column}={rows[0][1]} may be the position of an option or its text; "
            "write the letter of the correct option instead"
        )
    return fitting[0] if fitting else None


def letter_of(gold: object, options: Sequence[Option], numbering: int | None) -> str | None:
    """The letter of the correct option ("A, C" where several are); None where the gold names none.

    >>> options = [Option("", "51"), Option("", "59")]
    >>> [letter_of(gold, options, 0) for gold in (1, "(b)", "B) 59", "C", 2)], letter_of(59, options, None)
    (['B', 'B', 'B', None, None], 'B')
    """
    gold = from_json_text(gold_list(gold))
    if isinstance(gold, list | tuple):
        found = [letter_of(one, options, numbering) for one in gold]
        return None if None in found or not found else ", ".join(sorted(set(found)))
    number = number_of(gold)
    labels = {option.label for option in options}
    if number is not None and numbering is not None and str(number) not in labels:
        index = number - numbering if 0 <= number - numbering < len(options) else None
    else:
        text = str(number) if number is not None else solution_of(gold)
        index = position_of_text(text, options) if isinstance(text, str) else None
        if index is None and isinstance(text, str) and (several := _several(text, options)):
            return letter_of(several, options, None)
    return None if index is None else letters_of(options)[index]


def _several(text: str, options: Sequence[Option]) -> list[str]:
    """The letters of "A, C", "A and C" or "AC"."""
    parts = re.split(r"\s*(?:,|;|\band\b|&)\s*", text.strip()) if re.search(r"[,;&]|\band\b", text) else [*text.strip()]
    upper = [part.strip("() ").upper() for part in parts]
    return upper if len(upper) > 1 and len(set(upper)) == len(upper) and set(upper) <= set(letters_of(options)) else []

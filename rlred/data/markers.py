r"""Counted thinking: how a marker looks that says, inside the thinking, how many tokens have been spent.

    Markers       the words, how far apart they stand and in front of what; true counts, written into token ids
    marker_ids    the ids of a marker's text for a tokenizer

Seed-OSS tells itself every so often what it has used and what is left, and BudgetThinker (2508.17196) gives its model
control tokens that say so. Here true counts are written into a model's own traces before it learns from them
(rlred/training/counting.py), and from then on it writes them by itself: they cost tokens, and count as tokens. They are
no part of what it has to say: whatever grades or shows a completion's text reads it without them (`Markers.strip`).
"""

import itertools
import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from rlred.rewards.correctness import find_boxes

_HOLDER = re.compile(r"(\{(?:spent|budget|left)(?::0[1-9])?\})")  # {left:03}: three digits or more
_TRIES = 8  # of a fixed point: the digits of a count decide how many tokens the marker itself takes
# What a marker may follow where a tokenizer is asked for its ids: some write a space in front of what begins a text.
_LEADS = ("", "x", "\n", ".", "0")

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class Markers:
    """How markers look and where they stand. Raises `ValueError` for a value out of range.

    A number of tokens is that of the completion up to the end of the marker, its own tokens included.

    >>> ids = [ord(letter) for letter in "3+4 is 7. 7+2 is 9."]           # a tokenizer of one token per letter
    >>> encode = lambda text: [ord(letter) for letter in text]
    >>> "".join(map(chr, Markers(every=8, text="[{spent}]").insert(ids, [4, 9], None, encode)))
    '3+4 is 7.[13] 7+2 is 9.'
    >>> counted, budget = Markers(every=8).settle(ids, [9], len, encode)
    >>> "".join(map(chr, counted)), budget == len(counted)
    ('3+4 is 7.[16/26] 7+2 is 9.', True)
    """

    every: int
    """A marker stands at the first step boundary at or after so many tokens since the last one, which do not count."""
    text: str = "[{spent}/{budget}]"
    """The words: {spent} or {left} and, where one likes, {budget}; {left} is the budget less {spent}, or 0.

    {left:03} writes three digits or more. A model that writes its numbers digit by digit can begin a 9 and end with a
    99; with as many digits in each count it cannot (docs/LOG.md).
    """
    before: str | None = None
    """A regular expression: markers stand in front of what it finds, as " take". None: behind sentences and lines."""

    def __post_init__(self):
        if isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1:
            raise ValueError(f"markers.every must be a whole number of tokens, 1 or more, got {self.every!r}")
        if not isinstance(self.text, str):
            raise ValueError(f"markers.text needs the placeholder {{spent}} or {{left}}, got {self.text!r}")
        words = "".join(_HOLDER.split(self.text)[::2])
        if "{" in words or "}" in words:
            raise ValueError(
                f"markers.text: no brace but {{spent}}, {{left}} and {{budget}}, or as {{left:03}}, got {self.text!r}"
            )
        if not {"spent", "left"} & set(self.names):
            raise ValueError(f"markers.text needs the placeholder {{spent}} or {{left}}, got {self.text!r}")
        if not re.search(r"[^\d\s]", words):
            raise ValueError(f"markers.text needs a sign that tells it from the model's own numbers, got {self.text!r}")
        if self.before is not None:
            try:
                re.compile(self.before if isinstance(self.before, str) and self.before else "(")
            except re.error as error:
                raise ValueError(f"markers.before must be a regular expression, got {self.before!r}: {error}") from None

    @cached_property
    def names(self) -> list[str]:
        """What the words say, in their order.

        >>> Markers(every=64).names, Markers(64, "[{left:03} left]").names
        (['spent', 'budget'], ['left'])
        """
        return [holder[1:-1].partition(":")[0] for holder in _HOLDER.split(self.text)[1::2]]

    @property
    def names_budget(self) -> bool:
        """Whether the words depend on the budget."""
        return "budget" in self.names or "left" in self.names

    @cached_property
    def pattern(self) -> re.Pattern:
        """What finds a marker in a text, whatever it counts."""
        parts = _HOLDER.split(self.text)
        return re.compile("".join(r"(\d+)" if i % 2 else re.escape(part) for i, part in enumerate(parts)))

    def write(self, spent: int, budget: int | None) -> str:
        """The text of one marker. Raises `ValueError` for words that name a budget where there is none.

        >>> Markers(every=64).write(128, 512), Markers(64, "({left:04} tokens left)").write(128, 512)
        ('[128/512]', '(0384 tokens left)')
        """
        if self.names_budget and budget is None:
            raise ValueError(f"markers.text names a budget, and there is none: {self.text!r}")
        left = None if budget is None else max(0, budget - spent)
        return self.text.format(spent=spent, budget=budget, left=left)

    def strip(self, text: str, end: str | None = None) -> str:
        r"""A completion's text without its markers: those before the last `end` of thinking, or else outside boxes.

        >>> Markers(every=8).strip(r"3+4 is 7.[15/25] 7+2 is 9.</think>\boxed{[1/2]}", "</think>")
        '3+4 is 7. 7+2 is 9.</think>\\boxed{[1/2]}'
        >>> Markers(every=8).strip(r"Half of it.[15/25] So \boxed{[1/2]}.")
        'Half of it. So \\boxed{[1/2]}.'
        """
        if end and end in text:
            thinking, mark, answer = text.rpartition(end)
            return self.pattern.sub("", thinking) + mark + answer
        boxed = [(start, stop) for start, _, stop in find_boxes(text)]
        return self.pattern.sub(
            lambda found: found.group() if any(a <= found.start() < b for a, b in boxed) else "", text
        )

    def errors(self, texts: Sequence[str], budget: int | None) -> list[int]:
        """By how much each marker of a thinking is off: what it says was spent, less the tokens up to its end.

        `texts` are those of single tokens. Words that say only what is left say nothing without a budget.

        >>> Markers(every=4).errors(list("abcde[11/99]fghi[20/99]"), 99)
        [-1, -3]
        """
        said = "spent" if "spent" in self.names else "left"
        if said == "left" and budget is None:
            return []
        number = self.names.index(said)
        ends = list(itertools.accumulate(map(len, texts)))
        errors = []
        for found in self.pattern.finditer("".join(texts)):
            count = int(found.group(number + 1))
            tokens = bisect_left(ends, found.end()) + 1
            spent = count if said == "spent" else max(budget, tokens) if count == 0 else budget - count
            errors.append(spent - tokens)
        return errors

    def starts(self, texts: Sequence[str]) -> list[int]:
        """The places in front of what `before` finds: numbers of tokens, 1 or more; `texts` are those of single tokens.

        >>> Markers(16, before=r"take").starts([" take", " 3", " ta", "ke", " 4"])
        [2]
        """
        places, ends = [], []
        for text in texts:
            ends.append((ends[-1] if ends else 0) + len(text))
        token = 0
        for found in re.finditer(self.before or "", "".join(texts)):
            while token < len(ends) and ends[token] <= found.start():
                token += 1
            if 0 < token < len(ends) and token not in places[-1:]:
                places.append(token)
        return places

    def insert(self, ids: Sequence[int], places: Sequence[int], budget: int | None, encode: Encode) -> list[int]:
        """The ids with markers at those of the `places` (numbers of tokens, ascending) that are far enough apart."""
        made: list[int] = []
        done = 0
        for at in places:
            if at - done < self.every:
                continue
            marker = self._counted(len(made) + at - done, budget, encode)
            if marker is not None:
                made += [*ids[done:at], *marker]
                done = at
        return [*made, *ids[done:]]

    def settle(
        self, ids: Sequence[int], places: Sequence[int], length: Callable, encode: Encode
    ) -> tuple[list[int], int] | None:
        """The ids with markers that name a budget, and that budget: their own length.

        More digits of the budget make more tokens, and these another budget: a fixed point, or None where a few steps
        do not find one.
        """
        budget = max(1, length(ids))
        for _ in range(_TRIES):
            made = self.insert(ids, places, budget, encode)
            wanted = max(1, length(made))
            if wanted == budget:
                return made, budget
            budget = wanted
        return None

    def _counted(self, before: int, budget: int | None, encode: Encode) -> list[int] | None:
        """The ids of a marker behind so many tokens, whose count includes them; None where there is no such number."""
        spent = before
        for _ in range(_TRIES):
            ids = encode(self.write(spent, budget))
            if before + len(ids) == spent:
                return ids
            spent = before + len(ids)
        return None


def make_markers(value) -> Markers | None:
    """Markers from YAML: a mapping of their fields; None for none. Raises `ValueError` for anything else.

    >>> make_markers({"every": 16}), make_markers(None)
    (Markers(every=16, text='[{spent}/{budget}]', before=None), None)
    """
    if value is None or isinstance(value, Markers):
        return value
    if not isinstance(value, dict) or "every" not in value:
        raise ValueError(f"markers must be a mapping such as {{every: 64}}, got {value!r}")
    unknown = sorted(set(map(str, value)) - {"every", "text", "before"})
    if unknown:
        raise ValueError(f"markers: no field is called {unknown[0]!r}; there are before, every, text")
    return Markers(**value)


def marker_ids(tokenizer, text: str) -> list[int]:
    """The ids that write a marker behind other text. Raises `ValueError` where none of them read back as it."""

    def read(ids: list[int]) -> str:  # special tokens are no text of a completion
        return tokenizer.decode(ids, skip_special_tokens=True)

    anchor = tokenizer("0", add_special_tokens=False)["input_ids"]
    for lead in _LEADS:
        given = tokenizer(lead, add_special_tokens=False)["input_ids"] if lead else []
        whole = tokenizer(lead + text, add_special_tokens=False)["input_ids"]
        own = whole[len(given) :]
        if whole[: len(given)] == given and read([*anchor, *own]) == read(anchor) + text:
            return own
    shown = tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"])
    raise ValueError(f"markers.text: this tokenizer cannot write {text!r}, which reads back as {shown!r}")

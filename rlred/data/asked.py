"""Asked rows that are made as they are asked for: which question a row asks, at which budget, and in which words.

A `Schedule` says for every row its question, mode and budget; it is a pure function of its arguments, epoch by epoch.
`asked_dataset` puts it behind a `datasets.Dataset`, which TRL wants: a row's prompt is worded when the row is read.
"""

import random
from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy
import pyarrow
from datasets import Dataset

from rlred.data.budgets import Amount, BudgetSampler, ask, labels

NUMBER = "prompt"  # the column that holds the rows' numbers in the table; the others are empty there
EPOCHS_KEPT = 2  # at least
ROWS_KEPT = 20_000_000  # of the epochs that are kept beside them, 17 bytes each: rows may be asked for in any order
CHUNK = 10_000  # rows that are drawn at once


@dataclass
class Epoch:
    """An epoch as far as it is drawn: its random generator, the questions in turn, and what the rows ask for."""

    rng: random.Random
    visits: array
    modes: bytearray = field(default_factory=bytearray)
    amounts: array = field(default_factory=lambda: array("d"))

    def draw(self, sampler: BudgetSampler, rows: int) -> None:
        """Draws on until so many rows have a mode and an amount."""
        number = {mode: index for index, mode in enumerate(sampler.modes)}
        for _ in range(rows - len(self.modes)):
            mode, amount = sampler.draw(self.rng)
            self.modes.append(number[mode])
            self.amounts.append(amount or 0)


@dataclass
class Schedule:
    """Question, mode and budget of each row of a run.

    Questions are shuffled anew each epoch, and `each` rows of one visit are neighbours. Rows are drawn when they, or
    later ones, are asked for first, since all share a random generator; epochs are kept while memory allows.

    >>> schedule = Schedule(BudgetSampler(low=16, high=80), num_questions=3, num_rows=8, each=2)
    >>> [schedule[number] for number in (0, 1, 7)] == [schedule[number] for number in (0, 1)] + [schedule[7]]
    True
    >>> len({schedule[number][0] for number in range(6)})
    3
    """

    sampler: BudgetSampler
    num_questions: int
    num_rows: int
    each: int = 1
    seed: int = 0

    def __post_init__(self):
        self._states: list = []  # of the random generator, after each epoch
        self._epochs: dict[int, Epoch] = {}

    def __getitem__(self, number: int) -> tuple[int, str, Amount]:
        """The question's place among the questions, the mode of a row, and what it asks for."""
        epoch, place = divmod(number, self.num_questions * self.each)
        drawn = self._epoch(epoch, place + 1)
        mode = list(self.sampler.modes)[drawn.modes[place]]
        amount = drawn.amounts[place] if mode == "effort" else int(drawn.amounts[place])
        return drawn.visits[place // self.each], mode, None if mode == "free" else amount

    def _epoch(self, number: int, rows: int) -> "Epoch":
        """An epoch whose first `rows` rows are drawn, at least."""
        whole = self.num_questions * self.each
        if number not in self._epochs:
            for earlier in range(len(self._states), number):  # whose draws come first
                self._epoch(earlier, whole)
            rng = random.Random(f"budgets/{self.seed}")
            if number:
                rng.setstate(self._states[number - 1])
            visits = array("q", rng.sample(range(self.num_questions), self.num_questions))
            self._epochs[number] = Epoch(rng, visits)
            while len(self._epochs) > EPOCHS_KEPT and len(self._epochs) * whole > ROWS_KEPT:
                del self._epochs[next(iter(self._epochs))]
        found = self._epochs[number]
        if len(found.modes) < rows:
            found.draw(self.sampler, min(whole, -(-rows // CHUNK) * CHUNK))
        if len(found.modes) == whole and number == len(self._states):
            self._states.append(found.rng.getstate())  # where the next epoch goes on
        return found

    def in_modes(self, marked: Sequence[bool], modes: Collection[str]) -> tuple[int, int]:
        """Of the rows that ask in one of the modes, how many ask a marked question; and how many there are."""
        names, marked = list(self.sampler.modes), numpy.asarray(marked, dtype=bool)
        wanted = numpy.array([name in modes for name in names])
        found = total = 0
        whole = self.num_questions * self.each
        for epoch, start in enumerate(range(0, self.num_rows, whole)):
            rows = min(whole, self.num_rows - start)
            drawn = self._epoch(epoch, rows)
            asking = wanted[numpy.frombuffer(bytes(drawn.modes[:rows]), dtype=numpy.uint8)]
            places = numpy.repeat(numpy.array(drawn.visits), self.each)[:rows]
            found += int((marked[places] & asking).sum())
            total += int(asking.sum())
        return found, total


@dataclass
class Worded:
    """The transform of the table of numbers: asked rows, with every column of their questions."""

    questions: Dataset
    prompts: object
    schedule: Schedule

    def __call__(self, batch: dict[str, list]) -> dict[str, list]:
        found = [self.schedule[number] for number in batch[NUMBER]]
        columns = self.questions[[place for place, _, _ in found]]
        rows = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
        asked = list(ask(rows, self.prompts, [(mode, budget) for _, mode, budget in found]))
        names = columns_of(self.questions, self.schedule.sampler)
        return {name: [row[name] for row in asked] for name in names}


def columns_of(questions: Dataset, sampler: BudgetSampler) -> list[str]:
    """The columns of asked rows; one for efforts only in a run that asks for some."""
    names = dict.fromkeys([*questions.column_names, "prompt", *labels("free", None)])
    return [name for name in names if name != "effort" or sampler.modes.get("effort")]


def asked_dataset(questions: Dataset, prompts, schedule: Schedule) -> Dataset:
    """A data set of asked rows, none of which is made before it is read."""
    names = columns_of(questions, schedule.sampler)
    numbers = numpy.arange(schedule.num_rows, dtype=numpy.int64)
    table = {name: numbers if name == NUMBER else pyarrow.nulls(schedule.num_rows) for name in names}
    return Dataset(pyarrow.table(table)).with_transform(Worded(questions, prompts, schedule))


def worded_of(rows: Dataset) -> Worded | None:
    """What makes the rows of such a data set; None for another one."""
    found = rows.format["format_kwargs"].get("transform")
    return found if isinstance(found, Worded) and len(rows) == found.schedule.num_rows else None


def without_prompts(rows: Dataset, most: int = 20_000) -> list[dict]:
    """The first `most` rows, of whose prompts none is worded."""
    count, worded = min(most, len(rows)), worded_of(rows)
    if worded is None:
        return list(rows.select(range(count)).remove_columns("prompt"))
    asked = [worded.schedule[number] for number in range(count)]
    columns = worded.questions[[place for place, _, _ in asked]]
    questions = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
    return [{**row, **labels(*one[1:])} for row, one in zip(questions, asked, strict=True)]


def lacking(rows: Dataset, column: str, modes: Collection[str]) -> tuple[int, int]:
    """Of the rows that ask in one of the modes, how many have no value in a column; and how many there are.

    Asked rows are not made for it: the questions' column is looked at, and where it is full, that is all.
    """
    worded = worded_of(rows)
    if worded is None:
        values = [value for value, mode in zip(rows[column], rows["mode"], strict=True) if mode in modes]
        return sum(value is None for value in values), len(values)
    empty = numpy.concatenate([null.to_numpy(zero_copy_only=False) for null in nulls_of(worded.questions, column)])
    return worded.schedule.in_modes(empty, modes) if empty.any() else (0, len(rows))


def nulls_of(questions: Dataset, column: str, size: int = 10_000) -> Iterator[pyarrow.Array]:
    """Block by block, which values of a column are missing."""
    for block in questions.select_columns([column]).with_format("arrow").iter(size):
        yield pyarrow.concat_arrays(block[column].is_null().chunks)

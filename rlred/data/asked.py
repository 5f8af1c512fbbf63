"""Asked rows that are made as they are asked for: which question a row asks, at which budget, and in which words.

A `Schedule` says for every row its question, mode and budget; it is a pure function of its arguments, epoch by epoch.
`asked_dataset` puts it behind a `datasets.Dataset`, which TRL wants: a row's prompt is worded when the row is read.
"""

import random
from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy
import pyarrow
from datasets import Dataset

from rlred.data.budgets import Amount, BudgetSampler, ask, labels

NUMBER = "prompt"  # the column that holds the rows' numbers in the table; the others are empty there
EPOCHS_KEPT = 2


@dataclass
class Schedule:
    """Question, mode and budget of each row of a run.

    Questions are shuffled anew each epoch, and `each` rows of one visit are neighbours. An epoch is drawn when one of
    its rows is asked for first, after those before it, since they share a random generator; the last two are kept.

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
        self._epochs: dict[int, tuple[array, bytearray, array]] = {}

    def __getitem__(self, number: int) -> tuple[int, str, Amount]:
        """The question's place among the questions, the mode of a row, and what it asks for."""
        epoch, place = divmod(number, self.num_questions * self.each)
        visits, modes, budgets = self._epoch(epoch)
        mode = list(self.sampler.modes)[modes[place]]
        amount = budgets[place] if mode == "effort" else int(budgets[place])
        return visits[place // self.each], mode, None if mode == "free" else amount

    def _epoch(self, epoch: int) -> tuple[array, bytearray, array]:
        if epoch not in self._epochs:
            for earlier in range(len(self._states), epoch):  # whose draws come first
                self._draw(earlier)
            self._epochs[epoch] = self._draw(epoch)
            if len(self._epochs) > EPOCHS_KEPT:
                del self._epochs[next(iter(self._epochs))]
        return self._epochs[epoch]

    def _draw(self, epoch: int) -> tuple[array, bytearray, array]:
        rng = random.Random(f"budgets/{self.seed}")
        if epoch:
            rng.setstate(self._states[epoch - 1])
        visits = array("q", rng.sample(range(self.num_questions), self.num_questions))
        rows = min(self.num_rows - epoch * self.num_questions * self.each, self.num_questions * self.each)
        number = {mode: index for index, mode in enumerate(self.sampler.modes)}
        modes, budgets = bytearray(), array("d")
        for _ in range(max(0, rows)):
            mode, budget = self.sampler.draw(rng)
            modes.append(number[mode])
            budgets.append(budget or 0)
        if epoch == len(self._states):
            self._states.append(rng.getstate())  # where the next epoch goes on
        return visits, modes, budgets

    def in_modes(self, marked: Sequence[bool], modes: Collection[str]) -> tuple[int, int]:
        """Of the rows that ask in one of the modes, how many ask a marked question; and how many there are."""
        names, marked = list(self.sampler.modes), numpy.asarray(marked, dtype=bool)
        wanted = numpy.array([name in modes for name in names])
        found = total = 0
        for epoch in range(-(-self.num_rows // (self.num_questions * self.each))):
            visits, drawn, _ = self._epoch(epoch)
            asking = wanted[numpy.frombuffer(drawn, dtype=numpy.uint8)]
            places = numpy.repeat(numpy.frombuffer(visits, dtype=numpy.int64), self.each)[: len(asking)]
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

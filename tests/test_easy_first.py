"""Easy questions first: which rows a run is made of, in which order, and what is refused."""

import logging

import pytest
from datasets import Dataset
from trl import GRPOConfig

from rlred.data.prompts import Prompts
from rlred.runs.arguments import LengthControlArguments
from rlred.runs.grpo import asked_rows
from rlred.training.easy_first import EasyFirst
from rlred.training.trainer import Part

RATES = {"a": 0.9, "b": 0.51, "c": 0.5, "d": 0.1}
QUESTIONS = Dataset.from_list(
    [
        {"question_id": n, "question": name, "solution": "1", "reference_accuracy": rate}
        for n, (name, rate) in enumerate(RATES.items())
    ]
)


def rows_of(tmp_path, *parts, steps=10, **modes):
    arguments = LengthControlArguments(budgets_per_question=1, modes=modes or {"free": 1.0})
    training = GRPOConfig(
        str(tmp_path), use_cpu=True, bf16=False, per_device_train_batch_size=8, num_generations=4, max_steps=steps
    )
    return asked_rows(QUESTIONS, Prompts(), arguments, training, parts)


@pytest.mark.parametrize("share, easy", [(0.5, 10), (0.01, 2), (0.3, 6), (1.0, 20)])
def test_the_first_share_of_the_rows_is_easy_in_whole_batches(share, easy, tmp_path):
    names = rows_of(tmp_path, EasyFirst(share=share))["question"]
    assert len(names) == 20 and set(names[:easy]) == {"a", "b"}  # a pass rate of one half is not above it
    assert not names[easy:] or set(names[easy:]) > {"a", "b"}


def test_rows_of_both_phases_have_their_budgets(tmp_path):
    rows = rows_of(tmp_path, EasyFirst(), exact=1.0, free=1.0)
    assert all((row["budget"] is None) == (row["mode"] == "free") for row in rows)
    assert {row["mode"] for row in rows.select(range(10))} == {"exact", "free"}


def test_the_rows_are_the_same_again_and_without_the_part_those_of_before(tmp_path):
    assert rows_of(tmp_path, EasyFirst()).to_list() == rows_of(tmp_path, EasyFirst()).to_list()
    plain = rows_of(tmp_path)
    assert plain.to_list() == rows_of(tmp_path, Part()).to_list() and len(set(plain["question"][:4])) == 4


def test_it_says_how_many_questions_are_easy(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        rows_of(tmp_path, EasyFirst())
    assert "easy_first: 2 of 4 questions, for 0.5 of the rows" in caplog.text


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: EasyFirst(above=1.0), "easy_first.above must be 0 or more and below 1, got 1.0"),
        (lambda: EasyFirst(share=0.0), "easy_first.share must be above 0 and at most 1, got 0.0"),
        (
            lambda: EasyFirst().phases(QUESTIONS.add_item({**QUESTIONS[0], "reference_accuracy": None})),
            "easy_first: 1 of 5 questions have no number in reference_accuracy",
        ),
        (lambda: EasyFirst(above=0.95).phases(QUESTIONS), "easy_first.above=0.95: none of 4 questions .* is 0.90"),
    ],
)
def test_what_cannot_be_is_one_line(make, message):
    with pytest.raises(ValueError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_two_orders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="parts: 2 of them order the questions"):
        rows_of(tmp_path, EasyFirst(), EasyFirst())


def test_the_second_phase_does_not_repeat_the_draws_of_the_first(tmp_path):
    easy = QUESTIONS.map(lambda row: {"reference_accuracy": 1.0})
    arguments = LengthControlArguments(budgets_per_question=1, modes={"exact": 1.0})
    training = GRPOConfig(str(tmp_path), use_cpu=True, bf16=False, num_generations=4, max_steps=20)
    rows = asked_rows(easy, Prompts(), arguments, training, [EasyFirst(share=0.5)])
    first, second = ([(row["question"], row["budget"]) for row in rows][part] for part in (slice(20), slice(20, 40)))
    assert len(rows) == 40 and first != second


def test_epochs_are_counted_anew_each_time_that_rows_are_made(tmp_path):
    arguments = LengthControlArguments(budgets_per_question=1, modes={"free": 1.0})
    training = GRPOConfig(str(tmp_path), use_cpu=True, bf16=False, num_generations=4, num_train_epochs=3)
    assert [len(asked_rows(QUESTIONS, Prompts(), arguments, training)) for _ in range(2)] == [12, 12]

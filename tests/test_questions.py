"""Questions: formats, columns, gold answers, and everything that can be wrong with a file."""

import json
import logging
import random
import time

import pandas
import pytest
from datasets import Dataset
from transformers import AutoTokenizer

from rlred.data.budgets import BudgetSampler, Wording, training_rows
from rlred.data.golds import PROSE_WORDS, worked_answer
from rlred.data.questions import load_questions, solution_of
from rlred.data.table_files import read_rows
from rlred.evaluation.references import write_references
from rlred.rewards import Correctness
from rlred.tiny import resolve_model, sums
from tests.paths import ROOT, real_data


@pytest.mark.parametrize(
    "value, expected",
    [
        ("6 * 3 = <<6*3=18>>18\n#### 18", "18"),
        ("#### 1,250", "1,250"),
        ("Thus $x = \\boxed{\\frac{3}{4}}$.", "\\frac{3}{4}"),
        ("\\frac{1}{2}", "\\frac{1}{2}"),
        (142.0, "142"),
        (0.5, "0.5"),
        (7, "7"),
        (["2"], "2"),
        (["2", "5"], ["2", "5"]),
        ([], None),
        ("", None),
        ("  ", None),
        ("####", None),
        ("\\boxed{", None),
        (None, None),
        (True, None),
        ({"a": 1}, None),
        ("9" * 5000, None),
        (float("nan"), None),
        ("NaN", None),
        (float("inf"), None),
        (0, "0"),
        ("None", "None"),  # may be the answer
        ("proof", None),
        ([None, "", "7"], "7"),
        (["7", "7 "], "7"),
        (["\\boxed{7}", "7.0"], ["7", "7.0"]),
        ([["3", "8"], ["8", "3"]], ["3, 8", "8, 3"]),
        ('["16"]', "16"),
        ("[1, 2]", "[1, 2]"),
        ("\\{\\}", "\\{\\}"),
        ("$ $.", None),
        ({"value": 4}, "4"),
        ({"number": "4", "date": {"day": ""}, "spans": []}, "4"),
        ({"value": "Pluto", "aliases": ["Pluto", "the dwarf planet Pluto"]}, ["Pluto", "the dwarf planet Pluto"]),
        ("#### Step 1\nAdd.\n#### Step 2\nSo $\\boxed{9}$.", "9"),
        ("#### Step 2\nSo it is nine.", None),
        ("Add them. The final answer is $9$. I hope it is correct.", "9"),
        ("**Answer:** 3.5 m", "3.5 m"),
        ("The answer is $3$ and $4$.", "$3$ and $4$"),
        ("<think>\\boxed{1}</think>So \\boxed{2}", "2"),
        ("No answer is possible", "No answer is possible"),
        ("All integers greater than 2", "All integers greater than 2"),
        ("we add them up and see " * PROSE_WORDS, None),
    ],
)
def test_solution_of(value, expected):
    assert solution_of(value) == expected


ROWS = [{"problem": f"What is {i}+1?", "answer": str(i + 1), "level": i} for i in range(5)]


@pytest.mark.parametrize("kind", ["json", "jsonl", "parquet", "csv"])
def test_local_files_of_every_format(tmp_path, kind):
    path = tmp_path / f"questions.{kind}"
    frame = pandas.DataFrame(ROWS)
    if kind == "json":
        path.write_text(json.dumps(ROWS))
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif kind == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False)
    questions = load_questions(str(path))
    assert questions.column_names == ["question_id", "question", "solution", "level"]
    assert questions[3] == {"question_id": 3, "question": "What is 3+1?", "solution": "4", "level": 3}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_local_file_asks_nothing_of_the_network(tmp_path, kind, monkeypatch):
    # Trap: datasets.load_dataset counts each load on a server, and waits some seconds for a name that cannot be found.
    asked = []
    monkeypatch.setattr("socket.getaddrinfo", lambda *address, **_: asked.append(address))
    path = tmp_path / f"rows.{kind}"
    frame = pandas.DataFrame({"question": ["1+1=?"], "answer": ["2"]})
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    assert load_questions(str(path))[0]["solution"] == "2" and asked == []


def test_a_folder_of_many_files_can_be_streamed(tmp_path):
    for number in range(3):
        rows = {"question": [f"{number}+{n}?" for n in range(50)], "answer": [f"#### {number + n}" for n in range(50)]}
        Dataset.from_dict(rows).to_parquet(tmp_path / f"train-{number:05d}-of-00003.parquet")
    taken = [load_questions(str(tmp_path), limit=20, streaming=True, seed=seed).to_list() for seed in (0, 0, 1)]
    assert taken[0] == taken[1] != taken[2] and len(taken[0]) == len({row["question"] for row in taken[0]}) == 20
    assert all(sum_of(row["question"]) == int(row["solution"]) for row in taken[2])
    with pytest.raises(ValueError, match="neither a local file nor a dataset that can be loaded \\(split 'dev'\\)"):
        load_questions(str(tmp_path), split="dev", limit=2, streaming=True)


def sum_of(question: str) -> int:
    return sum(int(part) for part in question.removesuffix("?").split("+"))


@pytest.mark.parametrize("source, limit", [("sums", 5), ("rows.jsonl", 5), ("somebody/questions", None)])
def test_streaming_is_for_so_many_rows_of_what_would_be_downloaded(source, limit):
    with pytest.raises(ValueError, match="streaming: is for so many .num_questions. rows"):
        load_questions(source, limit=limit, streaming=True)


def test_columns_can_be_named(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps({"frage": "1+1?", "loesung": "2", "answer": "3"}))
    assert load_questions(str(path), question_column="frage", solution_column="loesung")[0]["solution"] == "2"


def test_bad_rows_are_skipped_and_counted(tmp_path, caplog):
    path = tmp_path / "q.jsonl"
    rows = [*ROWS, {"problem": "", "answer": "1"}, {"problem": "x?", "answer": ""}, {"problem": "y?", "answer": None}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with caplog.at_level(logging.WARNING):
        assert len(load_questions(str(path))) == 5
    assert "skipped 1 of 8 rows without a question" in caplog.text
    assert "skipped 2 of 8 rows without a final answer" in caplog.text


def test_a_limit_takes_a_seeded_sample_of_the_whole_file(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps({"problem": f"{i}?", "answer": i}) + "\n" for i in range(100)))
    picked = [load_questions(str(path), limit=10, seed=seed)["question"][:] for seed in (0, 0, 1)]
    assert picked[0] == picked[1] != picked[2]
    assert any(int(question[:-1]) >= 10 for question in picked[0])


@pytest.mark.parametrize(
    "name, content, arguments, message",
    [
        ("missing.jsonl", None, {}, "no such file"),
        ("empty.jsonl", "", {}, "the file is empty"),
        ("broken.jsonl", '{"problem": "x"\n', {}, "cannot be read as JSON"),
        ("deep.json", "[" * 100_000, {}, "cannot be read as JSON"),
        ("numbers.jsonl", "1\n2\n", {}, "every row must be a JSON object"),
        ("binary.json", b"\xff\xfe\x00", {}, "cannot be read as JSON"),
        ("binary.parquet", b"not a parquet file", {}, "cannot be read as parquet"),
        ("notes.txt", "hello", {}, "unknown kind of file"),
        ("columns.jsonl", '{"a": 1, "b": 2}', {}, "no column is called question"),
        (
            "columns.jsonl",
            '{"question": "x", "b": 2}',
            {},
            "no column is called expected_answer, .*solution_column .there are question, b.",
        ),
        ("columns.jsonl", '{"question": "x", "answer": 2}', {"question_column": "q"}, "question_column='q'"),
        ("columns.jsonl", '{"question": "x", "answer": 2}', {"solution_column": "s"}, "solution_column='s'"),
        ("answers.jsonl", '{"question": "x", "answer": ""}', {}, "no usable question"),
        ("limit.jsonl", '{"question": "x", "answer": "1"}', {"limit": 0}, "1 or more"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, name, content, arguments, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=message) as raised:
        load_questions(str(path), **arguments)
    assert "\n" not in str(raised.value)


def test_an_unreachable_dataset_is_one_clear_line(monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="neither a local file nor a dataset") as raised:
        load_questions("nobody/nothing-at-all")
    assert "\n" not in str(raised.value)


def test_the_embedded_splits_never_overlap():
    train = {row["question"] for row in sums.questions(4096, "train", seed=0)}
    test = {row["question"] for seed in range(3) for row in sums.questions(500, "test", seed)}
    assert not train & test and len(train) == 4096
    assert all(sums.split_of(question) == "test" for question in test)
    with pytest.raises(ValueError, match="splits 'train' and 'test'"):
        load_questions("sums", split="validation")


def test_embedded_solutions_are_right():
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("tiny_reasoner"))
    for row in sums.questions(200, "train"):
        addends = [int(number) for number in row["question"][:-2].split("+")]
        assert row["solution"] == str(sum(addends))
        spent = sums.num_necessary(addends)  # as the last note says
        thinking = sums.trace(addends, spent).split("</think>")[0]
        assert thinking.endswith(f"={row['solution']} {spent}")
        assert len(tokenizer(thinking)["input_ids"]) == spent


@pytest.mark.parametrize(
    "name, count, first",
    [
        ("gsm8k/train.jsonl", 7473, "72"),
        ("gsm8k/test.jsonl", 1319, "18"),
        ("math500/test.jsonl", 500, "\\left( 3, \\frac{\\pi}{2} \\right)"),
        ("competition/aime.json", 30, "204"),
        ("competition/amc.json", 83, "142"),
        ("competition/olympiad_bench.json", 675, "2"),
    ],
)
def test_real_files_load_whole(name, count, first):
    questions = load_questions(str(real_data(name)))
    assert len(questions) == count and questions[0]["solution"] == first


# --- layouts: how other people's files keep questions and answers


def loaded(tmp_path, *rows, **arguments):
    path = tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_questions(str(path), **arguments)


USER, SYSTEM = {"role": "user", "content": "6 * 7?"}, {"role": "system", "content": "Answer in one line."}
SAID = {"role": "assistant", "content": "6 * 7 is $\\boxed{42}$."}


@pytest.mark.parametrize(
    "row, solution",
    [
        # names
        ({"Problem": "6 * 7?", "Answer": 42, "Solution": "Multiply."}, "42"),
        ({"question": "6 * 7?", "Expected Answer": "42"}, "42"),
        ({"question": "6 * 7?", "expected_answer": "42", "generated_solution": "\\boxed{41}"}, "42"),
        ({"question": "6 * 7?", "finalAnswer": "42", "answer": "Six sevens."}, "42"),
        ({"question": "6 * 7?", "final_answer": None, "answer": "42"}, "42"),
        ({"question": "6 * 7?", "final_answer": "41", "ground_truth": "42"}, "42"),
        ({"query": "6 * 7?", "target": "42"}, "42"),
        ({"input": "6 * 7?", "output": "42"}, "42"),
        ({"question": "6 * 7?", "solution": "42"}, "42"),
        # worked answers
        ({"question": "6 * 7?", "answer": "", "solution": "So $\\boxed{42}$."}, "42"),
        ({"question": "6 * 7?", "answer": None, "solution": "So the final answer is 42."}, "42"),
        ({"question": "6 * 7?", "answer": "we add seven to itself " * 9, "solution": "#### 42"}, "42"),
        ({"question": "6 * 7?", "answer": None, "solution": ["First, so $\\boxed{42}$.", "Or else."]}, "42"),
        ({"question": "6 * 7?", "output": "Count them.\n#### 42"}, "42"),
        # conversations
        ({"prompt": [USER], "answer": "42"}, "42"),
        ({"prompt": json.dumps([SYSTEM, USER]), "answer": "42"}, "42"),
        ({"prompt": [{"role": "user", "content": [{"type": "text", "text": "6 * 7?"}]}], "answer": 42.0}, "42"),
        ({"messages": [SYSTEM, USER, SAID]}, "42"),
        ({"messages": [USER, SAID], "answer": "43"}, "43"),
        ({"conversations": [{"from": "human", "value": "6 * 7?"}, {"from": "gpt", "value": "#### 42"}]}, "42"),
        # inside objects
        ({"prompt": [USER], "reward_model": {"style": "rule", "ground_truth": "42"}}, "42"),
        ({"prompt": [USER], "reward_model": {"ground_truth": '["42"]'}}, "42"),
        ({"prompt": [USER], "reward_model": '{"ground_truth": "42"}'}, "42"),
        ({"question": "6 * 7?", "answer": {"value": "42"}}, "42"),
        # lists
        ({"question": "6 * 7?", "answer": ["42\n"]}, "42"),
        ({"question": "6 * 7?", "answer": ["42\n", "42.0\n"]}, ["42", "42.0"]),
        ({"question": "6 * 7?", "final_answer": ["$4$,$9$"], "is_multiple_answer": True}, "$4$,$9$"),
        ({"question": "6 * 7?", "final_answer": ["4", "9"], "is_multiple_answer": True}, "4, 9"),
        ({"question": "6 * 7?", "final_answer": ["4", "9"], "is_multiple_answer": False}, ["4", "9"]),
    ],
)
def test_layouts(tmp_path, row, solution):
    (found,) = loaded(tmp_path, row)
    assert (found["question"], found["solution"]) == ("6 * 7?", solution)


@pytest.mark.parametrize(
    "row, question",
    [
        ({"instruction": "Solve it.", "input": "6 * 7?", "answer": 42}, "Solve it.\n\n6 * 7?"),
        ({"instruction": "6 * 7?", "input": "", "output": "42"}, "6 * 7?"),
        ({"instruction": "Solve it.", "problem": "6 * 7?", "answer": 42}, "6 * 7?"),
        (
            {"Body": "There are 6 rows of 7.", "Question": "How many?", "Answer": 42.0},
            "There are 6 rows of 7.\n\nHow many?",
        ),
        ({"context": None, "question": "6 * 7?", "answer": 42}, "6 * 7?"),
        ({"context": "Six", "question": "Six times 7?", "answer": 42}, "Six times 7?"),  # there already
    ],
)
def test_nothing_that_a_question_needs_is_left_behind(tmp_path, row, question):
    assert loaded(tmp_path, row)[0]["question"] == question


def test_columns_inside_objects_can_be_named(tmp_path):
    row = {"x": {"asked": "6 * 7?", "y": {"gold": 42}}, "question": "?", "answer": 1}
    (found,) = loaded(tmp_path, row, question_column="x.asked", solution_column="x.y.gold")
    assert (found["question"], found["solution"]) == ("6 * 7?", "42")


def test_a_system_turn_is_kept_in_its_column(tmp_path):
    rows = [{"messages": [SYSTEM, USER, SAID]}, {"messages": [USER, SAID]}]
    assert loaded(tmp_path, *rows)["system"][:] == ["Answer in one line.", None]
    assert loaded(tmp_path, {"question": "?", "answer": 1, "system": "Be brief."})[0]["system"] == "Be brief."
    assert "system" not in loaded(tmp_path, {"prompt": [USER], "answer": 1}).column_names


@pytest.mark.parametrize(
    "rows, message",
    [
        ([{"generated_solution": "\\boxed{4}", "question": "2 + 2?"}], "there are generated_solution, question"),
        ([{"stem": "2 + 2?", "answer": 4}], "question_column .there are stem, answer"),
        ([{"messages": [USER]}], "no column is called .*solution_column"),
        ([{"messages": [USER, {"role": "assistant", "content": "It is."}]}], "1 without a final answer"),
        ([{"messages": [USER, SAID, USER], "answer": 1}], "1 with several user turns"),
        ([{"messages": [USER, {"role": "tool", "content": "4"}], "answer": 1}], "1 whose conversation has tools"),
        ([{"prompt": [{"role": "user", "content": [{"type": "image"}]}], "answer": 1}], "1 whose conversation has"),
        (
            [{"question": "2 + 2?", "answer": None, "solution": "Add."}],
            "1 without a final answer .*'answer', 'solution'",
        ),
        ([{"question": "2 + 2?", "answer": True}], "1 without a final answer"),
        (
            [{"question": "2 + 2?", "correct_answer": "4", "incorrect_answers": ["5"]}],
            "'incorrect_answers' .*'options'",
        ),
        ([{"Question": "2 + 2?", "Correct Answer": "4", "Incorrect Answer 1": "5"}], "'Incorrect Answer 1' "),
        ([{"question": "2 + 2?", "options": ["4", "5"]}], "'options' holds options, and no column says which"),
        ([{"question": "2 + 2?", "options": ["4", "5"], "answer": "C"}], "1 whose 'answer' is none of the options"),
        ([{"question": "2 + 2?", "options": ["4"], "answer": "A"}], "options .'options'. cannot be read"),
        ([{"question": "2 + 2?", "options": ["1", "2", "3"], "answer": 2}], "row 1: answer=2 may be the position"),
        (
            [{"question": "2 + 2?", "choices": ["4", "5"], "answer": n} for n in (0, 2)],
            "row 2: answer=2 is no position among its 2 options",
        ),
    ],
)
def test_layouts_that_cannot_be_read_are_refused(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message) as raised:
        loaded(tmp_path, *rows)
    assert str(raised.value).startswith(str(tmp_path / "q.jsonl")) and "\n" not in str(raised.value)


# --- multiple choice

WORDS = ["sphere", "cube", "cone"]


@pytest.mark.parametrize(
    "row",
    [
        {"options": WORDS, "answer": "B"},
        {"options": WORDS, "answer": "b"},
        {"options": WORDS, "answer": "(B)"},
        {"options": WORDS, "answer": "B) cube"},
        {"options": WORDS, "answer": "\\text{(B)}"},
        {"options": WORDS, "answer": "Cube"},
        {"options": WORDS, "answer": ["B"]},
        {"options": WORDS, "answer": "B", "answer_index": 1},
        {"options": WORDS, "solution": "Six faces: $\\boxed{B}$."},
        {"choices": WORDS, "answer": 1},
        {"choices": WORDS, "answer": 1.0},
        {"choices": WORDS, "answer_index": "1"},
        {"choices": json.dumps(WORDS), "label": 1},
        {"options": {"A": "sphere", "B": "cube", "C": "cone", "D": None}, "answer": "B"},
        {"options": {"a": "sphere", "b": "cube", "c": "cone"}, "answer": "b"},
        {"choices": {"text": WORDS, "label": ["A", "B", "C"]}, "answerKey": "B"},
        {"choices": {"text": WORDS, "label": ["1", "2", "3"]}, "answerKey": "2"},
        {
            "options": [{"label": letter, "text": word} for letter, word in zip("ABC", WORDS, strict=True)],
            "correct": "B",
        },
        {"options": [f"{letter}) {word}" for letter, word in zip("ABC", WORDS, strict=True)], "correct": "B"},
        {"options": "a ) sphere , b ) cube , c ) cone", "correct": "b"},
        {"A": "sphere", "B": "cube", "C": "cone", "answer": "B"},
        {"opa": "sphere", "opb": "cube", "opc": "cone", "cop": 1},
        {"option_1": "sphere", "option_2": "cube", "option_3": "cone", "answer": "cube"},
    ],
)
def test_options_go_into_the_question_and_the_gold_becomes_the_letter(tmp_path, row):
    (found,) = loaded(tmp_path, {"question": "Which has six faces?", **row})
    asked = "Which has six faces?\n\nA) sphere\nB) cube\nC) cone\n\nAnswer with the letter of the correct option."
    assert (found["question"], found["solution"]) == (asked, "B")


@pytest.mark.parametrize(
    "options, numbers, letters",
    [
        ([WORDS, WORDS], [2, 1], "CB"),  # from 0, as most do
        ([WORDS, WORDS], [0, 2], "AC"),
        ([WORDS, WORDS], [3, 1], "CA"),  # from 1, or 3 would be none
        ([["10", "12", "0"], ["7", "12", "9"]], [12, 9], "BC"),  # texts
        ([["0", "1", "2"], ["0", "1", "2"]], [2, 1], "CB"),  # position and text agree
        ([["1", "2", "3"], WORDS], [1, 1], "BB"),  # not texts, as the second row has none
    ],
)
def test_what_numbers_count_from_is_told_by_the_whole_column(tmp_path, options, numbers, letters):
    rows = [{"question": "?", "choices": own, "answer": n} for own, n in zip(options, numbers, strict=True)]
    assert "".join(loaded(tmp_path, *rows)["solution"]) == letters


def test_options_that_the_question_lists_are_not_listed_twice(tmp_path):
    row = {"question": "Which?\n(A) cube\n(B) cone", "options": ["cube", "cone"], "answer": "A"}
    assert loaded(tmp_path, row)[0]["question"].count("cone") == 1


def test_rows_without_options_among_others_keep_their_answer(tmp_path, caplog):
    golds = [(WORDS, "C"), (None, "7"), (WORDS, "E"), (WORDS, None)]
    rows = [{"question": "?", "options": own, "answer": gold} for own, gold in golds]
    with caplog.at_level(logging.WARNING):
        assert loaded(tmp_path, *rows)["solution"][:] == ["C", "7"]
    assert "skipped 1 of 4 rows whose 'answer' is none of the options; the first is row 3" in caplog.text
    assert "skipped 1 of 4 rows without a final answer; the first is row 4" in caplog.text


# --- types, and what comes after


@pytest.mark.parametrize(
    "levels, carried", [([1, None, 2.5], [1, None, 2.5]), ([1, "Level 2", None], ["1", "Level 2", None])]
)
def test_mixed_columns(tmp_path, levels, carried):
    rows = [{"question": "?", "answer": gold, "level": one} for gold, one in zip([7, "8", 9.5], levels, strict=True)]
    found = loaded(tmp_path, *rows)
    assert found["solution"][:] == ["7", "8", "9.5"] and found["level"][:] == carried


def test_half_a_surrogate_pair_is_no_exception(tmp_path):
    assert loaded(tmp_path, {"question": "a\ud800b?", "answer": "c\udfffd"})[0]["solution"] == "c?d"


def test_alternatives_are_lists_in_every_row_and_pass_through(tmp_path):
    rows = [{"question": "a?", "answer": "1"}, {"question": "b?", "answer": ["2", "3"]}]
    found = loaded(tmp_path, *rows)
    assert found["solution"][:] == [["1"], ["2", "3"]]
    asked = training_rows(found, Wording(), BudgetSampler(low=8, high=16), num_rows=4)
    assert sorted(asked["solution"][:2]) == [["1"], ["2", "3"]]
    write_references(found, tmp_path / "reference.jsonl")
    assert load_questions(str(tmp_path / "reference.jsonl"))["solution"][:] == found["solution"][:]


def test_parquet_with_nested_columns(tmp_path):
    path = tmp_path / "q.parquet"
    rows = [{"prompt": [SYSTEM, USER], "reward_model": {"ground_truth": "42"}, "unused": "x" * 1000}] * 3
    pandas.DataFrame(rows).to_parquet(path)
    found = load_questions(str(path))
    assert len(found) == 3 and found[2] == {
        **{"question_id": 2, "question": "6 * 7?", "solution": "42"},
        "system": "Answer in one line.",
    }


VALUES = [None, float("nan"), "", [], {}, "A", 1, -1, 2.5, True, "text", ["a"], ["a", 1, None], {"A": "x", "B": None}]
VALUES += [
    {"text": ["a", "b"], "label": [1]},
    [{"label": "A"}],
    [[1], [2]],
    '[{"role": 1}]',
    '{"a":',
    10**400,
    "\ud800",
]
VALUES += [[{"role": "user", "content": None}], [{"from": "human"}], [{"role": "user", "content": [1]}], {"text": None}]
NAMES = [
    "question",
    "prompt",
    "messages",
    "answer",
    "options",
    "choices",
    "answer_index",
    "label",
    "solution",
    "A",
    "B",
]
NAMES += ["reward_model", "system", "level", "input", "instruction", "context", "is_multiple_answer"]


def test_any_rows_are_read_or_refused_in_one_line(tmp_path):
    rng, read = random.Random(0), 0
    for _ in range(400):
        columns = rng.sample(NAMES, rng.randint(2, 7))
        rows = [{name: rng.choice(VALUES) for name in columns} for _ in range(rng.randint(1, 3))]
        try:
            read += len(loaded(tmp_path, *rows)) > 0
        except ValueError as error:
            assert "\n" not in str(error) and "q.jsonl" in str(error), rows
    assert read > 10


@pytest.mark.parametrize("text", ["the answer is" + " " * 10**5, "\n" * 10**5, "the answer is $" * 10**4, "#" * 10**5])
def test_reading_a_hostile_worked_answer_is_fast(text):
    start = time.perf_counter()
    worked_answer(text)
    assert time.perf_counter() - start < 2


CASES = ROOT.parent / "shared" / "cases" / "questions"
EXPECTED = json.loads((CASES / "expected.json").read_text(encoding="utf-8")) if CASES.is_dir() else []


@pytest.mark.skipif(not EXPECTED, reason=f"the shared cases are absent: {CASES}")
@pytest.mark.parametrize("case", EXPECTED, ids=lambda case: case["file"])
def test_shared_cases(case):
    try:
        rows = list(load_questions(str(CASES / case["file"])))
    except ValueError as error:
        assert "refusal" in case and all(word.lower() in str(error).lower() for word in case["refusal"])
        assert case["file"] in str(error) and "\n" not in str(error)
        return
    assert len(rows) == len(case["rows"])
    for row, expected in zip(rows, case["rows"], strict=True):
        assert all(part in row["question"] for part in expected["question"])
        golds = row["solution"] if isinstance(row["solution"], list) else [row["solution"]]
        for grade, answers in ((1.0, expected["accepts"]), (0.0, expected["rejects"])):
            for answer in answers:
                assert max(Correctness().grade(f"\\boxed{{{answer}}}", gold) for gold in golds) == grade, answer


@pytest.mark.parametrize("name", ["gsm8k/train.jsonl", "math500/test.jsonl", "competition/olympiad_bench.json"])
def test_no_row_of_a_real_file_is_lost(name, caplog):
    path = real_data(name)
    with caplog.at_level(logging.WARNING):
        assert len(load_questions(str(path))) == len(read_rows(path))
    assert not caplog.records


def test_a_worked_answer_in_two_boxes_has_both_values():
    assert worked_answer(r"So $x=\boxed{2}$ and $x=\boxed{3}$.") == "2, 3"
    assert worked_answer(r"\boxed{4} is too small. So it is \boxed{9}.") == "9"

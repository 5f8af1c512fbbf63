"""Questions: formats, columns, gold answers, and everything that can be wrong with a file."""

import json
import logging

import pandas
import pytest
from transformers import AutoTokenizer

from rlred.questions import load_questions, solution_of
from rlred.tiny import resolve_model, sums
from tests.paths import real_data


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
        ("columns.jsonl", '{"question": "x", "b": 2}', {}, "no column is called answer"),
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

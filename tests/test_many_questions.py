"""Many questions: rows are made as they are read, and a large file gives what a small one of the same rows gives."""

import json
import pickle
import random
import socket

import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from rlred.checks.audit import audit_columns
from rlred.data import asked, question_table
from rlred.data import questions as loading
from rlred.data.asked import Schedule, lacking, without_prompts
from rlred.data.budgets import BudgetSampler, Wording, training_rows
from rlred.data.question_table import Rows, as_type, common_type, remove_left, shared_questions, simple
from rlred.data.questions import Layout, load_questions
from rlred.data.table_files import Lines, ParquetRows, read_lines, read_rows
from rlred.evaluation.sampling import SHARD, Sampling
from rlred.rewards import LengthEfficiency
from tests.benchmarks.startup import measured, write_file
from tests.paths import ROOT

MIXED = BudgetSampler(16, 80, modes={"exact": 1, "max": 2, "free": 1})
QUESTIONS = Dataset.from_list([{"question_id": n, "question": f"{n}+1?", "solution": str(n + 1)} for n in range(7)])


def drawn_at_once(count: int, sampler: BudgetSampler, num_rows: int, each: int, seed: int) -> list:
    """Question, mode and budget of every row, by one generator from the first to the last: what resume stands on."""
    rng, found = random.Random(f"budgets/{seed}"), []
    while len(found) < num_rows:
        for index in rng.sample(range(count), count):
            found += [(index, *sampler.draw(rng)) for _ in range(each)]
    return found[:num_rows]


EFFORTS = BudgetSampler(16, 80, modes={"effort": 2, "exact": 1, "free": 1})


@settings(max_examples=40)
@given(st.integers(1, 9), st.integers(1, 60), st.integers(1, 4), st.integers(0, 5), st.randoms())
def test_rows_are_a_pure_function_in_whatever_order_they_are_read(count, num_rows, each, seed, rng):
    for sampler in (MIXED, EFFORTS):
        schedule, whole = (
            Schedule(sampler, count, num_rows, each, seed),
            drawn_at_once(count, sampler, num_rows, each, seed),
        )
        order = rng.choices(range(num_rows), k=40)
        assert repr([schedule[number] for number in order]) == repr([whole[number] for number in order])  # 1 is not 1.0


def test_asked_rows_are_a_data_set_like_any_other():
    rows = training_rows(QUESTIONS, Wording(), MIXED, num_rows=20, budgets_per_question=2, seed=3)
    whole = list(rows)
    for number, (place, mode, budget) in enumerate(drawn_at_once(7, MIXED, 20, 2, 3)):
        content = Wording().ask(f"{place}+1?", budget, mode)
        told = {"prompt": [{"role": "user", "content": content}], "budget": budget, "mode": mode}
        assert whole[number] == {**QUESTIONS[place], **told}
    assert rows.column_names == list(whole[0])
    assert rows.__getitems__([19, 0]) == [whole[19], whole[0]]  # a data loader
    assert rows["budget"][4:9] == [row["budget"] for row in whole[4:9]]
    assert list(rows.select(range(5, 8))) == whole[5:8]
    bare = [{name: value for name, value in row.items() if name != "prompt"} for row in whole]
    assert [{**row, "effort": None} for row in bare[:9]] == without_prompts(rows, 9)
    assert without_prompts(Dataset.from_list(whole), 9) == bare[:9]
    assert pickle.loads(pickle.dumps(rows))[11] == whole[11]  # a loader's worker that is spawned


def test_columns_without_a_value_are_counted_over_the_rows_of_the_modes_that_need_them():
    lengths = [None, 4.0, 5.0, None, 6.0, 7.0, 8.0]
    questions = QUESTIONS.add_column("reference_length", lengths)
    rows = training_rows(questions, Wording(), MIXED, num_rows=33, budgets_per_question=2, seed=1)
    drawn = drawn_at_once(7, MIXED, 33, 2, 1)
    for modes in ({"max"}, {"free", "exact"}):
        asking = [place for place, mode, _ in drawn if mode in modes]
        assert lacking(rows, "reference_length", modes) == (sum(lengths[n] is None for n in asking), len(asking))
        assert lacking(Dataset.from_list(list(rows)), "reference_length", modes) == lacking(
            rows, "reference_length", modes
        )
    full = QUESTIONS.add_column("reference_length", [1.0] * 7)
    assert lacking(training_rows(full, Wording(), MIXED, num_rows=9), "reference_length", {"max"})[0] == 0


# --- parsing

PLAIN = Layout("question", (), (), ("answer",), (), ())
PIECES = ["#### ", "####", "\\boxed{", "}", "{", "\\frac{1}{2}", "42", "-7", "3.5", " ", "\n", "The answer is ", "nan"]
PIECES += [
    "</think>",
    "<think>",
    "\\fbox{3}",
    "box",
    "boxes of ",
    "N/A",
    "proof",
    "x",
    "[1, 2]",
    '{"a": "b"}',
    ".",
    "$",
    "\t",
    "\u00a0",
    "é",
    "\\\\",
]


@settings(max_examples=150)
@given(
    st.lists(st.sampled_from(PIECES), max_size=7).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=5).map("".join),
)
def test_what_is_read_off_at_once_is_what_parsing_makes_of_it(answer, question):
    found = [column.to_pylist()[0] for column in simple(pyarrow.array([question]), pyarrow.array([answer]))]
    if found != [None, None]:
        parsed = loading._question_row({"question": question, "answer": answer}, PLAIN)
        assert [parsed["question"], parsed["solution"]] == found


@pytest.mark.parametrize(
    "answer, solution",
    [
        ("Add them.\n#### 1,024", "1,024"),  # most of GSM8K
        ("Add 3 boxes and a box.\n#### 24", "24"),
        ("so $\\boxed{42}$.", "42"),
        ("17", "17"),
        ("x+1", "x+1"),
        ("Add them.\n#### 7\nor 8", None),
        ("\\boxed{1} and \\boxed{2}", None),
        ("the answer is 3", None),
        ("n/a", None),
        ("", None),
    ],
)
def test_the_usual_answers_need_no_parsing_and_the_others_get_it(answer, solution):
    assert simple(pyarrow.array(["1+1?"]), pyarrow.array([answer]))[1].to_pylist() == [solution]


def awkward_rows(count: int) -> list[dict]:
    """Rows of which some are skipped, some have alternatives late in the file, and levels change their type."""
    rng = random.Random(0)
    rows = []
    for number in range(count):
        answer = rng.choice(
            [str(number), f"so\n#### {number}", f"$\\boxed{{{number}}}$", "the answer is 5", "", "proof"]
        )
        level = number if number < count - 9 else f"Level {number}"
        rows.append(
            {"question": rng.choice([f"{number}?", f" {number}? ", "", f"é{number}"]), "answer": answer, "level": level}
        )
        if number > count - 5:
            rows[-1]["answer"] = [str(number), f"{number}.0"]
    return rows


@pytest.mark.parametrize("limit", [None, 20])
def test_a_large_file_gives_the_rows_of_a_small_one(limit, tmp_path, monkeypatch, caplog):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in awkward_rows(120)))
    monkeypatch.setattr(loading.Dataset, "from_parquet", None)
    whole, said = list(load_questions(str(path), limit=limit)), caplog.text.replace(str(path), "")
    caplog.clear()
    for name, value in (("BLOCK", 7), ("IN_MEMORY", 15)):
        monkeypatch.setattr(question_table, name, value)
    monkeypatch.setattr(loading, "BLOCK", 7)
    monkeypatch.setattr(question_table.datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(loading, "read_lines", lambda path: read_lines(path, at_least=0))
    found = load_questions(str(path), limit=limit)
    assert list(found) == whole and caplog.text.replace(str(path), "") == said
    assert "skipped" in said and isinstance(whole[0]["solution"], list) == (limit is None)
    assert list((tmp_path / "cache").glob("rlred-*/*.arrow"))
    assert pickle.loads(pickle.dumps(found))[3] == whole[3] and list(Rows(found)) == whole


@pytest.mark.parametrize("gold", [list(range(30)), [f"#### {n}" for n in range(30)], [float(n) for n in range(30)]])
def test_a_parquet_file_of_numbers_or_texts(gold, tmp_path):
    table = pyarrow.table({"question": [f"{n}?" for n in range(30)], "answer": gold})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    assert list(load_questions(str(tmp_path / "rows.parquet"))["solution"]) == [str(n) for n in range(30)]


@pytest.mark.parametrize("group", [7, 5000])
def test_the_rows_of_a_parquet_file_by_index_and_block_by_block(group, tmp_path):
    rows = [{"a": number, "b": {"c": str(number)}} for number in range(2500)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet", row_group_size=group)
    found = ParquetRows(tmp_path / "rows.parquet")
    assert [found[number] for number in (0, 9, 1500, 2499, 3)] == [rows[number] for number in (0, 9, 1500, 2499, 3)]
    blocks = list(found.blocks(["a"], 1000))
    assert [len(block) for block in blocks] == [1000, 1000, 500]
    assert [row for block in blocks for row in block.to_pylist()] == [{"a": row["a"]} for row in rows]
    with pytest.raises(IndexError):
        found[2500]


@pytest.mark.parametrize(
    "content",
    [
        '{"question": "1?"}\n\n{"question": "2?", "answer": "\\u2028"}\n{"b": NaN}',
        '{"question": "é"}\r\n{"answer": 2}\r\n',
    ],
)
def test_a_mapped_file_of_lines_has_the_rows_of_one_that_is_read(content, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content.encode())
    found = read_lines(path, at_least=0)
    assert isinstance(found, Lines) and repr([found[n] for n in range(len(found))]) == repr(read_rows(path))
    assert found.names == list(dict.fromkeys(name for row in read_rows(path) for name in row))


@pytest.mark.parametrize("content", ['[{"a": 1}]', '{\n"a": 1}', '{"a": 1}\n[2]', '{"a": 1}\n{"a"', "\ufeff{}", ""])
def test_what_is_no_file_of_lines_is_left_to_the_reader_that_complains(content, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    assert read_lines(path, at_least=0) is None
    path.write_text('{"a": 1}\n{"a": 2}\n')
    assert read_lines(path) is None  # small


def test_trap_a_large_object_on_one_line_is_no_file_of_lines(tmp_path):
    path = tmp_path / "splits.json"
    path.write_text(json.dumps({"train": [{"question": "1+1=?"}, {"question": "1+2=?"}]}))
    assert read_lines(path, at_least=0) is None and len(read_rows(path)) == 2


def test_rows_in_any_order_draw_no_epoch_twice(monkeypatch):
    drawn = []
    draw = asked.Epoch.draw
    monkeypatch.setattr(asked.Epoch, "draw", lambda self, *told: (drawn.append(id(self)), draw(self, *told)))
    schedule = Schedule(BudgetSampler(), num_questions=10, num_rows=60)
    rows = [schedule[number] for number in (55, 3, 41, 17, 55, 3, 29)]
    assert len(drawn) == 6  # one for each epoch
    monkeypatch.setattr(asked, "ROWS_KEPT", 0)  # and with two epochs kept they are the same rows
    again = Schedule(BudgetSampler(), num_questions=10, num_rows=60)
    assert [again[number] for number in (55, 3, 41, 17, 55, 3, 29)] == rows and len(again._epochs) == 2


@pytest.mark.parametrize(
    "values, kinds, found",
    [
        ([[1], [None], [2.5]], "double", [[1.0], [None], [2.5]]),
        ([[1, None], ["Level 2"]], "string", [["1", None], ["Level 2"]]),
        ([["7"], [["7", "7.0"], None]], "list<item: string>", [[["7"]], [["7", "7.0"], None]]),
        ([[[]], [[3, 4]]], "list<item: int64>", [[[]], [[3, 4]]]),
        ([[None], [None]], "null", [[None], [None]]),
    ],
)
def test_blocks_of_several_types_get_one(values, kinds, found):
    arrays = [pyarrow.chunked_array([pyarrow.array(one)]) for one in values]
    kind = common_type([one.type for one in arrays])
    assert str(kind) == kinds and [as_type(one, kind).to_pylist() for one in arrays] == found


def test_the_files_of_a_program_that_is_gone_are_removed_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(question_table.datasets.config, "HF_DATASETS_CACHE", tmp_path)
    own = question_table.new_folder()
    gone = own.with_name(own.name.replace(f"-{own.name.split('-')[-2]}-", f"-{2**22 + 1}-"))
    longer = own.with_name(
        gone.name.replace(socket.gethostname(), f"{socket.gethostname()}-1")
    )  # a host of such a name
    others = [tmp_path / "rlred-another-host-4194305-0", tmp_path / "parquet", longer]
    for folder in (gone, *others):
        folder.mkdir()
    remove_left(tmp_path)
    assert not gone.exists() and own.exists()
    assert all(folder.exists() for folder in others)


def test_shared_questions_are_counted_once_each():
    one = Dataset.from_list([{"question": text} for text in ("a", "b", "b", "c")])
    two = Dataset.from_list([{"question": text} for text in ("b", "c", "c", "d", "e")])
    assert shared_questions(one, two) == shared_questions(two, one) == 2
    assert shared_questions(one, Dataset.from_list([{"question": "x"}])) == 0


@pytest.mark.parametrize("batch, samples, count", [(128, 8, 5000), (100, 3, 9000), (7, 1, 4100), (10_000, 3, 20_001)])
def test_parts_of_a_sweep_are_whole_batches_with_the_seeds_of_the_whole(batch, samples, count, tmp_path):
    sampling = Sampling(9, batch_size=batch, num_samples=samples, seed=5)
    parts = list(sampling.shards(count, tmp_path / "x.completions.jsonl"))
    assert [n for part, _, _ in parts for n in range(count)[part]] == list(range(count))
    batches = [
        own.seed + start for part, own, _ in parts for start in range(0, len(range(count)[part]) * samples, batch)
    ]
    assert batches == [5 + start for start in range(0, count * samples, batch)]
    assert len({path for _, _, path in parts}) == len(parts) > 1
    [(_, _, alone)] = sampling.shards(SHARD // 16, tmp_path / "x.completions.jsonl")
    assert alone == tmp_path / "x.completions.jsonl"


@pytest.mark.slow
def test_the_benchmark_of_start_ups_runs(tmp_path):
    write_file(tmp_path / "held-out.parquet", 64)
    write_file(tmp_path / "300.parquet", 300)
    found = measured(ROOT, tmp_path / "300.parquet", limit=120)
    assert found["mib"] < 500 and 0 < found["questions_cpu"] <= found["cpu"]


def test_the_audit_counts_rows_without_what_a_reward_needs():
    questions = QUESTIONS.add_column("reference_length", [None, *[4.0] * 6]).add_column("reference_accuracy", [1.0] * 7)
    rows = training_rows(questions, Wording(), BudgetSampler(modes={"free": 1}), num_rows=14)
    [finding] = audit_columns([LengthEfficiency()], rows, {"free"})
    assert str(finding.advice).startswith("2 of 14 rows have no value")

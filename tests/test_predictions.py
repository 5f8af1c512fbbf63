r"""Saved predictions: other projects' outputs, their columns, their own record."""

import json

import pytest

from rlred.cli import main as rlred
from rlred.evaluation.predictions import grade, load_predictions, measure_predictions
from rlred.evaluation.report import draw
from rlred.evaluation.results import Result, read_result, write_result
from rlred.rewards import Correctness
from tests.paths import real_data


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def tokenskip(ratio, n=40):
    """Rows as TokenSkip's evaluation writes them: right two times in three, a little longer than asked for."""
    return [
        {
            "messages": [{"role": "user", "content": f"What is {i}+{i}?"}],
            "answer": [str(2 * i)],
            "model_output": f"{i}+{i} is...\n\nThe final answer is: ${2 * i + (i % 3 == 0)}$",
            "cot_length": round(ratio * (100 + i)) + 5,
            "accuracy": i % 3 != 0,
        }
        for i in range(n)
    ]


def test_tokenskip_files_are_measured_by_ratio(tmp_path, capsys):
    files = [str(write(tmp_path / f"{ratio}.jsonl", tokenskip(ratio))) for ratio in (0.5, 1.0)]
    command = ["evaluate", "--predictions", *files, "--ratios", "0.5", "1.0", "--output", str(tmp_path / "out")]
    assert rlred(command) == 0
    assert "its own record: 65.0 %" in capsys.readouterr().out
    result = read_result(tmp_path / "out")
    half, full = result.rows("predictions")
    assert (half["ratio"], full["ratio"], half["n"], result.labels["n_questions"]) == (0.5, 1.0, 40, 40)
    assert half["accuracy"] == full["accuracy"] == 26 / 40
    assert full["mean_abs_error"] == 0 and 0 < half["mean_abs_error"] < 0.06
    assert result.blocks["predictions"]["rank_correlation"] == 1


def test_columns_are_named_and_tokens_counted(tmp_path):
    rows = [{"q": "1+1?", "gold_text": "2", "text": "so\\boxed{2}", "asked": budget} for budget in (8, 16)]
    path = write(tmp_path / "p.jsonl", rows)
    columns = {"question": "q", "solution": "gold_text", "completion": "text", "budget": "asked"}
    outcomes, note = load_predictions(path, columns=columns, count=len)
    assert [(o["budget"], o["length"], o["correct"]) for o in outcomes] == [(8, 11, 1.0), (16, 11, 1.0)]
    assert note["recorded_accuracy"] is None and note["accuracy"] == 1


RECORDS = [
    # As TokenSkip's forks publish them: cut in mid-sentence, the last number read; lists of answers in MATH.
    ({"answer": "21", "model_output": "In 3 years: \\[ 18 + 3 = 21", "prediction": "21"}, 1.0),
    ({"answer": "1", "model_output": "so 4 + 2 = 6 pieces at which", "prediction": "6"}, 0.0),
    ({"answer": ["(-4,4)"], "model_output": "\\boxed{(-4, 4)}", "prediction": ["(-4, 4)"]}, 1.0),
    ({"answer": ["2", "3"], "model_output": "...", "prediction": ["3", "2"]}, 1.0),
    ({"answer": ["2", "3"], "model_output": "...", "prediction": ["3"]}, 0.0),
    ({"answer": ["2"], "model_output": "...", "prediction": ["2", "3"]}, 0.0),
    ({"answer": "18", "model_output": "...", "prediction": ""}, 0.0),
    # Without the program's own reading: a box, a marker, the last number, in this order.
    ({"answer": "1,200", "model_output": "That is 1200 dollars a year."}, 1.0),
    ({"answer": "7", "model_output": "3+4 is\n#### 7\nNext question: 9"}, 1.0),
    ({"answer": "x+1", "model_output": "it ends at 1"}, 0.0),
]


@pytest.mark.parametrize("row, expected", RECORDS)
def test_answers_are_read_as_published_files_hold_them(row, expected, tmp_path):
    outcomes, _ = load_predictions(write(tmp_path / "p.jsonl", [{**row, "cot_length": 9}]))
    assert outcomes[0]["correct"] == expected


def test_several_samples_of_a_question_are_taken_apart(tmp_path):
    row = {"question": "1+1?", "gt": "2", "code": ["\\boxed{2}", "\\boxed{3} or so"], "score": [True, False]}
    outcomes, note = load_predictions(write(tmp_path / "p.jsonl", [row]), count=lambda text: len(text.split()))
    assert [(o["question_id"], o["length"], o["correct"]) for o in outcomes] == [(0, 1, 1.0), (0, 3, 0.0)]
    assert note["recorded_accuracy"] == note["accuracy"] == 0.5


def test_real_problems_in_the_files_form(tmp_path):
    rows = [json.loads(line) for line in real_data("gsm8k/test.jsonl").read_text().splitlines()]
    saved = [{"question": r["question"], "answer": r["answer"], "output": r["answer"], "length": 9} for r in rows]
    for row in saved:
        row["output"] = "The answer is " + row["output"].split("#### ")[1] + "."
    outcomes, note = load_predictions(write(tmp_path / "gsm8k.jsonl", saved))
    assert note["n"] >= 1000 and note["accuracy"] == 1
    assert {outcome["mode"] for outcome in outcomes} == {"free"}


BAD = [
    ([{"answer": "2", "model_output": "2"}], [], "no column holds a token count"),
    ([{"cot_length": 5}], ["--columns", "length"], "not of the form NAME=COLUMN"),
    ([{"cot_length": 5}], ["--columns", "tokens=cot_length"], "'tokens' is not one of"),
    ([{"cot_length": 5}], ["--columns", "length=n"], "'n' is not a column"),
    ([{"cot_length": 5}], ["--ratios", "0.5", "1.0"], "give one per file"),
    ([{"cot_length": 5}], ["--ratios", "0.5"], "no prediction has that ratio"),
    ([{"cot_length": None}], [], "none of its 1 lines has a length"),
    ([{"cot_length": 5, "budget": -1}], [], "budget must be a whole number of tokens"),
    ([{"cot_length": 5}], ["--ratios", "1", "--prediction_budgets", "9"], "give one of them"),
    ([{"cot_length": 5, "mode": "short"}], [], "mode must be one of"),
    ([5], [], "every row must be a JSON object"),
]


@pytest.mark.parametrize("rows, flags, message", BAD)
def test_bad_predictions_are_one_clear_line(rows, flags, message, tmp_path, capsys):
    path = write(tmp_path / "p.jsonl", rows)
    assert rlred(["evaluate", "--predictions", str(path), *flags, "--output", str(tmp_path / "out")]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line
    assert not (tmp_path / "out" / "adherence.json").exists()


def test_a_model_without_an_end_of_thinking_is_graded_on_its_whole_text():
    whole = Correctness(end_of_thinking=None)
    assert grade("So it is $\\boxed{12}$.", "12", whole) == 1.0
    assert grade("The answer is 7.", "12", whole) == 0.0 and grade("The answer is 12.", "12", whole) == 1.0
    assert grade("no box here", "12", whole, "12") == 1.0


def test_a_file_that_does_not_say_why_completions_ended_says_nothing_of_truncation(tmp_path):
    path, row = tmp_path / "p.jsonl", {"question": "1+1?", "completion": "2", "answer": "2", "length": 3}
    for more, expected in (({}, None), ({"finish_reason": "length"}, True), ({"finish_reason": "stop"}, False)):
        path.write_text(json.dumps({**row, **more}) + "\n")
        outcomes, report = load_predictions(path)[:2]
        assert (outcomes[0]["truncated"], report["accuracy"]) == (expected, 1.0)


def test_files_that_ask_for_nothing_stand_side_by_side(tmp_path):
    rows = [{"question": f"{n}+1?", "answer": str(n + 1), "finish_reason": "stop"} for n in range(4)]
    before = [{**row, "completion": row["answer"], "length": 100} for row in rows]
    after = [{**row, "completion": row["answer"] if n else "x", "length": 40} for n, row in enumerate(rows)]
    after[3]["finish_reason"] = "length"
    files = [str(write(tmp_path / f"{name}.jsonl", made)) for name, made in (("a", before), ("b", after))]
    assert rlred(["evaluate", "--predictions", *files, "--output", str(tmp_path / "out")]) == 0
    result = read_result(tmp_path / "out")
    assert [block["title"] for block in result.blocks.values()] == files
    assert [[row["mean_length"] for row in block["rows"]] for block in result.blocks.values()] == [[100.0], [40.0]]
    page = (tmp_path / "out" / "adherence.md").read_text()
    assert (
        f"- {files[1]}: -25.0 points" in page
        and "4 questions; of its tokens: 40 %" in page
        and ", 1 cut before their end" in page
    )
    budgets = ["--prediction_budgets", "64", "32", "--output", str(tmp_path / "c")]
    assert rlred(["evaluate", "--predictions", *files, *budgets]) == 0
    assert list(read_result(tmp_path / "c").blocks) == ["predictions"]  # asked at two budgets: one measure of both


def two_files(folder):
    """One model on six questions in 40 tokens each, half correct; another on those and three long ones, all correct."""
    rows = [{"question": f"{i}+1?", "answer": str(i + 1), "completion": f"\\boxed{{{i + i % 2}}}"} for i in range(9)]
    right = [{**row, "completion": f"\\boxed{{{row['answer']}}}"} for row in rows]
    first = write(folder / "m_a.jsonl", [{**row, "length": 40} for row in rows[:6]])
    second = write(folder / "m_b.jsonl", [{**row, "length": 20 if i < 6 else 500} for i, row in enumerate(right)])
    return str(first), str(second)


def test_each_of_several_files_is_named_and_the_first_is_no_base(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    two_files(tmp_path)
    assert rlred(["evaluate", "--predictions", "m_a.jsonl", "m_b.jsonl", "--output", "out"]) == 0
    page = capsys.readouterr().out
    assert "`m_a.jsonl` answers 6 questions without a budget in 40.0 tokens on average. Accuracy is 50.0 " in page
    assert "`m_b.jsonl` answers 9 questions without a budget in 180.0 tokens on average. Accuracy is 100.0 " in page
    # of the six that both have; the long ones are the second's alone
    assert "50.0 points above that of `m_a.jsonl` on the 6 questions that both have (" in page
    assert "with 50 % of its tokens." in page and "6 questions; of its tokens: 50 %" in page
    assert "less that of `m_a.jsonl`" in page and " base" not in page.partition("## Efficiency")[0]
    assert "`m_a.jsonl`: 6 questions are few" in page and "`m_b.jsonl`: 9 questions are few" in page
    result = read_result(tmp_path / "out")
    assert list(result.blocks) == ["file-1", "file-2"] and result.reference == "file-1"
    assert [result.questions(name) for name in result.blocks] == [6, 9]
    assert "6 to 9 questions per point" in draw(result).get_suptitle()
    assert rlred(["table", "out"]) == 0
    table = capsys.readouterr().out
    assert "m_a.jsonl" in table and "m_b.jsonl" in table and "baseline" not in table


def test_files_that_an_older_version_measured_are_still_read(tmp_path):
    two_files(tmp_path)
    new, _ = measure_predictions([tmp_path / "m_a.jsonl", tmp_path / "m_b.jsonl"])
    old = new.plain()
    old["details"].pop("held_against")
    old["blocks"] = {"baseline" if name == "file-1" else name: block for name, block in old["blocks"].items()}
    for block in old["blocks"].values():
        block.pop("n_questions")
    (tmp_path / "adherence.json").write_text(json.dumps(old))
    found = read_result(tmp_path)
    assert found == measure_predictions([tmp_path / "m_a.jsonl", tmp_path / "m_b.jsonl"])[0]
    one = Result("adherence", new.labels, {"baseline": new.blocks["file-1"]})  # a base that is one stays so
    write_result(one, tmp_path / "one")
    assert read_result(tmp_path / "one").reference == "baseline" and "baseline" in read_result(tmp_path / "one").blocks

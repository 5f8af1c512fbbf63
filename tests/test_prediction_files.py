"""Files of other programs: each layout with its variants, refusals of bad values, and the cases that lie outside."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest

from rlred.cli import main as rlred
from rlred.evaluation.predictions import load_predictions
from rlred.evaluation.results import read_result
from tests.paths import shared_case

RIGHT, WRONG = "4 times 5 is 20.\nSo it is $\\boxed{20}$.", "4 times 5 is 21.\nSo it is $\\boxed{21}$."


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def words(text):
    return len(text.split())


def chat(text, *, tokens=9, reasoning=None, finish="stop", key="reasoning_content"):
    message = {"role": "assistant", "content": text} | ({key: reasoning} if reasoning else {})
    choices = [{"index": 0, "message": message, "finish_reason": finish}]
    return {"object": "chat.completion", "choices": choices, "usage": {"completion_tokens": tokens, "total_tokens": 99}}


def lm_eval(text, filter_name="strict-match", **more):
    row = {"doc_id": 0, "doc": {"question": "4*5?"}, "target": "Four fives.\n#### 20", "resps": [[text]]}
    row |= {"arguments": {"gen_args_0": {"arg_0": "Q: 4*5?\nA:"}}, "filter": filter_name, "filtered_resps": ["?"]}
    return {**row, "exact_match": 1.0, **more}


def lighteval(texts, **more):
    response = {"text": texts, "output_tokens": [[7] * 9 for _ in texts], "input": "4*5?", "reasonings": []}
    doc = {"query": "4*5?", "choices": ["19", "20", "twenty"], "gold_index": 1}
    return {"doc": {**doc, **more.pop("doc", {})}, "model_response": {**response, **more}, "metric": {"em": 1.0}}


def batch(number, body, error=None, status=200):
    response = None if body is None else {"status_code": status, "request_id": "r", "body": body}
    return {"id": f"b-{number}", "custom_id": f"q-{number}", "response": response, "error": error}


RESPONSES_API = {
    "output": [
        {"type": "reasoning", "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": RIGHT}]},
    ],
    "usage": {"output_tokens": 9},
}
GOLD = {"question": "4*5?", "answer": "20"}
PARTS = [{"type": "thinking", "thinking": "\\boxed{7}"}, {"type": "text", "text": RIGHT}]
TOOL = [{"role": "assistant", "content": RIGHT}, {"role": "tool", "content": "20"}]
# name, rows, [(length, correct) of each completion]; RIGHT and WRONG have nine words, and words are counted
LAYOUTS = [
    ("lm-eval", [lm_eval(RIGHT)], [(9, 1)]),
    ("lm-eval, arguments in lists", [lm_eval(RIGHT, arguments=[["4*5?", {}]], doc={"x": 1})], [(9, 1)]),
    ("lm-eval, repeats", [lm_eval(None, resps=[[RIGHT, WRONG]])], [(9, 1), (9, 0)]),
    ("lm-eval, two filters", [lm_eval(RIGHT), lm_eval(RIGHT, "flexible-extract")], [(9, 1)]),
    ("lm-eval, twice under one filter", [lm_eval(RIGHT), lm_eval(RIGHT)], [(9, 1), (9, 1)]),
    ("lighteval", [lighteval([RIGHT])], [(9, 1)]),
    ("lighteval, samples", [lighteval([RIGHT, WRONG])], [(9, 1), (9, 0)]),
    ("lighteval, several golds", [lighteval([WRONG], doc={"choices": ["21", "20"], "gold_index": [0, 1]})], [(9, 1)]),
    ("lighteval, of an API", [lighteval([RIGHT], output_tokens=[])], [(9, 1)]),
    (
        "lighteval, before",
        [{"full_prompt": "4*5?", "example": "4*5?", "gold": ["20"], "predictions": [RIGHT], "cont_tokens": [[1] * 7]}],
        [(7, 1)],
    ),
    ("verl", [{"input": "user\n4*5?", "output": RIGHT, "gts": "20", "score": -1.0, "step": 1, "pred": "3"}], [(9, 1)]),
    ("verl, several golds", [{"input": "4*5?", "output": WRONG, "gts": ["20", "21"], "score": 1, "step": 1}], [(9, 1)]),
    ("batch", [{**batch(0, chat(RIGHT, tokens=33)), "answer": "20"}], [(33, 1)]),
    ("batch, no gold", [batch(0, chat(RIGHT, tokens=33))], [(33, None)]),
    ("batch, completions", [batch(0, {"choices": [{"text": RIGHT}], "usage": {"completion_tokens": 8}})], [(8, None)]),
    ("batch, responses", [{**batch(0, RESPONSES_API), "answer": "20"}], [(9, 1)]),
    (
        "batch, errors",
        [batch(0, chat(RIGHT)), batch(1, None, {"code": 1}), batch(2, {"error": {"code": 400}}, status=400)],
        [(9, None)],
    ),
    ("chat", [{**GOLD, **chat(RIGHT, reasoning="The answer is 7?")}], [(9, 1)]),
    ("chat, below response", [{**GOLD, "response": chat(RIGHT, reasoning="\\boxed{7}")}], [(9, 1)]),
    ("chat, newer name", [{**GOLD, "response": chat(RIGHT, reasoning="\\boxed{7}", key="reasoning")}], [(9, 1)]),
    ("chat, only reasoned", [{**GOLD, "response": chat("", reasoning="\\boxed{20}")}], [(9, 0)]),
    ("chat, null content", [{**GOLD, "response": chat(None, reasoning="It is 20.")}], [(9, 0)]),
    ("chat, two choices", [{**GOLD, "choices": chat(RIGHT)["choices"] * 2, "usage": {"completion_tokens": 99}}],
     [(9, 1)] * 2),
    ("vLLM's own", [{"prompt": "4*5?", "prompt_token_ids": [1], "outputs": [{"text": RIGHT, "token_ids": [5, 6]}]}],
     [(2, None)]),
    ("TokenSkip, several needed", [{**GOLD, "answer": ["2", "3"], "model_output": ".", "prediction": ["3", "2"],
                                    "cot_length": 5}], [(5, 1)]),
    ("TokenSkip, one missing", [{**GOLD, "answer": ["2", "3"], "model_output": ".", "prediction": ["3"],
                                 "cot_length": 5}], [(5, 0)]),
    ("Qwen2.5-Math", [{"question": "4*5?", "gt": "20", "code": [RIGHT, WRONG], "pred": ["20", "21"],
                       "score": [True, False]}], [(9, 1), (9, 0)]),
    ("NeMo-Skills", [{"problem": "4*5?", "expected_answer": "20", "generation": RIGHT, "predicted_answer": None,
                      "num_generated_tokens": 6}], [(6, 1)]),
    ("LLaMA-Factory", [{"prompt": "user\n4*5?", "predict": RIGHT, "label": "Well.\n#### 20"}], [(9, 1)]),
    ("ms-swift", [{"response": RIGHT, "labels": "20", "messages": [{"role": "user", "content": "4*5?"}]}], [(9, 1)]),
    ("ms-swift 2", [{"query": "4*5?", "response": RIGHT, "label": "20", "history": []}], [(9, 1)]),
    ("OpenCompass", [{"origin_prompt": [{"role": "HUMAN", "prompt": "4*5?"}], "prediction": RIGHT, "gold": "20"}],
     [(9, 1)]),
    ("messages", [{**GOLD, "completion": [{"role": "assistant", "content": RIGHT}]}], [(9, 1)]),
    ("messages in parts", [{**GOLD, "completion": [{"role": "assistant", "content": PARTS}]}], [(9, 1)]),
    ("messages that end in a tool's", [{**GOLD, "completion": TOOL, "length": 4}], [(4, 0)]),
    ("alternatives", [{**GOLD, "answer": ["19.5", "20"], "completion": RIGHT}], [(9, 1)]),
    ("reasoning beside", [{**GOLD, "reasoning_content": "It is 7", "response": "Clearly 20."}], [(4, 1)]),
    ("total tokens", [{**GOLD, "text": RIGHT, "total_tokens": 30, "prompt_tokens": 18}], [(12, 1)]),
    ("reasoning tokens alone", [{**GOLD, "text": RIGHT, "reasoning_tokens": 30}], [(30, 1)]),
    ("token ids", [{**GOLD, "output": RIGHT, "completion_ids": [1, 2, 3]}], [(3, 1)]),
    ("token ids as text", [{**GOLD, "output": RIGHT, "completion_ids": "[1, 2, 3]"}], [(3, 1)]),
    ("length as text", [{**GOLD, "output": RIGHT, "length": "17"}], [(17, 1)]),
    ("an answer as the prediction", [{**GOLD, "prediction": "20", "length": 1}], [(1, 1)]),
    ("a number as the completion", [{**GOLD, "completion": 20, "length": 1}], [(1, 1)]),
]  # fmt: skip


@pytest.mark.parametrize("name, rows, expected", LAYOUTS, ids=[layout[0] for layout in LAYOUTS])
def test_layouts_of_other_programs(name, rows, expected, tmp_path):
    outcomes, note = load_predictions(write(tmp_path / "p.jsonl", rows), count=words)
    assert [(outcome["length"], outcome["correct"]) for outcome in outcomes] == expected
    assert note["n"] + note["skipped"] + note["repeated"] >= len(rows)


def test_the_same_layouts_as_parquet_csv_and_gz(tmp_path):
    rows = [lighteval([RIGHT]), lighteval([WRONG])]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "details.parquet")
    assert load_predictions(tmp_path / "details.parquet", count=words)[1]["accuracy"] == 0.5
    (tmp_path / "p.csv").write_text('question,output,answer,length,budget\n4*5?,"It is 20, yes.",20,5,\n1+1?,3,2,1,8\n')
    outcomes, note = load_predictions(tmp_path / "p.csv")
    assert [(one["length"], one["budget"], one["mode"], one["correct"]) for one in outcomes] == [
        (5, None, "free", 1),
        (1, 8, "exact", 0),
    ]
    with gzip.open(tmp_path / "p.jsonl.gz", "wt", encoding="utf-8-sig") as file:
        file.write(json.dumps({**GOLD, "response": chat(RIGHT)}) + "\n")
    assert load_predictions(tmp_path / "p.jsonl.gz")[1]["accuracy"] == 1


def test_notes_say_what_was_read_and_what_was_not(tmp_path):
    rows = [batch(0, chat(RIGHT, finish="length")), batch(1, None, {"code": "busy"}), batch(2, {"choices": []})]
    outcomes, note = load_predictions(write(tmp_path / "p.jsonl", rows))
    assert outcomes[0]["truncated"] and outcomes[0]["question"] == "q-0"
    assert note["skipped_because"] == {"that report an error": 1, "without a length": 1}
    _, note = load_predictions(write(tmp_path / "l.jsonl", [lm_eval(RIGHT), lm_eval(RIGHT, "other")]), count=words)
    assert (note["layout"], note["repeated"], note["columns"]["solution"]) == ("lm-eval samples", 1, "target")


RECORDS = [
    ([True, False], 0.5),
    (["True", "False", "true"], 2 / 3),
    (["correct", "incorrect"], 0.5),
    ([1, -1, -1.5, 0.4], 0.5),  # with a penalty for length, as DAPO's
    ([1, 0, 0, 0.5], 0.375),
    ([3, 5], None),
    (["?", None], None),
]


@pytest.mark.parametrize("values, share", RECORDS)
def test_a_files_own_record_is_a_share(values, share, tmp_path):
    rows = [{**GOLD, "output": RIGHT, "length": 9, "score": value} for value in values]
    assert load_predictions(write(tmp_path / "p.jsonl", rows))[1]["recorded_accuracy"] == share


def tokenskip(ratio, names, length=60):
    prompt = "<|user|>{}<|eot|>" + (f"{ratio}<|eot|>" if ratio < 1 else "")
    row = {"model_output": "\\boxed{1}", "answer": "1", "cot_length": round(length * ratio)}
    return [
        row
        | {"prompt": prompt.format(name)}
        | {"messages": [{"role": "system", "content": "Reason."}, {"role": "user", "content": name}]}
        for name in names
    ]


def evaluate(tmp_path, *flags):
    return rlred(["evaluate", "--predictions", *map(str, flags), "--output", str(tmp_path / "out")])


def test_a_join_that_loses_rows_says_how_many_and_why(tmp_path, capsys):
    half = write(tmp_path / "half.jsonl", tokenskip(0.5, "abcd"))
    full = write(tmp_path / "full.jsonl", tokenskip(1.0, "abc"))
    assert evaluate(tmp_path, half, full, "--ratios", 0.5, 1) == 0
    result = read_result(tmp_path / "out")
    by_ratio = [(row["ratio"], row["n"], row["budget"]) for row in result.rows("predictions")]
    assert by_ratio == [(0.5, 3, 30), (1, 3, 60)]
    assert (
        result.details["files"][0]["lost"] == {"asked at a ratio, but not at ratio 1": 1}
        and not result.details["files"][1]["lost"]
    )
    assert "1 left out (1 asked at a ratio, but not at ratio 1)" in capsys.readouterr().out
    # The same rows by ratio, in the form that `--adapter` has.
    rows = read_result(tmp_path / "out", "ratios").rows("predictions")
    assert [(row["ratio"], row["achieved"], row["n"]) for row in rows] == [(1.0, 1.0, 3), (0.5, 0.5, 3)]
    assert (tmp_path / "out" / "ratios.png").exists()


def test_an_empty_join_is_refused(tmp_path, capsys):
    files = []
    for ratio in (0.5, 1.0):
        rows = [{key: row[key] for key in row if key != "messages"} for row in tokenskip(ratio, "abc")]
        rows = [{**row, "item": name} for row, name in zip(rows, "abc", strict=True)]
        files.append(write(tmp_path / f"{ratio}.jsonl", rows))
    assert evaluate(tmp_path, *files, "--ratios", 0.5, 1) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "none of the questions" in line and "--columns question=" in line
    assert evaluate(tmp_path, *files, "--ratios", 0.5, 1, "--columns", "question=item") == 0


ROW = {**GOLD, "output": RIGHT, "length": 9}
REFUSED = [
    ({"budget": 12.5}, ["line 3", "budget must be a whole number", "12.5"]),
    ({"budget": "many"}, ["line 3", "budget must be a whole number", "'many'"]),
    ({"budget": 0}, ["line 3", "budget must be a whole number", "got 0"]),
    ({"budget": True}, ["line 3", "budget", "True"]),
    ({"budget": [8]}, ["line 3", "budget", "[8]"]),
    ({"length": -4}, ["line 3", "length must be a whole number", "-4"]),
    ({"length": "long"}, ["line 3", "length must be", "'long'"]),
    ({"ratio": "half"}, ["line 3", "ratio must be a number", "'half'"]),
    ({"ratio": -1}, ["line 3", "ratio must be above 0", "-1"]),
    ({"budget": 8, "mode": "about"}, ["line 3", "mode must be one of", "'about'"]),
    ({"budget": 8, "mode": "free"}, ["line 3", "budget must be None", "8"]),
]


@pytest.mark.parametrize("bad, parts", REFUSED)
def test_a_bad_value_is_one_line_with_its_place(bad, parts, tmp_path, capsys):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(ROW) + "\n\n" + json.dumps({**ROW, **bad}) + "\n")
    assert evaluate(tmp_path, path) == 2
    error = capsys.readouterr().err
    [line] = [line for line in error.splitlines() if line.startswith("error: ")]
    assert str(path) in line and all(part in line for part in parts) and "Traceback" not in error


@pytest.mark.parametrize(
    "column",
    ["token_budget", "budget_tokens", "reasoning_budget", "desired_length", "requested_tokens", "target_tokens"],
)
def test_budgets_of_every_name(column, tmp_path):
    row = {"question": "4*5?", "completion": RIGHT, "answer": "20", "length": 9, column: 64}
    outcomes, _ = load_predictions(write(tmp_path / "p.jsonl", [row, {**row, column: None, "max_tokens": 64}]))
    assert [outcome["budget"] for outcome in outcomes] == [64, None]  # a limit of the sampler asks for nothing


def test_a_conversation_is_read_by_its_last_turn(tmp_path):
    turns = [{"role": "user", "content": "4*5?"}, {"role": "assistant", "content": RIGHT}]
    rows = [{"messages": turns, "answer": "20", "length": 9}, {"messages": turns[:1], "answer": "20", "length": 0}]
    outcomes, _ = load_predictions(write(tmp_path / "p.jsonl", rows))
    assert [(one["question"], one["correct"]) for one in outcomes] == [("4*5?", 1.0), ("4*5?", 0.0)]


def test_no_completion_among_others_is_incorrect(tmp_path):
    row = {"question": "4*5?", "completion": RIGHT, "answer": "20", "length": 9}
    outcomes, note = load_predictions(write(tmp_path / "p.jsonl", [row, {**row, "completion": None, "length": 0}]))
    assert (note["n"], note["accuracy"]) == (2, 0.5)
    bare = [{name: value for name, value in row.items() if name != "completion"} | {"correct": True}]
    assert load_predictions(write(tmp_path / "q.jsonl", bare))[1]["accuracy"] is None


def test_loglikelihoods_are_no_completions(tmp_path):
    rows = [lm_eval(None, resps=[[[-1.2, False]], [[-3.0, True]]])]
    with pytest.raises(ValueError, match=r"has a length or a completion to count .* whose completion cannot be read"):
        load_predictions(write(tmp_path / "p.jsonl", rows), count=words)


LISTED = [
    (str([RIGHT, WRONG]), [1, 0]),  # as pandas' to_csv writes a list
    (str([RIGHT, "it's 'x'"]), [1, 0]),
    (json.dumps([RIGHT, WRONG]), [1, 0]),
    ("['\\boxed{20}', '\\frac{1}{2}']", [1, 0]),  # whose backslashes nobody doubled
    ("[20]", [1]),  # an answer, as the next ones
    ("[1, 2, 3]", [0]),
    ("The primes are ['3', '5'], so \\boxed{20}", [1]),
    ("I take both ['19', '20']", [1]),
    ("['\\boxed{20}' '\\boxed{21}']", [0]),  # two texts side by side are no list
]


@pytest.mark.parametrize("text, correct", LISTED)
def test_a_list_of_completions_that_is_kept_as_text(text, correct, tmp_path):
    own = {"correct": str([True, False])} if len(correct) > 1 else {}
    rows = [{**GOLD, "completion": text, **own}]
    outcomes, note = load_predictions(write(tmp_path / "p.jsonl", rows), count=words)
    assert [one["correct"] for one in outcomes] == correct
    assert note["recorded_accuracy"] == (0.5 if own else None)


@pytest.mark.parametrize(
    "gold, accepts, rejects",
    [
        ("['2', 'two']", ["2", "\\text{two}"], ["3"]),
        ('["2", 3]', ["2", "3"], ["2, 3"]),
        ("[0, 1]", ["[0, 1]"], ["0", "1", "[0,2]"]),
        ("(1, 2)", ["(1, 2)"], ["1", "(2,1)"]),
        ("['7']", ["7"], ["8"]),
    ],
)
def test_gold_answers_in_a_list_that_is_kept_as_text(gold, accepts, rejects, tmp_path):
    row = {"question": "?", "answer": gold, "length": 3}
    rows = [{**row, "completion": f"\\boxed{{{one}}}"} for one in accepts + rejects]
    outcomes, _ = load_predictions(write(tmp_path / "p.jsonl", rows))
    assert [one["correct"] for one in outcomes] == [1.0] * len(accepts) + [0.0] * len(rejects)


def test_tokens_of_several_completions_together_belong_to_none_of_them(tmp_path):
    usage = {"completion_tokens": 99, "completion_tokens_details": {"reasoning_tokens": 80}}
    one, four = ({**GOLD, "choices": chat(RIGHT)["choices"] * n, "usage": usage} for n in (1, 4))
    outcomes, _ = load_predictions(write(tmp_path / "p.jsonl", [one, four]), count=words)
    assert [(o["length"], o["thinking_length"]) for o in outcomes] == [(99, 80)] + [(9, None)] * 4


def test_a_completion_that_cannot_be_read_is_counted_and_not_incorrect(tmp_path):
    unreadable, nothing = [{"foo": 1}, True, {}, {"choices": None}, [RIGHT, {"foo": 1}]], [None, "", []]
    rows = [{**GOLD, "completion": one, "length": 3} for one in (RIGHT, *nothing, *unreadable)]
    _, note = load_predictions(write(tmp_path / "p.jsonl", rows), count=words)
    assert (note["n"], note["accuracy"]) == (5, 2 / 5)  # RIGHT alone and beside an unreadable one; nothing, three times
    assert note["skipped_because"] == {"whose completion cannot be read": 5}
    graded = [rows[0], {**rows[-1], "completion": {"foo": 1}, "prediction": "20"}]  # its program has read an answer
    assert load_predictions(write(tmp_path / "q.jsonl", graded))[1]["accuracy"] == 1


def test_budgets_as_text_and_with_gaps(tmp_path):
    rows = [{**ROW, "budget": value} for value in ("512", 512.0, "512.0", None, float("nan"), "")]
    outcomes, _ = load_predictions(write(tmp_path / "p.jsonl", rows))
    assert [outcome["budget"] for outcome in outcomes] == [512, 512, 512, None, None, None]


@pytest.mark.parametrize(
    "completion", [None, {}, [], {"choices": None}, [[1]], [None], {"message": {}}, {"content": [7, {"text": 5}]}, True]
)
def test_no_shape_of_a_completion_raises(completion, tmp_path):
    rows = [ROW, {**GOLD, "output": completion}, {**GOLD, "output": completion, "length": 3}]
    assert load_predictions(write(tmp_path / "p.jsonl", rows))[1]["n"] >= 1


def test_shared_cases(tmp_path, capsys):
    file, bad = shared_case("predictions/expected.json"), []
    cases = json.loads(file.read_text(encoding="utf-8"))
    for case in cases:
        output = tmp_path / case["files"][0]
        flags = [*(str(file.parent / name) for name in case["files"]), *case["flags"]]
        assert rlred(["evaluate", "--predictions", *flags, "--output", str(output)]) == 0
        result = read_result(output)
        rows, note = result.rows("predictions"), result.details["files"][0]
        n = sum(row["n"] for row in rows)
        found = {"n": n, "mean_tokens": sum(row["n"] * row["mean_length"] for row in rows) / n}
        graded = rows[0]["accuracy"] is not None
        found["accuracy"] = sum(row["n"] * row["accuracy"] for row in rows) / n if graded else None
        found |= {"recorded": note["recorded_accuracy"], "skipped": note["skipped"]}
        for name in ("ratio", "budget"):
            found[f"by_{name}"] = {str(row.get(name)): row["n"] for row in rows}
        if any(found[name] != pytest.approx(case[name]) for name in found if name in case):
            bad.append((case["files"], found))
    assert len(bad) <= 0.03 * len(cases), bad

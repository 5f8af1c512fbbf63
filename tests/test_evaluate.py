"""`rlred evaluate`: several models on the same questions, and one outside what it was trained on."""

import json
import re

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from rlred.cli import main as rlred
from rlred.cli.evaluate import Evaluate
from rlred.data.adapters import on_another_base
from rlred.data.models import Loading, fingerprint
from rlred.evaluation.evaluate import base_of, range_of_record, trained_range, wording_of
from rlred.evaluation.measures import measure
from rlred.evaluation.report import adherence
from rlred.evaluation.results import read_result
from rlred.evaluation.settings import Evaluation
from rlred.evaluation.summary import summary
from tests.paths import ROOT

BASE = ROOT / "data" / "tiny_reasoner"


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """Two adapters of the embedded model: one that changes nothing, one that changes much; the second has a run."""
    folder = tmp_path_factory.mktemp("adapters")
    for name, std in (("still", 0.0), ("noisy", 0.5)):
        torch.manual_seed(0)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(BASE), LoraConfig(target_modules=["q_proj"]))
        for key, weight in model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(weight, std=std)
        model.save_pretrained(folder / name)
    wording = {"exact": "{question} Think for exactly {budget} tokens.", "free": "{question}"}
    arguments = {"wording": wording, "budget_low": 16, "budget_high": 40, "budget_distribution": "uniform"}
    (folder / "noisy" / "run.json").write_text(json.dumps({"arguments": arguments}))
    return folder


def evaluate(output, *words):
    command = "evaluate --budgets 16 32 --num_questions 4 --output".split()
    status = rlred([*command, str(output), *map(str, words)])
    return read_result(output) if status == 0 else None


def test_several_adapters_face_the_same_questions_and_are_paired(adapters, tmp_path):
    result = evaluate(tmp_path / "out", "--adapter", adapters / "still", adapters / "noisy")
    assert result.labels["model"] == str(BASE)
    assert result.rows("trained") == result.rows("baseline")  # an adapter of zeros is its base
    noisy = result.blocks["model-2"]
    assert noisy["title"] == str(adapters / "noisy") and noisy["rows"] != result.rows("baseline")
    assert list(noisy["by_question"]) == list(result.blocks["baseline"]["by_question"])
    table = (tmp_path / "out" / "adherence.md").read_text()
    assert "- after RL: +0.0 points (+0.0 to +0.0), 4 questions" in table
    assert f"- {adapters / 'noisy'}: " in table.partition("paired by question")[2].partition("\n## ")[0]


def test_several_models_are_compared(random_model, tmp_path):
    result = evaluate(tmp_path / "out", "--model", "tiny_reasoner", random_model)
    assert result.labels["model"] == "tiny_reasoner" and "trained" not in result.blocks
    assert result.blocks["model-1"]["full_length"]["accuracy"] == 0
    said = (tmp_path / "out" / "adherence.md").read_text()
    assert "`tiny_reasoner` answers" in said and "less that of `tiny_reasoner`" in said
    assert "The base" not in said and "untrained base" not in said  # none of the two is the other's


def test_an_adapter_is_asked_outside_what_it_was_trained_on(adapters, tmp_path):
    output = tmp_path / "out"
    flags = ["--out_of_range", "--paraphrase", "paraphrase", "--more_questions", "long_sums"]
    result = evaluate(output, "--adapter", adapters / "noisy", *flags)
    assert [row["budget"] for row in result.rows("out_of_range")] == [8, 80]  # half of 16, twice 40
    assert [row["budget"] for row in result.rows("paraphrase")] == [16, 32]
    assert result.blocks["questions-0"]["title"] == "other questions: long_sums"
    text = (output / "measures" / "questions-0.completions.jsonl").read_text()
    assert text != (output / "measures" / "trained.completions.jsonl").read_text()
    paired = (output / "adherence.md").read_text().partition("paired by question")[2].partition("\n## ")[0]
    assert "in other words" in paired and "long_sums" not in paired and "outside" not in paired


def test_a_report_says_what_a_per_prompt_cap_has_done_to_it(tmp_path):
    result = evaluate(tmp_path / "out", "--modes", "max", "--per_prompt_cap", "1.5")
    shares = [row["cut"] for row in result.rows("baseline")]
    assert result.labels["per_prompt_cap"] == 1.5 and max(shares) > 0
    table = (tmp_path / "out" / "adherence.md").read_text()
    assert "cut at 1.5 times it" in table and f"{100 * max(shares):.1f}" in table


def test_an_adapter_says_what_it_belongs_to(adapters, tmp_path):
    still, noisy = str(adapters / "still"), str(adapters / "noisy")
    assert base_of(still, []) == str(BASE) and base_of(still, ["me/base"]) == "me/base"
    assert wording_of(noisy).exact.startswith("{question} Think") and wording_of(still).exact.startswith(
        "{question} Let"
    )
    assert trained_range(noisy, [1]) == (16, 40) and trained_range(still, [5, 7]) == (5, 7)


RANGES = [
    ({}, {}, (16, 40)),
    ({"budget_choices": [8, 99]}, {}, (16, 40)),  # of another distribution
    ({"budget_distribution": "choices", "budget_choices": [24, 8]}, {}, (8, 24)),
    ({"budget_distribution": "log_uniform"}, {"trained_budgets": [20, 33]}, (20, 33)),  # what a start has left
    ({"budget_distribution": "choices", "budget_choices": [24, 8]}, {"trained_budgets": [24, 24]}, (24, 24)),
]


COMMANDS = (["evaluate", "--num_questions", "2"], ["generate", "1+2+3=?"])


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_more_tokens_than_a_model_has_positions_are_one_line(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert rlred([*words, "--model", "tiny_reasoner", "--budgets", "1000000000"]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.fullmatch(r"error: --budgets 1000000000: tiny_reasoner has \d+ positions; ask for fewer tokens", said)


@pytest.mark.parametrize("changes, found, wanted", RANGES)
def test_the_trained_range_is_that_of_the_budgets_that_were_drawn(changes, found, wanted, tmp_path):
    arguments = {"budget_low": 16, "budget_high": 40, "budget_distribution": "uniform", "budget_choices": []}
    record = {"arguments": {**arguments, **changes}, **found}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert range_of_record(record) == trained_range(str(tmp_path), [1]) == wanted
    assert range_of_record({"arguments": {"wording": "l1"}}) is None


BAD = [
    ("--model a b --adapter c", "with --adapter, name the one model"),
    ("--adapter c c", "--adapter: the same one is named twice"),
    ("--max_completion_length 0", "--max_completion_length must be 1 or more, got 0"),
    ("--per_prompt_cap 0.5 --modes max", "--per_prompt_cap must be 1 or more times the budget, got 0.5"),
    ("--per_prompt_cap 2", "--per_prompt_cap=2: only rows that ask for a maximum are cut, and the modes are ['exact']"),
    ("--num_samples 0", "--num_samples must be 1 or more"),
    ("--batch_size 0", "--batch_size must be 1 or more"),
    ("--wording {", "--wording '{' is not JSON"),
    ("--paraphrase l3", "no preset named 'l3'"),
    ("--more_questions nowhere.csv", "nowhere.csv: no such file"),
    ("--vllm", "vLLM is not installed"),
    ("--split validation", "splits 'train' and 'test'"),
]


@pytest.mark.parametrize("flags, message", BAD)
def test_bad_flags_are_one_clear_line(flags, message, tmp_path, capsys):
    if "vllm" in flags:
        try:
            import vllm  # noqa: F401
        except ImportError:
            pass
        else:
            pytest.skip("vLLM is installed here")
    assert evaluate(tmp_path / "out", *flags.split(" ")) is None
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line
    assert not (tmp_path / "out" / "adherence.json").exists()


@pytest.mark.parametrize("files", ["--predictions p.jsonl", "--ratios 0.5 --adapter x"])
@pytest.mark.parametrize("flag", ["--num_samples 4", "--baselines brevity", "--vllm", "--budgets 16", "--wording l1"])
def test_what_is_asked_of_budgets_is_refused_beside_ratios_and_files(files, flag, capsys):
    assert rlred(["evaluate", *files.split(), *flag.split()]) == 2
    assert f"{flag.split()[0]}: changes nothing with {files.split()[0]}" in capsys.readouterr().err


UNREAD = ("--num_questions 3", "--questions q.csv", "--temperature 0", "--model m", "--max_completion_length 9")
UNREAD += ("--adapter a", "--seed 4", "--split train", "--dtype bfloat16", "--system_prompt x")
OF_FILES = [(f"p.jsonl {flag}", f"{flag.split()[0]}: changes nothing with --predictions") for flag in UNREAD] + [
    ("p.jsonl --modes exact max", "--modes exact max: files were asked in one mode"),
    ("p.jsonl --modes effort", "--modes effort: saved predictions have budgets or ratios"),
    ("p.jsonl --modes max", "--modes max: no file has a budget"),
    ("p.jsonl --prediction_budgets 0", "--prediction_budgets must be 1 or more, got 0"),
    ("p.jsonl p.jsonl --prediction_budgets 8 -5", "--prediction_budgets must be 1 or more, got -5"),
    ("p.jsonl --ratios 0", "--ratios must be above 0, shares of the length at ratio 1, got 0"),
]


@pytest.mark.parametrize("words, message", OF_FILES)
def test_what_files_of_predictions_do_not_read_is_refused_by_name(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.jsonl").write_text('{"question": "1+1?", "length": 9}')
    assert rlred(["evaluate", "--output", "out", "--predictions", *words.split()]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line and "p.jsonl" not in line


def test_what_files_of_predictions_read_is_taken(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"question": "1+1?", "completion": "x</t>2", "answer": "2", "length": 9}')
    words = "--modes max --prediction_budgets 8 --end_of_thinking </t> --require_end_of_thinking".split()
    files = ["--predictions", str(tmp_path / "p.jsonl"), "--output", str(tmp_path / "out")]
    assert rlred(["evaluate", *files, *words]) == 0
    [row] = read_result(tmp_path / "out").rows("predictions")
    assert (row["mode"], row["budget"], row["accuracy"]) == ("max", 8, 1.0)


def trained_on(folder, base, **record):
    """What lies in the folder of an adapter of `base`, its weights left out."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    if record:
        (folder / "run.json").write_text(json.dumps({"arguments": {}, **record}))
    return str(folder)


def test_an_adapter_on_another_base_is_told(tmp_path):
    model, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    same, copy = fingerprint(model), str(tmp_path / "copy")
    told = on_another_base(str(ROOT / "data" / "l1_maxlen"), "tiny_sorter", None)
    assert "was trained on `data/tiny_reasoner` and is measured on `tiny_sorter`" in told
    hub = trained_on(tmp_path / "hub", "org/model")
    assert on_another_base(hub, "org/other", model) and on_another_base(hub, "tiny_sorter", model)
    own = trained_on(tmp_path / "own", "org/model", weights=same)
    assert on_another_base(own, copy, other) and on_another_base(own, "org/other", other)
    result = adherence({"model": "m", "n_questions": 60}, {}, details={"warnings": [told]})
    assert result.details == {"warnings": [told]}
    rows = [{"question_id": q, "mode": "free", "budget": None, "length": 9, "correct": 1.0} for q in range(60)]
    block = measure([{**row, "truncated": False, "completion": ""} for row in rows])
    page = summary(adherence(result.labels, {"baseline": block}, details=result.details))
    assert page[1] == f"Worth a warning: {told}."


def test_the_same_base_by_another_name_is_no_other(tmp_path):
    model, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    reasoner, copy = str(ROOT / "data" / "l1_maxlen"), str(tmp_path / "copy")
    for name in ("tiny_reasoner", "data/tiny_reasoner", str(BASE), copy):
        assert on_another_base(reasoner, name, None) is None  # a folder without a fingerprint may hold anything
    hub = trained_on(tmp_path / "hub", "org/Model")
    for name in ("org/Model", "org/model", "/cache/models--org--Model/snapshots/1a2b", copy):
        assert on_another_base(hub, name, other) is None
    own = trained_on(tmp_path / "own", "org/model", weights=fingerprint(model))
    assert on_another_base(own, copy, model) is None and on_another_base(own, "me/mirror", model) is None
    assert on_another_base(own, copy, other, Loading("float16")) is None  # rounded, and so not comparable
    assert on_another_base(None, "tiny_sorter", other) is None


def test_a_mistyped_model_leaves_the_folder_free(tmp_path, capsys):
    flags = f"--budgets 16 --num_questions 2 --output {tmp_path / 'out'}".split()
    assert rlred(["evaluate", "--model", "tiny_reasonre", *flags]) == 2
    assert rlred(["evaluate", "--model", "tiny_reasoner", *flags]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, expected, warns",
    [
        ({"questions": "sorting"}, "sorting", False),
        ({"questions": "my.jsonl", "eval_questions": "sorting"}, "sorting", False),
        ({"questions": "sums"}, "sums", False),
        ({}, "sums", False),
        ({"questions": "sums", "eval_questions": "org/data"}, "sums", True),
    ],
)
def test_an_adapter_is_asked_its_own_embedded_questions(tmp_path, caplog, arguments, expected, warns):
    (tmp_path / "run.json").write_text(json.dumps({"arguments": arguments}))
    assert Evaluation(adapter=[str(tmp_path)], budgets=[8]).questions == expected
    assert ("has org/data: name it to ask the same" in caplog.text) == warns
    assert Evaluation(adapter=[str(tmp_path)], budgets=[8], questions="sums").questions == "sums"


def test_an_adapter_without_a_record_is_asked_what_its_base_was_made_for(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "data/tiny_sorter"}))
    assert Evaluation(adapter=[str(tmp_path)], budgets=[8]).questions == "sorting"
    assert Evaluation(adapter=["somebody/adapter"], budgets=[8]).questions == "sums"


def test_what_files_do_not_need_is_named_by_its_own_flag(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "data/tiny_sorter"}))
    for flag, value in (("model", ["tiny_sorter"]), ("adapter", [str(tmp_path)]), ("questions", "sorting")):
        with pytest.raises(ValueError, match=f"--{flag}: changes nothing with --predictions"):
            Evaluate(predictions=["p.jsonl"], **{flag: value})

"""`--audit_only`: every finding at once, in seconds, without a GPU, and nothing sampled, trained or written."""

import json
import runpy
import sys

import pytest

from rlred.cli import main as rlred
from rlred.runs import grpo
from rlred.runs.arguments import KINDS, RLConfig, parse
from rlred.runs.audit_only import Audit, audited
from rlred.train import audit_of, command_line
from tests.paths import ROOT
from tests.test_every_recipe import RECIPES

FOR_A_GPU = "defaults: [lora_gpu, l1_r1]\nmodel_name_or_path: tiny_reasoner\nquestions: sums\neval_questions: sums\n"
FOR_A_GPU += "eval_split: test\nmax_completion_length: 1500\nbudget_high: 1200\neval_budgets: [512, 960]\n"


def recipe(name, *flags, monkeypatch):
    """The exit status of a recipe's command line."""
    monkeypatch.setattr(sys, "argv", [f"recipes/{name}.py", *map(str, flags)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "recipes" / f"{name}.py"), run_name="__main__")
    return ended.value.code


@pytest.fixture
def yaml(tmp_path, monkeypatch):
    """Writes a YAML for a GPU with more lines, in a folder of its own; gives its name."""
    monkeypatch.chdir(tmp_path)

    def write(*lines: str) -> str:
        (tmp_path / "mine.yaml").write_text(FOR_A_GPU + "\n".join(lines) + "\n")
        return "mine.yaml"

    return write


def findings(tmp_path, name: str, **over) -> str:
    """The report of the audit of a length-control recipe with other settings."""
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps({**over, "output_dir": str(tmp_path / "run")}))
    told = ["--config", str(path)]
    return audited(ROOT / "recipes" / f"{name}.py", KINDS, grpo.audit_only, told, 1).report()


OF_RUNS = ("l1_maxlen", "rho1", "tale", "think_or_not", "tokenskip", "upft", "visual_sparsity")  # one of each kind


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in OF_RUNS else pytest.mark.slow) for n in RECIPES])
def test_every_recipe_can_be_audited_alone(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["--num_questions", 16] if "--num_questions" in RECIPES[name] else []
    assert recipe(name, *small, "--audit_only", monkeypatch=monkeypatch) == 0
    last = capsys.readouterr().out.splitlines()
    assert any(line.startswith("checked: settings, ") for line in last) and "error" not in " ".join(last)
    assert list(tmp_path.iterdir()) == []  # no folder, no heartbeat, no completions


def test_a_run_for_a_gpu_is_audited_without_one(yaml, monkeypatch, capsys):
    assert recipe("l1_maxlen", "--config", yaml(), "--audit_only", monkeypatch=monkeypatch) == 0
    printed = capsys.readouterr().out
    assert "nothing found" in printed and "not checked on this machine: bf16, vLLM" in printed


def test_all_findings_are_said_at_once(yaml, monkeypatch, capsys):
    """A run would end at the first of these; what does not stand on a failed check has its turn all the same."""
    found = yaml(
        "mask_truncated_completions: true",
        "learning_rate: 1.0e-7",
        "max_completion_length: 4000",
        "parts: {easy_first: {}, dynamic_sampling: {}}",
        'chat_template_kwargs: {"enable_thinkin": false}',
    )
    assert recipe("l1_maxlen", "--config", found, "--audit_only", monkeypatch=monkeypatch) == 2
    told = capsys.readouterr()
    for line in (
        "error: mask_truncated_completions=True: ",
        "warning: learning_rate=1e-07: ",
        "error: max_completion_length=4000: with prompts of up to",
        "warning: chat_template_kwargs.enable_thinkin=False: ",
        "error: easy_first.share=0.5: dynamic_sampling draws from all rows",
        "warning: dynamic_sampling.by='grade': drops the groups where all are correct",
        "3 errors, 3 warnings: this run would be refused",
    ):
        assert line in told.out
    [line] = told.err.splitlines()
    assert line == "error: --audit_only: 3 of the findings above would end this run before its first step"


def test_a_check_whose_ground_is_missing_has_no_turn(yaml, tmp_path, monkeypatch, capsys):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"query": "1+1?", "reply": "2"}) + "\n")
    found = yaml("questions: rows.jsonl", "eval_questions: rows.jsonl")
    assert recipe("l1_maxlen", "--config", found, "--audit_only", monkeypatch=monkeypatch) == 2
    printed = capsys.readouterr().out
    assert "error: rows.jsonl: " in printed and "not reached for the errors above: rows and prompts" in printed
    assert "checked: settings, output folder, rewards, questions, prompts, tokenizer" in printed


def test_rows_that_are_left_out_are_a_finding(yaml, tmp_path, monkeypatch, capsys):
    rows = [{"question": f"{n}+1=?", "answer": str(n + 1)} for n in range(20)] + [{"question": "?", "answer": ""}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = yaml("questions: rows.jsonl")
    assert recipe("l1_maxlen", "--config", found, "--audit_only", monkeypatch=monkeypatch) == 0
    assert "warning: rows.jsonl: skipped 1 of 21 rows" in capsys.readouterr().out


def test_columns_that_the_run_will_sample_are_not_missed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert recipe("o1_pruner", "--num_questions", 16, "--audit_only", monkeypatch=monkeypatch) == 0
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": "1+1?", "answer": "2"}) + "\n")
    own = ["--questions", "rows.jsonl", "--evaluate", "false", "--reward", '{"name": "lead"}']
    assert recipe("o1_pruner", *own, "--audit_only", monkeypatch=monkeypatch) in (0, 2)
    assert "the column 'reference_length' is missing" not in capsys.readouterr().out


def test_a_finished_run_is_not_audited_into(yaml, tmp_path, monkeypatch, capsys):
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "run.json").write_text("{}")
    flags = ["--config", yaml(), "--output_dir", "done", "--audit_only"]
    assert recipe("l1_maxlen", *flags, monkeypatch=monkeypatch) == 2
    assert "error: output_dir='done' already holds a run" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "done").iterdir()] == ["run.json"]


def test_a_model_that_cannot_be_read_is_one_line(yaml, monkeypatch, capsys):
    flags = ["--config", yaml(), "--model_name_or_path", "no/such/model", "--audit_only"]
    assert recipe("l1_maxlen", *flags, monkeypatch=monkeypatch) == 2
    assert "error: model_name_or_path='no/such/model' cannot be loaded: " in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--seed", "1"], (None, ["--seed", "1"])),
        (["--audit_only"], (1, [])),
        (["--audit-only", "--seed", "1"], (1, ["--seed", "1"])),
        (["--audit_only", "8", "--seed", "1"], (8, ["--seed", "1"])),
        (["--audit_only=true", "--seed", "1"], (1, ["--seed", "1"])),
        (["--seed", "1", "--audit_only", "false"], (None, ["--seed", "1"])),
    ],
)
def test_how_an_audit_alone_is_asked_for(words, expected):
    assert audit_of(words) == expected


def test_an_audit_for_no_process_is_one_clear_line(monkeypatch, capsys):
    assert recipe("l1_maxlen", "--audit_only", "none", monkeypatch=monkeypatch) == 2
    assert capsys.readouterr().err == (
        "error: --audit_only: 'none' is no number of processes; give 1 or more, or nothing for one\n"
    )


def test_batches_are_counted_over_all_processes(yaml, monkeypatch, capsys):
    """One completion on each of eight GPUs is a group of eight; on one process TRL could not make a group of it."""
    found = yaml("per_device_train_batch_size: 1", "gradient_accumulation_steps: 1", "num_generations: 8")
    assert recipe("l1_maxlen", "--config", found, "--audit_only", 8, monkeypatch=monkeypatch) == 0
    assert recipe("l1_maxlen", "--config", found, "--audit_only", monkeypatch=monkeypatch) == 2
    assert "error: generation_batch_size" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--bf16", "true"], "bf16=True: this machine has no GPU that computes in bfloat16; set it to false; to try"),
        ([], "bf16=True (the default): this machine has no GPU that computes in bfloat16; set it to false; to try"),
        (["--bf16", "false", "--fp16", "true"], "fp16=True: this machine has no GPU, and a CPU does not train in"),
        (["--use_cpu", "true", "--bf16", "false", "--fp16", "true"], "fp16=True: this machine has no GPU, and a CPU"),
    ],
)
def test_a_precision_that_the_machine_lacks_is_one_clear_line(flags, message, tmp_path, monkeypatch):
    monkeypatch.setattr("rlred.runs.devices.is_torch_bf16_gpu_available", lambda: False)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    with pytest.raises(ValueError) as told:
        parse(tmp_path / "none.yaml", ["--output_dir", str(tmp_path), *flags])
    assert str(told.value).startswith(message) and "\n" not in str(told.value)


def test_a_precision_that_the_machine_has_is_taken(tmp_path):
    assert RLConfig(output_dir=str(tmp_path), use_cpu=True, bf16=True).bf16
    assert not RLConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False).bf16


def test_rlred_train_audits_without_a_launch():
    words = command_line(["--num_processes", "4", "l1_maxlen", "--audit_only", "--seed", "1"])
    assert words == [str(ROOT / "recipes" / "l1_maxlen.py"), "--audit_only", "4", "--seed", "1"]
    words = command_line(["--config_file", "zero2", "l1_maxlen", "--audit_only"])
    assert words == [str(ROOT / "recipes" / "l1_maxlen.py"), "--audit_only", "8"]
    assert command_line(["--num_processes", "4", "l1_maxlen", "--audit_only", "2"])[-1] == "2"


@pytest.mark.slow  # a process that imports everything
def test_rlred_train_gives_the_status_of_the_audit(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert rlred(["train", "l1_maxlen", "--num_questions", "16", "--audit_only", "--shuffle_dataset", "true"]) == 2
    assert "error: shuffle_dataset=True: the rows are already in a seeded order" in capfd.readouterr().out


def test_an_audit_counts_what_it_found():
    audit = Audit()
    assert audit.step("one", lambda: 7) == 7 and audit.report() == "nothing found\nchecked: one"
    missing = audit.step("two", int, "x")
    assert audit.step("three", lambda value: value, missing) is Audit.FAILED
    assert "1 error, no warning: this run would be refused" in audit.report()
    assert "checked: one, two; not reached for the errors above: three" in audit.report()


DLER = {"defaults": ["embedded", "shorter_embedded"], "num_questions": 16, "scale_rewards": "batch", "max_steps": 4}
MASK = {"name": "length_mask", "limit": 40}
E1 = {"name": "effort_length", "preset": "e1"}
SKIP = {"reward": "adapt_think", "epsilon_high": 1.0}


@pytest.mark.parametrize(
    "over, message",
    [
        (
            {"reward": MASK, "parts": {"ddca": {}}, "scale_rewards": "none"},
            "ddca reads the reward 'correctness', and length_mask has no other reward beside it; leave one of them out",
        ),
        (
            {"reward": MASK, "parts": {"dynamic_sampling": {}}},
            "dynamic_sampling.by='grade' reads the reward 'correctness', and length_mask has no other reward beside "
            "it; set by to 'reward'",
        ),
        (
            {"reward": E1, "modes": {"effort": 1}, "budgets_per_question": 4, "parts": {"dynamic_sampling": {}}},
            "effort_length.of='group': dynamic_sampling replaces one effort",
        ),
        ({**SKIP, "think_or_not": {"start": "Alright"}}, "think_or_not.start"),
        # too strict would refuse these
        ({"reward": MASK, "parts": {"dynamic_sampling": {"by": "reward"}}}, None),
        ({"reward": {"name": "truncation", "limit": 40}, "parts": {"dynamic_sampling": {}}}, None),
        ({**SKIP, "think_or_not": {"baseline": "reward"}}, None),
    ],
)
def test_what_parts_refuse_is_found_before_anything_is_sampled(over, message, tmp_path):
    report = findings(tmp_path, "dler", **{**DLER, **over})
    assert (f"error: {message}" in report) if message else "error: " not in report, report


def test_a_run_is_refused_for_its_parts_before_its_baseline(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(json.dumps({**DLER, "reward": MASK, "parts": {"ddca": {}}}))
    assert recipe("dler", "--config", "mine.yaml", "--output_dir", "run", monkeypatch=monkeypatch) == 2
    assert "error: ddca reads the reward 'correctness'" in capsys.readouterr().err
    assert not (tmp_path / "run" / "measures").exists()


L1 = {"defaults": ["embedded", "l1_embedded"], "model_name_or_path": "tiny_reasoner", "questions": "sums"}
L1 |= {"num_questions": 16, "reward": {"name": "exact_length", "deviation": "relative", "alpha": 1.0}, "max_steps": 4}


@pytest.mark.parametrize(
    "over, field",
    [
        ({"modes": {"free": 1}, "reward": "correctness"}, "hindsight=True"),
        ({"modes": {"free": 1}, "reward": "correctness", "hindsight": False}, None),
        ({"hindsight": False, "hindsight_settings": {"modes": {"free": 1}}}, None),
    ],
)
def test_a_start_that_teaches_nothing_is_refused_where_there_is_one(over, field, tmp_path):
    report = findings(tmp_path, "l1_exact", **{**L1, **over})
    assert (f"error: {field}" in report) if field else "error: " not in report, report


GPU = {"defaults": ["lora_gpu", "l1_r1"], "model_name_or_path": "tiny_reasoner", "questions": "sums"}
GPU |= {"eval_questions": "sums", "num_questions": 64, "eval_split": "test", "max_completion_length": 1500}
GPU |= {"budget_high": 1200, "reward": {"name": "exact_length", "deviation": "relative", "alpha": 1.0}}


@pytest.mark.parametrize(
    "over, expected",
    [
        ({"eval_budgets": [512, 1024]}, "error: eval_budgets=[512, 1024]: the sweep lets a completion have twice the"),
        ({"eval_budgets": []}, "error: eval_budgets=["),  # of the range, whose largest is 1200
        ({"eval_budgets": [512, 1024], "evaluate": False}, None),
        ({"eval_budgets": [960], "vllm_max_model_length": 1920}, "error: vllm_max_model_length=1920: prompts of up to"),
        ({"eval_budgets": [960], "vllm_max_model_length": 2048}, None),
    ],
)
def test_room_is_asked_for_the_sweep_as_well(over, expected, tmp_path):
    report = findings(tmp_path, "l1_exact", **{**GPU, **over})
    assert (expected in report) if expected else "error: " not in report, report


def test_a_mapping_that_is_no_json_is_told_how_to_be_written(tmp_path):
    """`{free: 1}` is YAML, which a flag is not."""
    with pytest.raises(ValueError, match=r"^modes='\{free: 1\}': not JSON \(.*\); write it as \{\"key\": 1\}$"):
        parse(tmp_path / "none.yaml", ["--output_dir", str(tmp_path), "--modes", "{free: 1}"])

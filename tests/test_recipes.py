"""The recipes, for real: tiny models train on the CPU, save, resume, reload and are measured."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from rlred.cli import main as rlred
from rlred.evaluation.results import read_result
from rlred.runs.arguments import parse
from rlred.runs.grpo import main, run
from rlred.tiny import resolve_model
from tests.paths import ROOT, real_data

SMALL = {
    "num_questions": 64,
    "num_eval_questions": 4,
    "eval_budgets": "16 48",
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "max_steps": 2,
    "logging_steps": 1,
    "save_steps": 2,
    "lora_r": 4,
    "hindsight_settings": json.dumps(
        {"num_samples": 64, "max_updates": 2, "batch_size": 8, "probe_every": 2, "num_probe_questions": 2}
        | {"cooldown_updates": 1, "only_correct": True, "train_answer": True}
    ),
}


def arguments(recipe: str, model: Path, **changes):
    """Parsed arguments of a recipe, made small."""
    flags = {**SMALL, "model_name_or_path": str(model), **changes}
    words = [word for name, value in flags.items() for word in _flag(name, value)]
    return parse(ROOT / "recipes" / f"{recipe}.yaml", words)


@pytest.fixture(scope="module")
def base() -> Path:
    """The embedded model's folder."""
    return Path(resolve_model("tiny_reasoner"))


def _flag(name, value) -> list[str]:
    text = str(value)
    return [f"--{name}", *(text.split(" ") if name in ("eval_budgets", "budget_choices") else [text])]


def digest(folder: Path) -> str:
    """The base model's weights on disk."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


# l1_exact's run is that of the golden and the resumed run as well.
@pytest.mark.parametrize("recipe", ["l1_maxlen", pytest.param("l1_exact", marks=pytest.mark.slow)])
def test_a_recipe_trains_saves_measures_and_its_adapter_reloads(recipe, base, tmp_path):
    before = digest(base)
    output = tmp_path / "run"
    result = run(*arguments(recipe, base, output_dir=output), tmp_path / "unused")

    assert digest(base) == before
    adapter = load_file(output / "adapter_model.safetensors")
    moved = [name for name, tensor in adapter.items() if "lora_B" in name and tensor.abs().max() > 0]
    assert len(moved) == len(adapter) / 2  # B starts at zero; each has moved
    first = load_file(output / "hindsight" / "adapter" / "adapter_model.safetensors")
    assert any(not torch.equal(adapter[name], first[name]) for name in adapter)  # RL moved it beyond hindsight

    assert set(result.labels) >= {"model", "adapter", "seed", "n_questions"} and read_result(output) == result
    mode = "exact" if recipe == "l1_exact" else "max"
    for stage in ("baseline", "hindsight", "trained", "control_constant_length"):
        rows = [(row["mode"], row["budget"], row["n"]) for row in result.rows(stage)]
        assert rows == [(mode, 16, 4), (mode, 48, 4)]
    markdown = (output / "adherence.md").read_text()
    for part in ("| over budget |", "## Accuracy at full length", "## What RL added to the hindsight start"):
        assert part in markdown
    assert (output / "adherence.png").stat().st_size > 10_000
    assert result.cost["rl_rollouts"] == 16 and result.cost["hindsight_samples"] == 64

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), output)
    state = model.state_dict()
    for name, tensor in adapter.items():
        assert torch.equal(state[name.replace(".weight", ".default.weight")], tensor)


def test_the_saved_adapter_gives_the_adherence_that_was_measured(base, tmp_path):
    output = tmp_path / "run"
    result = run(*arguments("l1_exact", base, output_dir=output), tmp_path / "unused")
    status = rlred(
        ["evaluate", "--model", str(base), "--adapter", str(output), "--budgets", "16", "48"]
        + ["--num_questions", "4", "--output", str(tmp_path / "again")]
    )
    assert status == 0
    again = read_result(tmp_path / "again")
    for stage in ("baseline", "trained"):
        assert again.rows(stage) == result.rows(stage)


def test_a_start_on_right_answers_needs_an_update_of_them(base, tmp_path):
    settings = json.dumps({"num_samples": 9, "batch_size": 9, "only_correct": True})
    flags = {"evaluate": False, "hindsight_settings": settings, "output_dir": tmp_path / "run"}
    with pytest.raises(ValueError, match=r"hindsight: only \d of \d sampled completions are correct \(only_correct\)"):
        run(*arguments("l1_exact", base, **flags), tmp_path)


def test_a_resumed_run_continues_the_same_run(base, tmp_path):
    whole = {"evaluate": False, "max_steps": 4, "lr_scheduler_type": "constant", "warmup_steps": 0}
    run(*arguments("l1_exact", base, output_dir=tmp_path / "whole", **whole), tmp_path)
    run(*arguments("l1_exact", base, output_dir=tmp_path / "parts", **{**whole, "max_steps": 2}), tmp_path)
    assert (tmp_path / "parts" / "checkpoint-2").is_dir()
    run(
        *arguments("l1_exact", base, output_dir=tmp_path / "parts", resume_from_checkpoint="true", **whole),
        tmp_path,
    )
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "parts"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=1e-6)
    state = json.loads((tmp_path / "parts" / "checkpoint-4" / "trainer_state.json").read_text())
    assert [entry["step"] for entry in state["log_history"] if "reward" in entry] == [1, 2, 3, 4]


def test_a_run_that_goes_on_is_measured_anew_and_keeps_what_was_measured_before(base, tmp_path):
    output, flags = tmp_path / "run", {"hindsight": False, "output_dir": tmp_path / "run"}
    run(*arguments("l1_exact", base, max_steps=2, **flags), tmp_path)
    measured = {path.name: path.stat().st_mtime_ns for path in (output / "measures").glob("*.json")}
    again = {**flags, "resume_from_checkpoint": "true"}
    run(*arguments("l1_exact", base, max_steps=2, **again), tmp_path)  # nothing is new
    assert {path.name: path.stat().st_mtime_ns for path in (output / "measures").glob("*.json")} == measured
    result = run(*arguments("l1_exact", base, max_steps=4, **again), tmp_path)
    assert result.cost["rl_steps"] == 4 and (output / "measures" / "trained-1" / "trained.json").exists()
    assert json.loads((output / "measures" / "trained.asked.json").read_text())["step"] == 4
    assert (output / "measures" / "baseline.json").stat().st_mtime_ns == measured["baseline.json"]


def test_adherence_is_logged_every_step_beside_each_reward(base, tmp_path):
    # No completion keeps a maximum of 2 tokens, and none of the base's is longer than 95: so the share is known.
    flags = {"budget_distribution": "choices", "budget_choices": "2 95", "log_completions": True, "hindsight": False}
    flags["max_completion_length"] = 110
    flags |= {"output_dir": tmp_path / "run", "evaluate": False, "max_steps": 3}
    run(*arguments("l1_maxlen", base, **flags), tmp_path)
    log = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    shares = []
    for entry, path in zip(log[:3], sorted((tmp_path / "run" / "completions").glob("*.parquet")), strict=True):
        rows = Dataset.from_parquet(str(path), cache_dir=str(tmp_path))
        shares.append(sum("maximum 2 tokens" in str(prompt) for prompt in rows["prompt"]) / len(rows))
        assert entry["adherence/over_budget"] == pytest.approx(shares[-1])
        assert entry["adherence/mean_abs_error"] > 0.5
        # Raw correctness beside the shaped reward, with no weight in the sum.
        assert entry["rewards/correctness/mean"] == pytest.approx(sum(rows["correctness"]) / len(rows))
        assert entry["reward"] == pytest.approx(entry["rewards/by_mode/mean"])
    assert 0 < sum(shares) < 3  # both budgets came up
    assert any(entry["reward"] != pytest.approx(entry["rewards/correctness/mean"]) for entry in log[:3])


def test_without_the_hindsight_start_it_is_stock_grpo(base, tmp_path):
    result = run(*arguments("l1_exact", base, output_dir=tmp_path / "run", hindsight=False), tmp_path)
    assert "hindsight" not in result.blocks and result.cost["hindsight_samples"] == 0
    assert not (tmp_path / "run" / "hindsight").exists()


STOCK = """
import sys
for room in "checks compression data evaluation files publish runs tiny training vision".split():
    sys.modules[f"rlred.{room}"] = None  # any import of it fails
from datasets import Dataset
from peft import LoraConfig
from trl import GRPOConfig, GRPOTrainer
from rlred.rewards import ByMode, Correctness, ExactLength, MaxLength

rows = [
    {"prompt": [{"role": "user", "content": f"{n}+1=?"}], "solution": str(n + 1), "budget": b, "mode": m}
    for n in range(4) for b, m in ((8, "exact"), (12, "max"), (None, "free"))
]
trainer = GRPOTrainer(
    model=sys.argv[1],
    reward_funcs=[ByMode(), ExactLength(alpha=3e-4), MaxLength(alpha=1e-3, delta=0.5), Correctness()],
    args=GRPOConfig(
        sys.argv[2], max_steps=2, per_device_train_batch_size=4, num_generations=4, max_completion_length=60,
        use_cpu=True, bf16=False, report_to="none", logging_steps=1, learning_rate=1e-2,
    ),
    train_dataset=Dataset.from_list(rows),
    peft_config=LoraConfig(target_modules="all-linear", r=4),
)
trainer.train()
assert any(p.abs().max() > 0 for n, p in trainer.model.named_parameters() if "lora_B" in n)
print(sorted(key for key in trainer.state.log_history[0] if key.startswith("rewards/") and key.endswith("mean")))
"""


def test_the_rewards_run_in_stock_trl_without_the_rest_of_rlred(base, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", STOCK, str(base), str(tmp_path / "stock")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    names = ["by_mode", "correctness", "exact_length", "max_length"]
    assert str([f"rewards/{name}/mean" for name in names]) in done.stdout


@pytest.mark.slow
def test_the_number_that_should_fall_falls(tmp_path):
    # Asked for 16 tokens, the embedded reasoner uses some forty; a few steps of GRPO bring that down.
    run(
        *arguments(
            "l1_exact",
            "tiny_reasoner",
            output_dir=tmp_path / "run",
            hindsight=False,
            evaluate=False,
            budget_distribution="choices",
            budget_choices="16",
            per_device_train_batch_size=32,
            num_generations=8,
            lora_r=16,
            learning_rate=3e-3,
            max_steps=12,
            save_steps=12,
        ),
        tmp_path,
    )
    state = json.loads((tmp_path / "run" / "checkpoint-12" / "trainer_state.json").read_text())
    lengths = [entry["completions/mean_length"] for entry in state["log_history"] if "reward" in entry]
    rewards = [entry["reward"] for entry in state["log_history"] if "reward" in entry]
    assert sum(lengths[-3:]) / 3 < 0.8 * sum(lengths[:3]) / 3
    assert sum(rewards[-3:]) > sum(rewards[:3])


def test_accelerate_launch_runs_a_recipe_from_the_command_line(base, tmp_path):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/cpu.yaml"]
    flags = {**SMALL, "model_name_or_path": base, "output_dir": tmp_path / "run", "max_steps": 1}
    command += ["recipes/l1_maxlen.py", *(word for name, value in flags.items() for word in _flag(name, value))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert "# Adherence" in done.stdout


@pytest.mark.parametrize("split", ["train", "test"])
def test_real_gsm8k_rows_go_through_the_same_loader(base, tmp_path, split):
    path = real_data(f"gsm8k/{split}.jsonl")
    run(
        *arguments(
            "l1_maxlen",
            base,
            questions=path,
            output_dir=tmp_path / "run",
            evaluate=False,
            hindsight=False,
            num_questions=32,
            max_steps=1,
        ),
        tmp_path,
    )
    assert (tmp_path / "run" / "adapter_model.safetensors").exists()


def test_a_finished_run_is_not_written_over(base, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="already holds a run"):
        run(*arguments("l1_exact", base, output_dir=folder), tmp_path)
    assert (folder / "run.json").read_text() == "{}"


@pytest.mark.slow
def test_without_an_output_folder_the_next_free_one_is_taken(base, tmp_path):
    for expected in ("run", "run-2"):
        run(
            *arguments("l1_exact", base, hindsight=False, evaluate=False, max_steps=1, save_steps=1),
            tmp_path / "run",
        )
        assert (tmp_path / expected / "adapter_model.safetensors").exists()


BAD = [
    ("--budget_low 64 --budget_high 16", "budget_low must be below budget_high, got 64 and 16"),
    ("--budget_low 0", "budget must be a whole number"),
    ("--budget_low many", "invalid int value: 'many'"),
    ("--budget_distribution gaussian", "budget_distribution must be one of"),
    ("--max_completion_length 64", "max_completion_length=64"),
    ("--mask_truncated_completions true", "mask_truncated_completions=True"),
    ("--shuffle_dataset true", "shuffle_dataset=True"),
    ("--temperature 0", "temperature"),
    ("--modes {", "modes='{': not JSON"),
    ("--modes exact", "modes must be a mapping"),
    ('--modes {"soft":1}', "modes: must be among exact, max, effort, free, got 'soft'"),
    ('--modes {"max":1}', "reward='exact_length': rows that ask for a maximum"),
    ('--reward {"name":"max_length"}', "reward='max_length': rows that ask for an exact length"),
    ("--reward no_such_reward", "no reward is named 'no_such_reward'"),
    ('--reward {"name":"exact_length","alpha":-1}', "exact_length.alpha"),
    ("--wording l3", "no preset named 'l3'"),
    ('--wording {"exact":"{question}"}', "wording.exact needs the placeholder"),
    ('--hindsight_settings {"num_sample":1}', "no field is called 'num_sample'"),
    ('--hindsight_settings {"num_samples":0}', "hindsight_settings.num_samples must be 1 or more"),
    ("--use_peft false", "use_peft=False"),
    ("--questions nowhere.jsonl", "nowhere.jsonl: no such file"),
    ("--questions_split validation", "splits 'train' and 'test'"),
    ("--eval_split train", "held-out questions are training questions too"),
    ("--num_eval_questions 0", "num_eval_questions must be 1 or more"),
    ("--eval_temperature -1", "eval_temperature must be 0 or more"),
    ("--eval_budgets 0", "eval_budgets must be 1 or more"),
    ("--model_name_or_path /no/such/model", "model_name_or_path='/no/such/model' cannot be loaded"),
    ("--resume_from_checkpoint nowhere --output_dir {tmp}", "resume_from_checkpoint='nowhere' is not a folder"),
    ("--resume_from_checkpoint true", "there is no run in"),
    ("--config nowhere.yaml", "--config: no such file: nowhere.yaml"),
    ("--no_such_flag 1", "no_such_flag"),
    ("--num_generations 7", "num_generations"),
]


@pytest.mark.parametrize("flags, message", BAD)
def test_bad_input_is_one_clear_line_before_any_training(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipe = ROOT / "recipes" / "l1_exact.py"
    words = flags.replace("{tmp}", str(tmp_path / "out")).split(" ")
    monkeypatch.setattr(sys, "argv", [str(recipe), *words])
    assert main(recipe) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]
    assert not list(tmp_path.rglob("*.safetensors"))


BAD_COMMANDS = [
    ("evaluate --budgets 0", "--budgets must be 1 or more"),
    ("evaluate --budgets 8 --num_questions 0", "--num_questions must be 1 or more"),
    ("evaluate --budgets 8 --temperature -1", "--temperature must be 0 or more"),
    ("evaluate --budgets 8 --questions nowhere.json", "no such file"),
    ("evaluate --budgets 8 --model /no/such/model", "cannot be loaded"),
    ("evaluate --budgets 8 --adapter /no/such/adapter", "cannot be loaded"),
    ("evaluate --budgets 8 --wording l3", "no preset named"),
    ("table nowhere", "there is no adherence.json"),
]


@pytest.mark.parametrize("command, message", BAD_COMMANDS)
def test_bad_commands_are_one_clear_line(command, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert rlred(command.split(" ")) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line


def test_importing_a_recipe_does_nothing():
    code = "import recipes.l1_exact, recipes.l1_maxlen, rlred.tiny.makers.tiny_reasoner"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == ""


DIAL_YAMLS = [
    path
    for path in sorted((ROOT / "recipes").glob("*.yaml"))
    if not path.stem.startswith(
        ("rho1", "tokenskip", "upft", "visual", "visionthink", "fast_vision")
    )  # not runs of rlred.runs.grpo
]


@pytest.mark.parametrize("path", DIAL_YAMLS, ids=lambda path: path.stem)
def test_every_yaml_parses_and_passes_its_own_audit(path, monkeypatch):
    from rlred.checks.audit import audit_config
    from rlred.rewards import make_reward

    # Those for a GPU: their precision cannot be checked here, everything else can.
    if any(name in path.stem for name in ("r1", "paper", "qwen2.5", "qwen3")):
        flags = ["--bf16", "false", "--use_cpu", "true", "--use_vllm", "false"]
    else:
        flags = []
    parsed, training, model_config = parse(path, flags)
    findings = audit_config(
        training,
        parsed.make_sampler(),
        [make_reward(parsed.reward)],
        hindsight=parsed.hindsight,
        use_peft=model_config.use_peft,
    )
    assert [str(finding) for finding in findings] == []

"""The plan of a run: its counts against real models, its memory against a measured run."""

import json
import os
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig

from rlred.checks.plan import GIB, SHAPES, Plan, shape_of
from rlred.cli import main as rlred
from rlred.runs.arguments import parse
from rlred.runs.recipe_files import read_recipe
from tests.paths import ROOT

RECIPE = ROOT / "recipes" / "l1_maxlen.yaml"


def plan_of(shape, *words, **more):
    return Plan(shape, *parse(RECIPE, list(words)), **more)


def test_weights_are_counted_as_torch_counts_them():
    for name, shape in {"tiny": shape_of("tiny_reasoner"), **SHAPES}.items():
        config = Qwen3Config(
            vocab_size=shape.vocabulary,
            hidden_size=shape.hidden,
            intermediate_size=shape.intermediate,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            tie_word_embeddings=shape.tied,
        )
        with torch.device("meta"):
            model = Qwen3ForCausalLM(config)
            assert shape.parameters == pytest.approx(model.num_parameters(), rel=0.003), name
            adapted = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear"))
        assert shape.lora_parameters(16) == adapted.get_nb_trainable_parameters()[0]


def test_more_devices_share_what_their_strategy_shares():
    shape = SHAPES["1.5B"]
    one, two, three = (plan_of(shape, devices=8, strategy=name).memory() for name in ("ddp", "zero2", "zero3"))
    assert one["weights"] == two["weights"] == 8 * three["weights"] == shape.parameters * 4
    adapter = shape.lora_parameters(32) * 4
    assert one["adapter, gradient, Adam"] == 4 * adapter
    assert two["adapter, gradient, Adam"] == three["adapter, gradient, Adam"] == adapter + 3 * adapter // 8
    assert one["logits"] == 4096 * 32_768 * 4 * 10


def test_the_start_and_the_reference_of_whole_weights_are_counted():
    shape, few = SHAPES["1.5B"], ("--per_device_train_batch_size", "8")

    def activations(*words, **more):
        return plan_of(shape, *few, *words, **more).memory()["activations"]

    alone = activations("--hindsight", "false")
    assert activations() == 4 * alone  # 32 rows of the start, 8 of a step
    assert activations("--hindsight_settings", '{"micro_batch_size": 4}') == alone
    assert activations(devices=4) == 2 * alone  # 64 rows of an update over four devices
    whole = plan_of(shape, "--use_peft", "false", "--beta", "0.01").memory()
    assert whole["reference"] == whole["weights"]
    assert "reference" not in plan_of(shape, "--use_peft", "false").memory()
    assert "reference" not in plan_of(shape, "--beta", "0.01").memory()  # the base without its adapter


def test_tokens_are_those_of_the_recipe():
    plan = plan_of(shape_of("tiny_reasoner"), devices=2)
    assert (plan.rollouts, plan.longest(), plan.obedient()) == (192, 192 * 100, 192 * 48)


def test_the_command_prints_a_table(capsys):
    path = str(ROOT / "recipes" / "l1_maxlen_r1_1.5b_8gpu.yaml")
    assert rlred(["plan", "--config", path, "--model", "7B", "--devices", "8", "--strategy", "zero2"]) == 0
    said = capsys.readouterr().out
    assert "7.62 billion weights, 2048 rollouts per step" in said and "| weights | 14.18 |" in said


KINDS = {"rho1": "rows", "upft": "rows", "tokenskip": "rows"}  # the others sample rollouts


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_can_be_planned(path, capsys):
    assert rlred(["plan", "--config", str(path), "--model", "1.5B"]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    what = KINDS.get(path.stem.partition("_")[0], "rollouts")
    assert f"{what} per step" in said and "| weights | " in said
    assert ("The vision tower is not counted" in said) == ("vis" in path.stem)
    assert ("at the mean budget" in said) == path.stem.startswith(("l1_exact", "l1_maxlen"))  # the others ask for none


def test_sft_reads_its_rows_and_generates_none():
    arguments, training, model_config = read_recipe(ROOT / "recipes" / "tokenskip.yaml")
    plan = Plan(shape_of("tiny_verbose"), arguments, training, model_config, devices=2, prompt_length=20)
    assert plan.rollouts == 32 * 2 * 2 and plan.row_length == 20 + 128
    assert plan.longest() == plan.rollouts * plan.row_length and plan.memory()["key-value cache"] == 0
    assert plan.arithmetic() == plan.shape.parameters * 4 * plan.longest()  # nothing is sampled
    arguments, training, model_config = read_recipe(ROOT / "recipes" / "rho1.yaml")
    assert Plan(shape_of("tiny_reasoner"), arguments, training, model_config).row_length == 256  # its max_length


def test_the_precision_is_that_of_the_yaml_and_not_of_this_machine():
    _, training, _ = read_recipe(ROOT / "recipes" / "tokenskip_qwen2.5_7b_gsm8k.yaml")
    assert training.bf16 and not training.use_cpu
    _, training, _ = read_recipe(ROOT / "recipes" / "tokenskip.yaml")
    assert training.use_cpu and not training.bf16


@pytest.mark.parametrize(
    "text, message",
    [
        ("max_steps: 2\nbudget_lo: 16\n", "no recipe has the setting 'budget_lo'"),
        ("questions: pictures\nbudget_tokens: {a: 1.0}\nnum_tokens: 2\n", "no recipe has the setting 'num_tokens'"),
        ("- 1\n", "must be a mapping of settings, got [1]"),
        ("a: [1\n", "not YAML"),
        ("", "must be a mapping of settings, got None"),
        ("budget_low: 64\nbudget_high: 16\nquestions: sums\n", "budget_low must be below budget_high"),
    ],
)
def test_a_yaml_of_no_recipe_is_one_short_line(text, message, tmp_path, capsys):
    (tmp_path / "my.yaml").write_text(text)
    assert rlred(["plan", "--config", str(tmp_path / "my.yaml")]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line and len(line) < 300


@pytest.mark.parametrize(
    "words, message",
    [
        ("--config nowhere.yaml", "--config: no such file: nowhere.yaml"),
        (f"--config {RECIPE} --devices 0", "--devices must be 1 or more"),
        (f"--config {RECIPE} --prompt_length -5", "--prompt_length must be 1 or more, got -5"),
        (f"--config {RECIPE} --tflops 0", "--tflops must be above 0, got 0.0"),
        (f"--config {RECIPE} --strategy zero4", "--strategy must be one of ddp, zero2, zero3"),
        (f"--config {RECIPE} --model /no/such/model", "no config, and none of 1.5B, 7B, 32B"),
    ],
)
def test_bad_plans_are_one_clear_line(words, message, capsys):
    assert rlred(["plan", *words.split(" ")]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line


MEASURED = """
import json, resource, sys
from pathlib import Path
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM
from rlred.runs.arguments import parse
from rlred.runs.recipe_files import read_recipe
from rlred.data.budgets import training_rows
from rlred.runs.grpo import make_rewards, make_trainer
from rlred.checks.plan import Plan, Shape
from rlred.data.questions import load_questions
from rlred.tiny import resolve_model

vocabulary, length, rows, folder = *map(int, sys.argv[1:4]), sys.argv[4]
shape = Shape(4, 256, 768, 4, 2, 64, vocabulary, True)
words = f"--max_steps 2 --per_device_train_batch_size {rows} --num_generations 4 --max_completion_length {length}"
words += f" --use_peft false --hindsight false --save_strategy no --output_dir {folder}"
arguments, training, model_config = parse(Path("recipes/l1_maxlen.yaml"), words.split(" "))
tokenizer = AutoTokenizer.from_pretrained(resolve_model("tiny_reasoner"))
model = Qwen3ForCausalLM(Qwen3Config(
    vocab_size=vocabulary, hidden_size=256, intermediate_size=768, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, head_dim=64, tie_word_embeddings=True, eos_token_id=tokenizer.eos_token_id,
    pad_token_id=tokenizer.pad_token_id,
))
rows = training_rows(load_questions("sums", limit=16), arguments.make_wording(), arguments.make_sampler(), num_rows=16)
trainer = make_trainer(
    [], model=model, reward_funcs=make_rewards(arguments, training), args=training, train_dataset=rows,
    processing_class=tokenizer,
)
plan = Plan(shape, arguments, training, model_config, prompt_length=20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
trainer.train()
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
weights = plan.memory()["weights"]  # there before the training
print(json.dumps({"predicted": plan.peak() - weights, "measured": after - before, **plan.memory()}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("vocabulary, length, rows", [(32_768, 90, 16), (2_048, 300, 16)])
def test_the_memory_of_a_run_is_what_was_planned(vocabulary, length, rows, tmp_path):
    words = [sys.executable, "-c", MEASURED, str(vocabulary), str(length), str(rows), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print({name: f"{value / GIB:.3f} GiB" for name, value in found.items()})
    assert 0.6 < found["measured"] / found["predicted"] < 1.6


def test_a_config_that_is_not_counted_is_one_clear_line(tmp_path):
    for config, message in (
        (Qwen3MoeConfig(num_experts=8), "its weights are a mixture of 8 experts"),
        (GPT2Config(), "its config has no 'intermediate_size'"),
    ):
        config.save_pretrained(tmp_path / config.model_type)
        with pytest.raises(ValueError, match=message):
            shape_of(str(tmp_path / config.model_type))

"""FAST's KL weight by difficulty: per row, from the group's solve rate, and TRL's own where all rows are alike."""

import json
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig

from recipes import fast
from rlred.evaluation.results import read_result
from rlred.runs.grpo import main
from rlred.tiny import resolve_model
from rlred.training.difficulty_kl import DifficultyKL
from rlred.training.trainer import ComposedGRPOTrainer

DEFAULT = (DifficultyKL(),)


def even_is_right(completion_ids, **kwargs):
    return [float(ids[0] % 2 == 0) for ids in completion_ids]


even_is_right.__name__ = "correctness"  # as rewards.Correctness is called


def trainer(folder, output, parts=DEFAULT, reward=even_is_right, beta=0.001):
    prompts = [{"prompt": [{"role": "user", "content": f"{n}+1=?"}]} for n in range(8)]
    config = GRPOConfig(
        output_dir=str(output),
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=6,
        max_steps=2,
        beta=beta,
        scale_rewards="none",
        use_cpu=True,
        bf16=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    return ComposedGRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder),
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_list(prompts),
        processing_class=AutoTokenizer.from_pretrained(folder),
        parts=parts,
    )


def inputs_of(loop, seed=0):
    """A batch of two groups, as TRL makes it, with a policy that has moved away from its reference."""
    torch.manual_seed(seed)
    loop.model.train()
    inputs = loop._generate_and_score_completions([loop.train_dataset[i // 4] for i in range(8)])
    inputs["ref_per_token_logps"] = inputs["ref_per_token_logps"] + 0.3 * torch.randn_like(
        inputs["ref_per_token_logps"]
    )
    return inputs


def test_the_weight_of_a_row_is_that_of_its_groups_solve_rate(random_model, tmp_path):
    loop = trainer(random_model, tmp_path)
    inputs = inputs_of(loop)
    rates = (inputs["completion_ids"][:, 0] % 2 == 0).float().view(2, 4).mean(1).repeat_interleave(4)
    assert torch.allclose(inputs["kl_weights"], 0.001 + 0.009 * rates)
    assert len(set(rates.tolist())) == 2  # two groups that differ


def test_rows_that_weigh_the_same_give_trls_own_loss(random_model, tmp_path):
    loop, stock = (
        trainer(random_model, tmp_path / "a"),
        trainer(random_model, tmp_path / "b", parts=(), beta=0.5),
    )
    inputs = inputs_of(loop)
    alike = {**inputs, "kl_weights": torch.full((8,), 0.5)}
    loop.current_gradient_accumulation_steps = stock.current_gradient_accumulation_steps = 1
    expected = stock._compute_loss(stock.model, {k: v for k, v in inputs.items() if k != "kl_weights"})
    assert loop._compute_loss(loop.model, alike).item() == pytest.approx(expected.item(), rel=1e-5)
    # The loss is linear in each row's weight.
    none, one = ({**inputs, "kl_weights": w} for w in (torch.zeros(8), torch.tensor([1.0, *[0.0] * 7])))
    rest = {**inputs, "kl_weights": torch.tensor([0.0, *[1.0] * 7])}
    both = {**inputs, "kl_weights": torch.ones(8)}
    a, b, c, d = (loop._compute_loss(loop.model, case).item() for case in (none, one, rest, both))
    assert b > a and (b - a) + (c - a) == pytest.approx(d - a, rel=1e-4)
    assert loop.beta == 0.001  # put back


def test_it_trains(random_model, tmp_path):
    loop = trainer(random_model, tmp_path)
    before = {name: value.clone() for name, value in loop.model.named_parameters()}
    loop.train()
    assert any(not torch.equal(before[name], value) for name, value in loop.model.named_parameters())
    assert any("kl" in entry for entry in loop.state.log_history)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"beta": 0.0}, "beta must be above 0"),
        ({"beta": 0.1}, "at most beta_solved=0.01, got 0.1"),
        ({"reward": lambda completions, **kwargs: [0.0] * len(completions)}, "needs the reward 'correctness'"),
    ],
)
def test_wrong_settings_are_one_clear_line(random_model, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message) as raised:
        trainer(random_model, tmp_path, **settings)
    assert "\n" not in str(raised.value)


def recipe(monkeypatch, *flags):
    small = (
        "--num_questions 64 --num_eval_questions 4 --per_device_train_batch_size 32 --num_generations 8 --max_steps 2"
    )
    small += " --max_steps 2 --logging_steps 1 --save_steps 2"
    monkeypatch.setattr(sys, "argv", ["fast.py", *small.split(), *map(str, flags)])
    return main(Path(fast.__file__))


def test_the_fast_recipe_trains_and_the_base_stays(tmp_path, monkeypatch):
    base = Path(resolve_model("tiny_reasoner")) / "model.safetensors"
    before = base.read_bytes()
    assert recipe(monkeypatch, "--output_dir", tmp_path / "run") == 0
    assert base.read_bytes() == before
    adapter = load_file(tmp_path / "run" / "adapter_model.safetensors")
    assert any(value.abs().max() > 0 for name, value in adapter.items() if "lora_B" in name)
    log = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"][:2]
    assert all({"kl", "rewards/difficulty_length/mean", "rewards/correctness/mean"} <= set(entry) for entry in log)
    assert [row["mode"] for row in read_result(tmp_path / "run").rows("trained")] == ["free"]


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--beta", "0"], "beta must be above 0 and at most beta_solved=0.01, got 0.0"),
        (["--beta_solved", "0.0001"], "beta must be above 0 and at most beta_solved=0.0001, got 0.001"),
        (
            ["--reward", '{"name":"difficulty_length","quantile":2}'],
            "difficulty_length.quantile must be between 0 and 1",
        ),
    ],
)
def test_wrong_settings_of_the_recipe_are_one_line_before_training(tmp_path, monkeypatch, capsys, flags, message):
    assert recipe(monkeypatch, "--output_dir", tmp_path / "run", *flags) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line and not list(tmp_path.rglob("*.safetensors"))

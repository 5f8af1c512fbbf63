"""Two processes on the CPU, through `accelerate launch`: whole groups on each, or a refusal."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from rlred.evaluation.results import read_result
from tests.paths import ROOT

FLAGS = "--max_steps 2 --num_generations 4 --num_questions 16 --num_eval_questions 4 --lora_r 4 --logging_steps 1"


def launch(recipe, output, *flags):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/ddp_cpu.yaml"]
    command += [f"recipes/{recipe}.py", *FLAGS.split(" "), "--output_dir", str(output), *flags]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300)


def test_two_processes_train_one_adapter_on_whole_groups(tmp_path):
    done = launch("shorter_better", tmp_path / "run", "--per_device_train_batch_size", "8", "--learning_rate", "0.01")
    assert done.returncode == 0, done.stderr[-2000:]
    assert read_result(tmp_path / "run").cost["rl_rollouts"] == 2 * 2 * 8  # steps, processes, completions on each
    adapter = load_file(tmp_path / "run" / "adapter_model.safetensors")
    assert all(tensor.isfinite().all() for tensor in adapter.values())
    assert any(tensor.abs().max() > 0 for name, tensor in adapter.items() if "lora_B" in name)
    assert done.stdout.count("# Adherence\n") == 1  # one process speaks


@pytest.mark.slow
def test_trap_groups_that_straddle_processes_are_refused(tmp_path):
    # Half of a group on each process: a group-relative reward would compare two with two, and say nothing.
    done = launch("shorter_better", tmp_path / "run", "--per_device_train_batch_size", "2")
    assert done.returncode != 0
    assert "groups of 4 would straddle processes, but shortest_correct needs whole ones" in done.stderr
    assert not (tmp_path / "run" / "adapter_model.safetensors").exists()


@pytest.mark.slow
def test_rewards_that_look_at_one_completion_may_straddle(tmp_path):
    done = launch("dler", tmp_path / "run", "--per_device_train_batch_size", "2", "--evaluate", "false")
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "adapter_model.safetensors").exists()


def losses(tmp_path, config, batch_size, more_flags=(), **more):
    """Loss, reward and gradient norm of ten steps of l1_maxlen, whose rollouts do not depend on the processes."""
    flags = "--max_steps 10 --num_generations 4 --num_questions 64 --logging_steps 1 --hindsight false --evaluate false"
    flags += f" --learning_rate 0.002 --warmup_steps 0 --per_device_train_batch_size {batch_size}"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", f"accelerate_configs/{config}.yaml"]
    command += ["tests/sampled_by_row.py", *flags.split(" "), "--output_dir", str(tmp_path / config), *more_flags]
    offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **offline, **more}, timeout=900
    )
    assert done.returncode == 0, done.stderr[-2000:]
    history = json.loads((tmp_path / config / "trainer_state.json").read_text())["log_history"]
    return [(entry["loss"], entry["reward"], entry["grad_norm"]) for entry in history if "reward" in entry]


@pytest.mark.slow
def test_two_processes_have_the_loss_of_one(tmp_path):
    one, two = losses(tmp_path, "cpu", 16), losses(tmp_path, "ddp_cpu", 8)
    assert len(one) == len(two) == 10 and len({loss for loss, _, _ in one}) == 10
    differences = [max(abs(a[i] - b[i]) for a, b in zip(one, two, strict=True)) for i in range(3)]
    print("largest difference over ten steps, of loss, reward and gradient norm:", *(f"{d:.1e}" for d in differences))
    assert differences[0] < 1e-4 and differences[1] < 1e-4 and differences[2] < 1e-3


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
def test_zero_on_two_processes_has_the_loss_of_one(tmp_path):
    one = losses(tmp_path, "cpu", 16)
    for config in ("zero2_cpu", "zero3_cpu"):
        flags = "--use_cpu false --ddp_backend gloo --save_strategy steps --save_steps 10".split(" ")
        two = losses(tmp_path, config, 8, flags, DS_ACCELERATOR="cpu", ACCELERATE_TORCH_DEVICE="cpu")
        assert list((tmp_path / config).glob("checkpoint-10/global_step10/*zero_pp_rank_1*")), "it was not ZeRO"
        loss, reward = (max(abs(a[i] - b[i]) for a, b in zip(one, two, strict=True)) for i in range(2))
        print(f"{config}: largest difference over ten steps, of loss and reward: {loss:.1e} {reward:.1e}")
        assert len(two) == 10 and loss < 1e-4 and reward < 1e-4

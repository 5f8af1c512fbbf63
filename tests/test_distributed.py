"""Two processes on the CPU, through `accelerate launch`: whole groups on each, or a refusal."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time

import psutil
import pytest
from safetensors.torch import load_file

from rlred.evaluation.results import read_result
from rlred.files import read_record
from rlred.heartbeat import read
from tests.paths import ROOT

STATES = ("hindsight/trainer_state.json", "trainer_state.json")
STAGES = ("baseline", "hindsight", "trained")
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
def test_rlred_train_hands_on_the_status_of_the_first_process_that_failed(tmp_path):
    words = ["train", "--config_file", "ddp_cpu", "shorter_better", *FLAGS.split(" "), "--output_dir", str(tmp_path)]
    command = [sys.executable, "-m", "rlred.cli", *words, "--per_device_train_batch_size", "2"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr[-2000:]
    assert "error: per_device_train_batch_size=2: groups of 4 would straddle processes" in done.stderr


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


# What each wrapper needs on a machine without a GPU; `use_cpu` would leave the sharded ones out (docs/scaling.md).
ON_CPU = "--use_cpu false --ddp_backend gloo"
WRAPPERS = {"fsdp2": ON_CPU, "ddp": "", "zero2": ON_CPU, "zero3": ON_CPU}
HINDSIGHT = {"num_samples": 64, "max_updates": 4, "cooldown_updates": 0, "batch_size": 8, "probe_every": 2}
HINDSIGHT |= {"num_probe_questions": 2, "num_probe_budgets": 3}
WHOLE = "--max_steps 10 --num_generations 4 --num_questions 64 --num_eval_questions 4 --eval_budgets 16 48 --lora_r 4"
WHOLE += " --logging_steps 1 --save_strategy steps --save_steps 5 --learning_rate 0.002 --warmup_steps 0"


def start(config, output, batch_size, *flags):
    """A whole run of l1_maxlen, from its hindsight start to its report."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", "0"]
    command += ["--config_file", f"accelerate_configs/{config}.yaml", "tests/sampled_by_row.py", *WHOLE.split(" ")]
    command += ["--per_device_train_batch_size", str(batch_size), "--hindsight_settings", json.dumps(HINDSIGHT)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    if "gloo" in flags:
        environment |= {"ACCELERATE_TORCH_DEVICE": "cpu"}
    if config.startswith("zero"):
        environment |= {"DS_ACCELERATOR": "cpu"}
    if config == "cpu":  # one thread, as each of two processes has
        command = ["taskset", "--cpu-list", str(max(os.sched_getaffinity(0))), *command]
    with open(output.with_suffix(".log"), "a", encoding="utf-8") as log:
        return subprocess.Popen(
            [*command, "--output_dir", str(output), *flags],
            cwd=ROOT,
            stdout=log,
            stderr=log,
            env=environment,
        )


def log_of(output):
    return output.with_suffix(".log").read_text(encoding="utf-8")


def finished(process, output):
    assert process.wait(timeout=1800) == 0, log_of(output)[-3000:]
    return output


def killed_in(process, output, stage, step=0):
    """Kills a run, and all of its processes, once it has begun a stage, and logged a step of it."""
    while (record := read(output) or {}).get("stage") != stage or record.get("step", 0) < step:
        assert process.poll() is None, log_of(output)[-3000:]
        time.sleep(0.05)
    launcher = psutil.Process(process.pid)
    everything = [*launcher.children(recursive=True), launcher]  # torch starts its workers in sessions of their own
    for one in everything:
        one.kill()
    psutil.wait_procs(everything)
    process.wait()


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    output = tmp_path_factory.mktemp("one") / "run"
    return finished(start("cpu", output, 16), output)


def differences(one, two):
    """The largest ones between two runs: losses of the start, losses and rewards of RL, adapters, mean lengths."""
    starts, steps = ([json.loads((run / part).read_text())["log_history"] for run in (one, two)] for part in STATES)
    losses = [[entry["loss"] for entry in log if "loss" in entry] for log in starts]
    rewards = [[(entry["loss"], entry["reward"]) for entry in log if "reward" in entry] for log in steps]
    assert [len(found) for found in (*losses, *rewards)] == [4, 4, 10, 10]
    adapters = [load_file(run / "adapter_model.safetensors") for run in (one, two)]
    assert {name: one.shape for name, one in adapters[0].items()} == {name: x.shape for name, x in adapters[1].items()}
    lengths = [
        [
            json.loads((run / "measures" / f"{stage}.json").read_text())["overall"]["max"]["mean_length"]
            for run in (one, two)
        ]
        for stage in ("baseline", "hindsight", "trained")
    ]
    return {
        "start": max(abs(a - b) for a, b in zip(*losses, strict=True)),
        "loss": max(abs(a[0] - b[0]) for a, b in zip(*rewards, strict=True)),
        "reward": max(abs(a[1] - b[1]) for a, b in zip(*rewards, strict=True)),
        "adapter": max(float((adapters[0][name] - adapters[1][name]).abs().max()) for name in adapters[0]),
        "mean length": max(abs(a - b) for a, b in lengths),
    }


def with_traces_of(one_process, output):
    """Traces are drawn from the random state of each process; the start of both learns from the same ones."""
    (output / "hindsight").mkdir(parents=True)
    shutil.copy(one_process / "hindsight" / "traces.jsonl", output / "hindsight")


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_start_and_a_sweep_that_are_killed_go_on_as_one_process(wrapper, one_process, tmp_path):
    if wrapper.startswith("zero") and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is not installed")
    output, flags = tmp_path / "run", [*WRAPPERS[wrapper].split(), "--resume_from_checkpoint", "true"]
    with_traces_of(one_process, output)
    for stage, step in (("measuring: baseline", 0), ("hindsight start", 3), ("measuring: trained", 0)):
        killed_in(start(f"{wrapper}_cpu", output, 8, *flags), output, stage, step)
        assert not (output / "measures" / f"{stage.rpartition(' ')[2]}.json").exists()
        assert stage != "hindsight start" or (output / "hindsight" / "checkpoint-2").exists()
    finished(start(f"{wrapper}_cpu", output, 8, *flags), output)
    assert (output / "adherence.md").exists()
    found = differences(one_process, output)
    print(f"{wrapper}, killed three times:", json.dumps({name: f"{d:.1e}" for name, d in found.items()}))
    assert found["start"] < 1e-4 and found["loss"] < 1e-4 and found["reward"] < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_whole_run_of_two_processes_that_is_killed_and_resumed_is_that_of_one(wrapper, one_process, tmp_path):
    if wrapper.startswith("zero") and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is not installed")
    output, flags = tmp_path / "run", WRAPPERS[wrapper].split()
    with_traces_of(one_process, output)
    killed_in(start(f"{wrapper}_cpu", output, 8, *flags), output, "training", 6)
    assert not (output / "adapter_model.safetensors").exists() and (output / "checkpoint-5").exists()
    finished(start(f"{wrapper}_cpu", output, 8, *flags, "--resume_from_checkpoint", "true"), output)
    told = {"asked": wrapper, "found": wrapper, "processes": 2, "device": "cpu"}
    assert read_record(output / "run.json")["wrapper"] == told
    assert f"training: {wrapper}, processes: 2" in log_of(output) and (output / "adherence.md").exists()
    found = differences(one_process, output)
    print(
        f"{wrapper}: largest differences to one process:", json.dumps({name: f"{d:.1e}" for name, d in found.items()})
    )
    assert found["start"] < 1e-4 and found["loss"] < 1e-4 and found["reward"] < 1e-4


@pytest.mark.slow
def test_trap_fsdp_beside_use_cpu_is_refused(tmp_path):
    process = start("fsdp2_cpu", tmp_path / "run", 8)
    assert process.wait(timeout=300) != 0
    said = log_of(tmp_path / "run")
    assert "error: use_cpu=True: fsdp2 was asked for, and accelerate would train with ddp; set it to false" in said
    assert not (tmp_path / "run").exists()


AT_REST = """
import deepspeed

deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
from trl import GRPOConfig, ModelConfig

from rlred.evaluation.shares import gathered
from rlred.runs.chassis import load_model

training = GRPOConfig("unused", use_cpu=False, ddp_backend="gloo", bf16=False, report_to="none", num_generations=2)
assert training.world_size == 2
model, _ = load_model(ModelConfig("tiny_reasoner", dtype="float32"), training)
whole = lambda: sum(parameter.numel() for parameter in model.parameters())
before, share = whole(), sum(parameter.ds_tensor.numel() for parameter in model.parameters())
with gathered(model):
    print("weights at rest, of which a share:", before, share, "gathered:", whole(), flush=True)
print("after:", whole(), flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
def test_zero3_has_whole_weights_only_while_it_samples(tmp_path):
    script = tmp_path / "at_rest.py"
    script.write_text(AT_REST, encoding="utf-8")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", "0"]
    command += ["--config_file", "accelerate_configs/zero3_cpu.yaml", str(script)]
    own = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "DS_ACCELERATOR": "cpu", "ACCELERATE_TORCH_DEVICE": "cpu"}
    environment = {**os.environ, **own, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("weights at rest, of which a share: 0 440320 gathered: 880640") == 2
    assert done.stdout.count("after: 0") == 2

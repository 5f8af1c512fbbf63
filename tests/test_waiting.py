"""Processes that wait for one that works alone: as long as `ddp_timeout` says, a day where nobody asks otherwise."""

import os
import subprocess
import sys
from datetime import timedelta

import pytest
import torch
from accelerate.state import AcceleratorState

from rlred.runs.arguments import RLConfig, SFTDefaults
from tests.paths import ROOT

ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
ON_CPU = {"use_cpu": True, "bf16": False}
ELSEWHERE = {"use_cpu": False, "bf16": False, "ddp_backend": "gloo"}

# A stage of l1_maxlen whose answers take five seconds to grade; the process that is not the main one waits for it.
SWEEP = """
import sys, time
from pathlib import Path
from rlred.evaluation.sampling import Grading
from rlred.evaluation.stage_evaluation import StageEvaluation
from rlred.rewards import Correctness
from rlred.runs.arguments import parse
from rlred.runs.chassis import ended, load_both, load_model

class Slow(Correctness):
    def __call__(self, *args, **kwargs):
        time.sleep(5)
        return super().__call__(*args, **kwargs)

def work():
    arguments, training, base = parse(Path("recipes/l1_maxlen.yaml"), sys.argv[1:])
    (_, held_out), (model, tokenizer) = load_both(arguments, 0), load_model(base, training)
    prompts = arguments.make_prompts().fitted(tokenizer)
    told = (arguments, training, held_out, tokenizer, prompts, Grading(Slow()), Path(training.output_dir))
    StageEvaluation(*told).measure("baseline", model)
    return "measured"

sys.exit(ended(work))
"""


def waited(**changes) -> timedelta:
    """How long the process group of a run's settings waits."""
    kind = changes.pop("kind", RLConfig)
    kind("outputs/none", **changes)
    group = torch.distributed.distributed_c10d._get_default_group()
    return group._get_backend(torch.device("cpu")).options._timeout


@pytest.fixture
def launched(monkeypatch):
    """The variables of a launcher's only process; the group that it makes is taken down again."""
    for name, value in {**ALONE, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    AcceleratorState._reset_state(reset_partial_state=True)  # one of an earlier test would stand
    yield monkeypatch
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("device", [ON_CPU, ELSEWHERE], ids=["use_cpu", "as a GPU"])
@pytest.mark.parametrize("told, seconds", [({}, 86_400), ({"ddp_timeout": 7}, 7), ({"kind": SFTDefaults}, 86_400)])
def test_trap_a_group_waits_as_long_as_is_asked_for(told, seconds, device, launched):
    # transformers 5.23 hands ddp_timeout on for all devices but the CPU, whose half an hour is gloo's.
    if not device["use_cpu"]:
        launched.setenv("ACCELERATE_TORCH_DEVICE", "cpu")
    assert waited(**device, **told) == timedelta(seconds=seconds)


def test_accelerate_use_cpu_is_use_cpu(launched):
    launched.setenv("ACCELERATE_USE_CPU", "True")
    assert waited(use_cpu=False, bf16=False, ddp_timeout=7) == timedelta(seconds=7)


def test_a_timeout_of_nothing_is_refused():
    with pytest.raises(ValueError, match="ddp_timeout must be 1 or more seconds, got 0"):
        RLConfig("outputs/none", ddp_timeout=0, **ON_CPU)


@pytest.mark.slow
def test_a_sweep_that_is_longer_than_the_timeout(tmp_path):
    """Two processes: with two seconds the run ends by one line that names the setting; with the default all is well."""
    (tmp_path / "sweep.py").write_text(SWEEP)
    flags = "--num_eval_questions 1 --num_questions 8 --eval_budgets 16 --dataloader_pin_memory false".split()
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/ddp_cpu.yaml"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    found = {}
    for name, more in {"short": ["--ddp_timeout", "2"], "default": []}.items():
        told = [str(tmp_path / "sweep.py"), *flags, "--output_dir", str(tmp_path / name), *more]
        found[name] = subprocess.run(
            [*command, *told], cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300
        )
    assert found["short"].returncode != 0 and "longer than ddp_timeout" in found["short"].stderr, found["short"].stderr
    assert found["default"].returncode == 0, found["default"].stderr[-2000:]
    assert found["default"].stdout.count("measured") == 1
    assert (tmp_path / "default" / "measures" / "baseline.json").exists()

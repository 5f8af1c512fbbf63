"""Runs that are killed, and disks that are full: nothing is lost but the time since the last checkpoint."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from trl import GRPOConfig

from rlred.output import checkpoint_of, external_failure, is_whole, last_checkpoint, resume_hint
from rlred.training.hindsight import ended_at
from rlred.training.hindsight_settings import Hindsight
from tests.paths import ROOT
from tests.test_recipes import SMALL, _flag, arguments, run

CURVE = ("loss", "reward", "grad_norm", "entropy", "completions/mean_length", "adherence/mean_abs_error")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of two steps with a checkpoint after each."""
    folder = tmp_path_factory.mktemp("finished")
    flags = {"hindsight": False, "evaluate": False, "save_steps": 1}
    run(*arguments("l1_exact", "tiny_reasoner", output_dir=folder / "run", **flags), folder)
    return folder / "run"


def test_trap_a_checkpoint_that_a_crash_cut_short_is_not_resumed_from(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    first, second = (tmp_path / "run" / f"checkpoint-{step}" for step in (1, 2))
    assert last_checkpoint(tmp_path / "run") == str(second)
    for path in sorted(second.iterdir()):
        if path.suffix in (".safetensors", ".pt", ".pth") or path.name == "trainer_state.json":
            whole = path.read_bytes()
            for kept in (0, len(whole) // 2, len(whole) - 2):
                path.write_bytes(whole[:kept])
                assert not is_whole(second), (path.name, kept)
                assert last_checkpoint(tmp_path / "run") == str(first)
            path.write_bytes(whole)
    assert is_whole(second)
    (second / "trainer_state.json").unlink()
    training = GRPOConfig(str(tmp_path / "run"), use_cpu=True, bf16=False, resume_from_checkpoint=str(second))
    with pytest.raises(ValueError, match="is not a whole checkpoint"):
        checkpoint_of(training)
    shutil.rmtree(first)
    assert last_checkpoint(tmp_path / "run") is None


def test_a_run_goes_on_from_the_last_whole_checkpoint(finished, tmp_path, caplog):
    shutil.copytree(finished, tmp_path / "run")
    state = tmp_path / "run" / "checkpoint-2" / "trainer_state.json"
    state.write_text(state.read_text()[:100])
    flags = {"hindsight": False, "evaluate": False, "save_steps": 1, "resume_from_checkpoint": "true"}
    run(*arguments("l1_exact", "tiny_reasoner", output_dir=tmp_path / "run", **flags), tmp_path)
    assert "checkpoint-2 was not written to its end" in caplog.text
    one, two = (load_file(folder / "adapter_model.safetensors") for folder in (finished, tmp_path / "run"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=1e-6)


def test_a_full_disk_is_one_clear_line_and_the_run_goes_on_afterwards(finished, tmp_path):
    folder = tmp_path / "run"
    (folder / "checkpoint-2").mkdir(parents=True)
    (folder / "checkpoint-2" / "optimizer.pt").symlink_to("/dev/full")  # every write: no space left
    flags = {**SMALL, "hindsight": False, "evaluate": False, "save_steps": 1, "output_dir": folder}
    done = start("l1_exact", flags)
    _, errors = done.communicate(timeout=300)
    [line] = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert done.returncode == 1 and "is the disk full" in line and "checkpoint-1" in line and "Traceback" not in errors
    (folder / "checkpoint-2" / "optimizer.pt").unlink()
    changes = {"hindsight": False, "evaluate": False, "save_steps": 1, "resume_from_checkpoint": "true"}
    run(*arguments("l1_exact", "tiny_reasoner", output_dir=folder, **changes), tmp_path)
    one, two = (load_file(path / "adapter_model.safetensors") for path in (finished, folder))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=1e-6)


def test_a_server_that_is_gone_is_named():
    with pytest.raises(urllib.error.URLError) as caught:
        urllib.request.urlopen("http://127.0.0.1:9/generate/", timeout=5)
    assert external_failure(caught.value).startswith("a server does not answer")
    assert external_failure(RuntimeError("shapes differ")) is None


def test_the_way_on_is_named(finished):
    assert resume_hint(GRPOConfig(str(finished), use_cpu=True, bf16=False)).endswith(
        f"from {finished / 'checkpoint-2'}"
    )


@pytest.mark.parametrize(
    "step, correlations, ended",
    [
        (80, {40: 0.5, 80: 0.95}, None),  # heard just now: the cool-down is to come
        (120, {40: 0.5, 80: 0.95, 120: 0.93}, 120),  # 40 updates of cool-down were all
        (120, {40: 0.95, 80: 0.2, 120: 0.2}, 120),  # heard once is heard
        (120, {40: 0.1, 80: 0.2, 120: 0.3}, None),
        (160, {40: 0.1, 80: 0.2, 120: 0.3}, 160),  # never heard: 120 updates and 40
    ],
)
def test_a_hindsight_start_that_was_killed_before_its_record_does_not_train_on(step, correlations, ended, tmp_path):
    probes = [{"step": at, "probe_rank_correlation": found} for at, found in correlations.items()]
    state = {"global_step": step, "log_history": [*probes, {"step": step, "loss": 1.0}]}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    settings = Hindsight(max_updates=120, cooldown_updates=40, target_correlation=0.9)
    assert ended_at(None, settings) is None
    assert ended_at(str(tmp_path), settings) == ended


def start(recipe, flags) -> subprocess.Popen:
    words = [word for name, value in flags.items() for word in _flag(name, value)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, f"recipes/{recipe}.py", *words],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def curve(folder: Path) -> list[tuple]:
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [(entry["step"], *(entry[name] for name in CURVE)) for entry in history if "reward" in entry]


def started(process: subprocess.Popen) -> list[str]:
    """Waits until the run has claimed its folder; goes on reading what it says."""
    said: list[str] = []
    for line in process.stderr:
        said.append(line)
        if "output:" in line:
            break
    threading.Thread(target=lambda: said.extend(process.stderr), daemon=True).start()
    return said


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["l1_maxlen"])
def test_a_run_that_is_killed_at_random_moments_has_the_same_curve(recipe, tmp_path):
    flags = {**SMALL, "evaluate": False, "max_steps": 8, "save_steps": 1, "save_total_limit": 2, "learning_rate": 0.01}
    whole = start(recipe, {**flags, "output_dir": tmp_path / "whole"})
    started(whole)
    begin = time.monotonic()
    assert whole.wait(600) == 0
    seconds = time.monotonic() - begin
    rng = random.Random(8)
    kills = []
    while len(kills) < 5:
        process = start(recipe, {**flags, "output_dir": tmp_path / "killed", "resume_from_checkpoint": "true"})
        started(process)
        time.sleep(rng.uniform(0, seconds / 2.5))
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        saved = sorted(path.name for path in (tmp_path / "killed").glob("checkpoint-*"))
        kills.append(saved[-1] if saved else "before the first checkpoint")
    process = start(recipe, {**flags, "output_dir": tmp_path / "killed", "resume_from_checkpoint": "true"})
    said = started(process)
    assert process.wait(600) == 0, "".join(said)[-2000:]
    print(f"killed {len(kills)} times in a run of {seconds:.0f} s: {kills}")
    assert len(kills) >= 3
    one, two = curve(tmp_path / "whole"), curve(tmp_path / "killed")
    assert [row[0] for row in one] == [row[0] for row in two] == list(range(1, 9))
    worst = max(abs(a - b) for left, right in zip(one, two, strict=True) for a, b in zip(left, right, strict=True))
    print(f"largest difference in {', '.join(CURVE)}: {worst:.2e}")
    assert worst < 1e-4
    adapters = [load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "killed")]
    for name in adapters[0]:
        torch.testing.assert_close(adapters[0][name], adapters[1][name], rtol=0, atol=1e-5)

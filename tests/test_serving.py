"""`rlred serve`: what it refuses, and a real server on the CPU, asked through the OpenAI client."""

import contextlib
import copy
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from transformers import AutoTokenizer, GenerationConfig
from transformers.utils.import_utils import is_serve_available

from rlred.cli import main as rlred
from rlred.data.budgets import make_wording
from rlred.data.models import NEUTRAL, load_model
from rlred.data.prompts import Conversation, Prompts, prompt_text
from rlred.data.questions import load_questions
from rlred.evaluation.sampling import Sampling
from rlred.evaluation.sweep import complete, sample_of
from rlred.publish.export import export
from rlred.publish.server import (
    VARIABLES,
    address,
    anchored,
    asked,
    check_address,
    check_request,
    check_settings,
    request,
    sample,
    whole_weights,
)
from rlred.publish.template import base_template, budget_template
from tests.paths import ROOT

ADAPTER = ROOT / "data" / "l1_maxlen"
BUDGETS, QUESTIONS, SEED = (16, 32, 48, 80), 16, 0

# --- without a server -------------------------------------------------------------------------------------------------

BAD = [
    ({"thinking_budget": 0}, "thinking_budget=0 is no budget; give a whole number of tokens from 1 to 2048"),
    ({"thinking_budget": -5}, "thinking_budget=-5 is no budget"),
    ({"thinking_budget": "many"}, 'thinking_budget="many" is no budget'),
    ({"thinking_budget": 10**9}, "thinking_budget=1000000000 is no budget"),
    (
        {"reasoning_effort": "extreme"},
        "chat_template_kwargs.reasoning_effort='extreme': the chat template of this model",
    ),
    ({"budget": 32}, "it has thinking_budget, thinking_token_budget, budget_mode"),
    ({"messages": []}, "'messages' is no setting of a chat template"),
    ({"tokenize": False}, "'tokenize' is no setting of a chat template"),
    ("many", "chat_template_kwargs: not JSON"),
    ([48], "chat_template_kwargs must be a mapping"),
]
GOOD = [{}, {"thinking_budget": 48}, {"thinking_token_budget": 48, "budget_mode": "exact"}, {"budget_mode": "free"}]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(ADAPTER)


@pytest.mark.parametrize("settings, message", BAD)
def test_a_bad_value_is_one_clear_line(settings, message, tokenizer):
    with pytest.raises(ValueError) as refused:
        check_settings(tokenizer, asked({"chat_template_kwargs": settings}, tokenizer.chat_template))
    assert message in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("settings", GOOD)
def test_a_value_that_the_template_takes_comes_through(settings, tokenizer):
    body = {"chat_template_kwargs": settings, "model": "l1_maxlen"}
    assert asked(body, tokenizer.chat_template) == settings
    check_settings(tokenizer, settings)


def test_openais_effort_is_a_variable_of_the_template_and_never_dropped_without_a_word(tokenizer):
    reads = "{{ reasoning_effort }}{% for m in messages %}{{ m.content }}{% endfor %}"
    assert asked({"reasoning_effort": "low"}, reads) == {"reasoning_effort": "low"}
    own = {"reasoning_effort": "low", "chat_template_kwargs": {"reasoning_effort": "high"}}
    assert asked(own, reads) == {"reasoning_effort": "high"} and "reasoning_effort" not in own
    with pytest.raises(ValueError, match="has no such variable"):
        asked({"reasoning_effort": "low"}, tokenizer.chat_template)


def test_trap_a_base_that_decodes_greedily_would_not_hear_a_temperature():
    quiet = GenerationConfig(eos_token_id=1)
    sample(quiet, 2048)
    assert (quiet.do_sample, quiet.top_k, quiet.top_p, quiet.eos_token_id) == (True, 0, 1.0, 1)


def test_trap_a_server_samples_as_training_and_measuring_do_whatever_the_base_says():
    own = GenerationConfig(do_sample=True, top_k=20, top_p=0.8, temperature=0.6, repetition_penalty=1.1, top_h=0.4)
    sample(own, 2048)
    assert {name: getattr(own, name) for name in NEUTRAL} == NEUTRAL
    assert (own.do_sample, own.top_k, own.top_p) == (True, 0, 1.0)
    assert own.temperature == 0.6  # of requests that name none


@pytest.mark.skipif(not is_serve_available(), reason="no fastapi, openai and uvicorn: pip install 'rlred[serve]'")
@pytest.mark.parametrize("body, most", [({}, 2048), ({"max_tokens": 3}, 3), ({"max_completion_tokens": 2000}, 2000)])
def test_trap_an_answer_is_not_cut_where_a_request_does_not_ask_for_it(body, most):
    from transformers.cli.serving.chat_completion import ChatCompletionHandler
    from transformers.cli.serving.utils import GenerationState

    config = GenerationConfig(max_new_tokens=20)
    sample(config, 2048)
    handler = ChatCompletionHandler(None, GenerationState(), {})
    assert handler._build_generation_config(body, config).max_new_tokens == most


# What a server has for requests that do not say, a request, and how it is asked: a budget in a mode, or a refusal.
OVER = [
    ({"thinking_budget": 64}, {}, (64, "max")),
    ({"thinking_budget": 64}, {"thinking_budget": 32}, (32, "max")),
    ({"thinking_budget": 64}, {"thinking_token_budget": 32}, (32, "max")),
    ({"thinking_token_budget": 64}, {"thinking_budget": 32}, (32, "max")),
    ({"thinking_budget": 64}, {"budget_mode": "free"}, (None, "free")),
    ({"thinking_budget": 64}, {"budget_mode": "exact"}, (64, "exact")),
    ({"thinking_budget": 64, "budget_mode": "exact"}, {"thinking_token_budget": 32}, (32, "exact")),
    ({"thinking_budget": 64, "budget_mode": "exact"}, {"budget_mode": "max"}, (64, "max")),
    ({"thinking_budget": 64, "budget_mode": "exact"}, {"budget_mode": "free"}, (None, "free")),
    ({"budget_mode": "free"}, {"thinking_budget": 32}, (32, "max")),
    ({"budget_mode": "free"}, {}, (None, "free")),
    ({"thinking_budget": 64}, {"reasoning_effort": "low"}, (0.25, "effort")),
    ({"thinking_budget": 64, "budget_mode": "exact"}, {"reasoning_effort": "low"}, (0.25, "effort")),
    ({"thinking_budget": 64}, {"budget_mode": "effort", "reasoning_effort": 0.5}, (0.5, "effort")),
    ({"reasoning_effort": "low"}, {"thinking_budget": 32}, (32, "max")),
    ({"reasoning_effort": "low", "budget_mode": "effort"}, {"thinking_budget": 32}, (32, "max")),
    ({"reasoning_effort": "low", "budget_mode": "effort"}, {"reasoning_effort": "high"}, (1.0, "effort")),
    ({"reasoning_effort": "low"}, {"budget_mode": "free"}, (None, "free")),
    ({"reasoning_effort": "low"}, {}, (0.25, "effort")),
    ({"thinking_budget": 64}, {"thinking_budget": 32, "reasoning_effort": "low"}, (32, "max")),
    ({"thinking_budget": 64}, {"thinking_budget": None}, None),  # as without any of the variables
]


@pytest.mark.parametrize("defaults, told, wanted", OVER)
@pytest.mark.parametrize("prefix", ["", "rlred_"])
def test_trap_no_default_of_the_server_takes_the_place_of_what_a_request_asks_for(
    defaults, told, wanted, prefix, tokenizer
):
    """`prefix`: a base whose template reads variables of these names itself."""
    base, prompts = base_template(tokenizer.chat_template), Prompts(make_wording("l1"))
    base += f"{{# {' '.join(VARIABLES)} #}}" if prefix else ""
    template = budget_template(base, prompts, ("max", "exact", "effort"))
    defaults, told = ({f"{prefix}{name}": value for name, value in one.items()} for one in (defaults, told))
    variables = asked({"chat_template_kwargs": told}, template, {**defaults, "enable_thinking": False})
    assert variables.pop("enable_thinking") is False
    served = AutoTokenizer.from_pretrained(ADAPTER)
    served.chat_template = template
    text = prompt_text(served, Conversation([{"role": "user", "content": "1+1?"}], variables))
    question = prompts.wording.ask("1+1?", *wanted) if wanted else "1+1?"
    assert text == prompt_text(served, Conversation([{"role": "user", "content": question}]))


def test_a_variable_of_the_base_is_no_budget_of_the_server():
    reads = budget_template("{{ reasoning_effort }}{{ messages }}", Prompts(), ("max",))
    variables = asked({"reasoning_effort": "low"}, reads, {"thinking_budget": 64})
    assert variables == {"thinking_budget": 64, "reasoning_effort": "low"}


@pytest.mark.parametrize("host", ["::1", "::"])
def test_a_host_of_ipv6_is_one(host):
    try:
        other = socket.create_server((host, 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with other:
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=f"--port {port} on --host {host}: Address already in use; name another"):
            check_address(host, port)
    check_address(host, port)
    assert address(host, port) == f"http://[{host}]:{port}"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_host_of_ipv4_is_one(host):
    with socket.create_server((host, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match="Address already in use"):
            check_address(host, port)
    check_address(host, port)


def test_weights_that_are_merged_already_are_taken_as_they_are(tmp_path):
    merged = tmp_path / "mine@2" / "merged"
    merged.mkdir(parents=True)
    (merged / "config.json").write_text("{}")
    with whole_weights(str(tmp_path / "mine@2")) as (folder, example):
        # Behind an @ the server would read a revision.
        assert folder.name == example["model"] == "mine-2" and folder.resolve() == merged
        made = folder.parent
    assert not made.exists() and merged.exists()


def test_the_request_that_is_shown_asks_for_the_middle_of_the_trained_budgets():
    assert request(ADAPTER, "mine")["chat_template_kwargs"] == {"thinking_budget": 48, "budget_mode": "max"}
    assert "chat_template_kwargs" not in request(ROOT / "data" / "tiny_reasoner", "base")


@pytest.mark.parametrize(
    "words, message",
    [
        (["nothing/here"], "nothing/here: there is no such folder"),
        ([str(ROOT / "docs")], "there is no adapter_model.safetensors"),
        (["l1_maxlen", "--port", "0"], "--port must be 1 to 65535, got 0"),
        (["l1_maxlen", "--port", "many"], "--port: 'many' is not a whole number"),
        (
            ["l1_maxlen", "--port", "{taken}"],
            "--port {taken} on --host localhost: Address already in use; name another",
        ),
        (["l1_maxlen", "--chat_template_kwargs", "many"], "chat_template_kwargs: not JSON"),
    ],
)
def test_a_wrong_word_ends_before_anything_is_served(words, message, capsys, monkeypatch):
    monkeypatch.setattr("rlred.publish.server.is_serve_available", lambda: True)  # not needed for these
    before = signal.getsignal(signal.SIGTERM)
    with socket.create_server(("localhost", 0)) as other:
        taken = str(other.getsockname()[1])
        assert rlred(["serve", *(word.format(taken=taken) for word in words)]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message.format(taken=taken) in line
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(is_serve_available(), reason="the extra is installed")
def test_a_missing_extra_is_one_clear_line(capsys):
    assert rlred(["serve", "l1_maxlen"]) == 2
    assert "needs fastapi, openai and uvicorn; install them with: pip install 'rlred[serve]'" in capsys.readouterr().err


QWEN = {  # as transformers has it for the models whose template is Qwen's
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "reasoning_content": {"open": "<think>", "close": "</think>", "content": "text"},
        "content": {"close_pattern": r"\s*<\|im_end\|>", "content": "text"},
    },
}


def parsed(template, prompt: str, *pieces: str) -> dict:
    """The fields of an answer that comes in pieces."""
    from transformers.utils.chat_parsing.response_parser import ResponseParser

    parser = ResponseParser(template, prefix=prompt)
    for piece in pieces:
        parser.feed(piece)
    return parser.finalize()[0]


def test_trap_a_prompt_that_opens_the_thinking_is_no_part_of_the_answer(tokenizer):
    prompt = prompt_text(tokenizer, [{"role": "user", "content": "3+7=?"}])
    assert prompt.endswith("<think>") and QWEN["start_anchor"] not in prompt
    assert "3+7=?" in parsed(QWEN, prompt, "3+7")["content"]  # what it would be
    ours = anchored(QWEN, tokenizer)
    assert ours["fields"] == QWEN["fields"] and QWEN["start_anchor"] == "<|im_start|>assistant\n"
    whole = parsed(ours, prompt, "3+7", "=10</think>", "\\boxed{10}")
    assert (whole["reasoning_content"], whole["content"]) == ("3+7=10", "\\boxed{10}")
    assert not parsed(ours, prompt, "3+7").get("content")
    tokenizer = copy.deepcopy(tokenizer)  # the module's own stays as it is
    tokenizer.chat_template = (
        "{{ messages[0].content }}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    assert anchored(QWEN, tokenizer) is QWEN and anchored(None, tokenizer) is None


@pytest.mark.parametrize(
    "body, message",
    [
        ({"max_tokens": 0}, "max_tokens must be a whole number, 1 or more; got 0"),
        ({"max_completion_tokens": -1}, "max_completion_tokens must be"),
        ({"max_tokens": "8"}, "max_tokens must be"),
        ({"temperature": -1}, "temperature must be a number, 0 or more; got -1"),
        ({"temperature": "hot"}, "temperature must be"),
        ({"top_p": 0}, r"top_p must be a number, in \(0, 1\]; got 0"),
        ({"messages": []}, r"messages must be a list of turns, .* got \[\]"),
        ({"messages": "hi"}, "messages must be a list of turns, .* got 'hi'"),
        ({"messages": None}, "messages must be"),
        ({"n": 2}, "n=2: this server gives one answer"),
        ({"logprobs": True}, "logprobs: this server gives none"),
    ],
)
def test_a_bad_value_of_openais_own_is_one_clear_line(body, message):
    good = {"messages": [{"role": "user", "content": "?"}], "max_tokens": 8, "temperature": 0, "top_p": 1, "n": 1}
    check_request(good)
    check_request({"messages": good["messages"], "max_tokens": None, "logprobs": False})
    with pytest.raises(ValueError, match=f"^{message}"):
        check_request({**good, **body})


# --- with one ---------------------------------------------------------------------------------------------------------

served = [
    pytest.mark.slow,
    pytest.mark.skipif(not is_serve_available(), reason="no fastapi, openai and uvicorn: pip install 'rlred[serve]'"),
]


def start(*words, log, adapter=ADAPTER):
    """`rlred serve` in a process of its own, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "rlred.cli", "serve", str(adapter), "--device", "cpu", "--port", str(port), *words]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True)
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://localhost:{port}/health", timeout=5)
            return process, f"http://localhost:{port}/v1"
        except (urllib.error.URLError, ConnectionError):
            if process.poll() is not None:
                break
            time.sleep(0.5)
    process.kill()
    log.seek(0)
    pytest.fail(f"the server does not answer: {log.read()[-2000:]}")


@contextlib.contextmanager
def client_of(adapter, folder):
    """OpenAI's client of a server that runs meanwhile."""
    from openai import OpenAI

    with (folder / "server.log").open("w+") as log:
        process, url = start(log=log, adapter=adapter)
        try:
            yield OpenAI(base_url=url, api_key="none", max_retries=0, timeout=900)
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with client_of(ADAPTER, tmp_path_factory.mktemp("served")) as found:
        yield found


def ask(client, question: str, variables: dict, **more):
    """The server's answer to a question with these variables of the chat template."""
    return client.chat.completions.create(
        messages=[{"role": "user", "content": question}],
        extra_body={"chat_template_kwargs": variables},
        **{"model": "l1_maxlen", "max_tokens": 160, **more},
    )


def questions() -> list[str]:
    """Those of `rlred evaluate --num_questions 16`."""
    return [row["question"] for row in sample_of(load_questions("sums", split="test"), QUESTIONS, SEED)]


@pytest.mark.parametrize("_", [pytest.param(0, marks=served)])
def test_served_lengths_are_those_of_evaluate(_, client, tmp_path):
    """Mean tokens at each budget, over the same questions, each sampled once at temperature 1.

    Two independent samples of n lengths: their means differ by less than 4 standard errors, sqrt((s^2 + t^2) / n), in
    all but 6 of 100 000 cases; half a token more, since the lengths of a budget may all be the same (s = 0).
    """
    numbers = [str(number) for number in BUDGETS]
    evaluate = ["--adapter", str(ADAPTER), "--modes", "max", "--budgets", *numbers, "--num_questions", str(QUESTIONS)]
    assert rlred(["evaluate", *evaluate, "--max_completion_length", "160", "--output", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "adherence.json").read_text())["blocks"]["trained"]["rows"]
    for row in rows:
        budget, n = row["budget"], QUESTIONS
        used = [
            ask(client, one, {"thinking_budget": budget}, temperature=1.0).usage.completion_tokens
            for one in questions()
        ]
        mean, expected = sum(used) / n, row["mean_length"]
        variance = sum((one - mean) ** 2 for one in used) / (n - 1)
        evaluated = (row["rmse"] ** 2 - row["mean_error"] ** 2) * budget**2 * n / (n - 1)
        noise = 4 * math.sqrt((variance + evaluated) / n) + 0.5
        print(f"max {budget}: served {mean:.2f}, evaluated {expected:.2f}, tolerance {noise:.2f}")
        assert abs(mean - expected) < noise, budget
        assert max(used) <= budget  # its card: never over budget
    assert [row["budget"] for row in rows] == list(BUDGETS)


@pytest.mark.parametrize("_", [pytest.param(0, marks=served)])
def test_served_efforts_are_those_of_evaluate(_, tmp_path):
    """Likewise at three efforts and without one; what was evaluated is taken to spread as what is served."""
    adapter = ROOT / "data" / "l1_effort"
    evaluate = f"--modes effort free --efforts low medium high --num_questions {QUESTIONS} --max_completion_length 100"
    assert rlred(["evaluate", "--adapter", str(adapter), *evaluate.split(), "--output", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "adherence.json").read_text())["blocks"]["trained"]["rows"]
    expected = {row.get("effort"): row["mean_length"] for row in rows}
    asked, means = {0.25: "low", 0.5: "medium", 1.0: "high", None: None}, {}
    with client_of(adapter, tmp_path) as client:
        for effort, name in asked.items():
            told = {"reasoning_effort": name} if name else {}
            answers = [ask(client, one, told, model="l1_effort", temperature=1.0) for one in questions()]
            used = [answer.usage.completion_tokens for answer in answers]
            means[effort] = sum(used) / QUESTIONS
            variance = sum((one - means[effort]) ** 2 for one in used) / (QUESTIONS - 1)
            noise = 4 * math.sqrt(2 * variance / QUESTIONS) + 0.5
            print(f"effort {name}: served {means[effort]:.2f}, evaluated {expected[effort]:.2f}, tolerance {noise:.2f}")
            assert abs(means[effort] - expected[effort]) < noise, name
    assert means[0.25] < 0.5 * means[1.0] and means[0.5] < 0.75 * means[1.0]


@pytest.mark.parametrize("_", [pytest.param(0, marks=served)])
def test_of_64_concurrent_requests_none_gets_the_budget_of_another(_, client):
    """Greedy, so that each request has one answer: that of the same prompt in this process, wherever it was queued."""
    cells = [(question, budget) for question in questions() for budget in BUDGETS]
    model, tokenizer = load_model("tiny_reasoner", str(ADAPTER), device="cpu")
    prompts = [Conversation([{"role": "user", "content": one}], {"thinking_budget": budget}) for one, budget in cells]
    tokenizer.chat_template = (ADAPTER / "chat_template.jinja").read_text()
    wanted = [len(ids) for ids in complete(model, tokenizer, prompts, Sampling(160, 0.0))]
    assert all(len(set(wanted[i : i + len(BUDGETS)])) == len(BUDGETS) for i in range(0, len(cells), len(BUDGETS)))
    order = random.Random(0).sample(range(len(cells)), len(cells))
    assert len(order) == 64

    def tokens(i: int) -> int:
        return ask(client, cells[i][0], {"thinking_budget": cells[i][1]}, temperature=0.0).usage.completion_tokens

    started = time.monotonic()
    with ThreadPoolExecutor(len(order)) as pool:
        found = dict(zip(order, pool.map(tokens, order), strict=True))
    print(f"{len(order)} requests at once in {time.monotonic() - started:.0f} s")
    assert [(cells[i], found[i], wanted[i]) for i in range(len(cells)) if found[i] != wanted[i]] == []


@pytest.mark.parametrize("_", [pytest.param(0, marks=served)])
def test_trap_a_streamed_answer_has_no_prompt_in_it_and_neither_has_one_that_is_cut(_, client):
    pieces = [one.choices[0].delta for one in ask(client, "3+7+2+9=?", {"thinking_budget": 32}, stream=True)]
    content = "".join(one.content or "" for one in pieces)
    assert content.startswith("\\boxed{") and "<|" not in content
    assert any(getattr(one, "reasoning_content", None) for one in pieces)
    cut = ask(client, "3+7+2+9=?", {"thinking_budget": 64}, max_tokens=8).choices[0].message
    assert not cut.content


@pytest.mark.parametrize("_", [pytest.param(0, marks=served)])
def test_a_refused_value_is_status_400_and_the_server_goes_on(_, client):
    from openai import BadRequestError

    for settings, message in BAD:
        with pytest.raises(BadRequestError) as refused:
            ask(client, "What is 2+2?", settings)
        assert message in refused.value.message
    with pytest.raises(BadRequestError, match="has no such variable"):
        ask(client, "What is 2+2?", {}, reasoning_effort="extreme")
    assert ask(client, "What is 2+2?", {"thinking_budget": 32}).usage.completion_tokens <= 32
    assert [model.id for model in client.models.list()] == ["l1_maxlen"]


@pytest.mark.parametrize("_", [pytest.param(0, marks=served)])
@pytest.mark.parametrize("way, body", [("reset", {}), ("load_model", {"model": "org/other"})])
def test_trap_no_request_ends_the_server_or_loads_another_model(_, way, body, client):
    url = str(client.base_url).replace("/v1/", f"/{way}")
    told = {"data": json.dumps(body).encode(), "headers": {"Content-Type": "application/json"}}
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(urllib.request.Request(url, method="POST", **told), timeout=60)
    assert ask(client, "What is 2+2?", {"thinking_budget": 32}).usage.completion_tokens <= 32


@pytest.mark.parametrize("number", [pytest.param(one, marks=served) for one in (signal.SIGINT, signal.SIGTERM)])
def test_a_signal_ends_the_server_and_nothing_is_left(number, tmp_path, monkeypatch):
    from openai import OpenAI

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with (tmp_path / "server.log").open("w+") as log:
        process, url = start("--chat_template_kwargs", '{"thinking_budget": 24}', log=log)
        client = OpenAI(base_url=url, api_key="none", max_retries=0, timeout=900)
        used = [ask(client, "3+7+2+9=?", one).usage.completion_tokens for one in ({}, {"thinking_budget": 80})]
        assert used[0] <= 24 < used[1] <= 80  # a request's own budget wins over the server's
        alias = ask(client, "3+7+2+9=?", {"thinking_token_budget": 80}).usage.completion_tokens
        assert 24 < alias <= 80
        assert ask(client, "3+7+2+9=?", {"budget_mode": "free"}).choices[0].finish_reason == "stop"
        answer = client.responses.create(model="l1_maxlen", input="3+7+2+9=?", max_output_tokens=160, stream=False)
        assert answer.usage.output_tokens <= 24
        process.send_signal(number)
        assert process.wait(60) == 0
        log.seek(0)
        text = log.read()
    assert f"curl {url}/chat/completions" in text and '"thinking_budget": 48, "budget_mode": "max"' in text
    assert text.rstrip().endswith("ended") and "Traceback" not in text
    assert not list(tmp_path.glob("rlred-serve-*"))


def test_merged_weights_carry_the_template(tmp_path):
    folder = export(ADAPTER, tmp_path / "out", merge=True)
    plain, merged = ((place / "chat_template.jinja").read_text() for place in (folder, folder / "merged"))
    assert plain == merged == (ADAPTER / "chat_template.jinja").read_text()

"""A real server on the CPU: the merged export of the embedded adapter, asked over HTTP for two budgets."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from transformers import AutoTokenizer
from transformers.utils.import_utils import is_serve_available

from rlred.data.budgets import Wording
from rlred.data.questions import load_questions
from rlred.publish.export import export
from tests.paths import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not is_serve_available(), reason="transformers serve needs fastapi, uvicorn and openai: transformers[serving]"
    ),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of `transformers serve`, and the folder of the model that it serves."""
    folder = (
        export(ROOT / "data" / "l1_maxlen", tmp_path_factory.mktemp("exports") / "l1_maxlen", merge=True) / "merged"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder), "--device", "cpu"]
    log = (folder.parent / "server.log").open("w+")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=log, env=environment)
    url = f"http://localhost:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5)
                break
            except (urllib.error.URLError, ConnectionError):
                if process.poll() is not None:
                    log.seek(0)
                    pytest.fail(f"the server ended: {log.read()[-2000:]}")
                time.sleep(0.5)
        else:
            pytest.fail("the server did not answer within five minutes")
        yield url, folder
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def ask(server, question: str, seed: int = 0, **asked) -> dict:
    """The server's answer to a question with these variables of the chat template."""
    url, folder = server
    body = {"model": str(folder), "messages": [{"role": "user", "content": question}], "chat_template_kwargs": asked}
    body |= {"max_tokens": 160, "temperature": 1.0, "seed": seed}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def test_a_server_keeps_the_budget_that_a_request_names(server):
    tokenizer = AutoTokenizer.from_pretrained(server[1])
    questions = [row["question"] for row in load_questions("sums", split="test", limit=8)]
    means = {}
    for budget in (16, 64):
        used = []
        for question in questions:
            usage = ask(server, question, thinking_budget=budget)["usage"]
            turns = [{"role": "user", "content": Wording().ask(question, budget, "max")}]
            prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
            assert usage["prompt_tokens"] == len(prompt)
            used.append(usage["completion_tokens"])
        means[budget] = sum(used) / len(used)
    assert means[16] < 24 and 40 < means[64] < 72  # its card: 14.4 and 55.2 tokens


def test_a_value_that_is_no_budget_is_refused_and_the_server_goes_on(server):
    for value in (0, "many", 10**9):
        with pytest.raises(urllib.error.HTTPError):
            ask(server, "What is 2+2?", thinking_budget=value)
    assert ask(server, "What is 2+2?", thinking_budget=32)["usage"]["completion_tokens"] > 0

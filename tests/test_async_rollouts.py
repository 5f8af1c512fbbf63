"""TRL's asynchronous rollouts: our rewards in another process, without trainer and torch, and in its own worker."""

import json
import os
import pickle
import subprocess
import sys

import pytest
from trl.import_utils import is_aiohttp_available

from rlred.rewards import Correctness, MaxLength
from rlred.rewards.base import bind
from rlred.tiny import resolve_model
from rlred.training.adherence import LogsAdherence
from tests.paths import ROOT
from tests.test_reward_protocol import COLUMNS, EVERY, RIGHT, WRONG, score
from tests.test_vllm import environment, free_port, needs_requests, rows_of, serving

# As TRL's rollout worker calls rewards: no trainer_state, no log_metric.
GROUP = {
    "prompts": ["q"] * 4,
    "completions": [[{"role": "assistant", "content": text}] for text in (RIGHT, RIGHT, WRONG, WRONG)],
    "completion_ids": [[7] * n for n in (10, 30, 20, 50)],
    **COLUMNS,
}
CHILD = """
import json, pickle, sys
rewards, group = pickle.load(sys.stdin.buffer)
values = [[reward(**{name: list(values) for name, values in group.items()}) for reward in rewards]]
loaded = [name for name in ("torch", "transformers", "rlred.training") if name in sys.modules]
print(json.dumps({"values": values[0], "names": [reward.__name__ for reward in rewards], "loaded": loaded}))
"""


def test_every_reward_scores_the_same_in_another_process_without_a_trainer():
    rewards = [bind(reward, 4, (2,)) for reward in EVERY]
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=pickle.dumps((rewards, GROUP)),
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
        timeout=300,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["names"] == [reward.__name__ for reward in EVERY]
    assert found["loaded"] == []  # a reward needs neither
    for reward, values in zip(rewards, found["values"], strict=True):
        assert values == reward(**GROUP) == score(reward), reward.__name__


def test_the_logged_adherence_can_be_pickled_and_gives_the_same_values_without_a_log(byte_level):
    reward = LogsAdherence(MaxLength(alpha=0.05), 60, (byte_level.eos_token_id,), byte_level, "</think>")
    texts = ["2+2</think>\\boxed{4}", "</think>\\boxed{5}"]
    ids = [byte_level(text, add_special_tokens=False)["input_ids"] for text in texts]
    again, values = pickle.loads(pickle.dumps(reward)), []
    for one in (reward, again):
        said = [[{"role": "assistant", "content": text.replace("</think>", "")}] for text in texts]
        columns = {"solution": ["4", "4"], "budget": [30, 40], "mode": ["max", "max"]}
        values.append(one(prompts=["q"] * 2, completions=said, completion_ids=ids, **columns))
        assert [turns[0]["content"] for turns in said] == texts
    assert values[0] == values[1] and values[0][0] > values[0][1] == 0.0
    assert (again.__name__, again.needs) == (reward.__name__, reward.needs)


@pytest.fixture
def byte_level():
    from tests.test_prompts import CHAT, SPECIAL, byte_tokenizer

    return byte_tokenizer(CHAT, **SPECIAL)


WORKER = """
import json, queue, sys
from tests.vllm_stand_in import NAME, install

def main():
    install()
    from accelerate import PartialState
    from transformers import AutoTokenizer
    from trl.chat_template_utils import qwen3_template
    from trl.experimental.async_grpo.async_rollout_worker import AsyncRolloutWorker
    from rlred.data.budgets import BudgetSampler, Wording, training_rows
    from rlred.data.questions import load_questions
    from rlred.rewards import MaxLength
    from rlred.training.adherence import LogsAdherence

    PartialState()  # which accelerate's loggers ask for, and a trainer has
    model, url = sys.argv[1:]
    tokenizer = AutoTokenizer.from_pretrained(model)
    # TRL's worker refuses a chat template that it does not know, unless it is told how to read answers.
    tokenizer.response_template = {**qwen3_template, "start_anchor": "<|assistant|>"}
    questions = load_questions("sums", limit=8)
    rows = training_rows(questions, Wording(), BudgetSampler(16, 48), num_rows=8)
    reward = LogsAdherence(MaxLength(alpha=0.05), 60, (tokenizer.eos_token_id,), tokenizer, "</think>")
    worker = AsyncRolloutWorker(
        model_name=NAME, dataset=rows, reward_funcs=[reward], processing_class=tokenizer,
        eos_token_ids=[tokenizer.eos_token_id], num_generations=2, max_inflight_tasks=4, vllm_server_url=url,
        max_tokens=60, temperature=1.0, request_timeout=120,
    )
    worker.start()
    samples = []
    try:
        while len(samples) < 8:
            worker.check_health(300)
            try:
                samples.append(worker.rollout_buffer.get(timeout=1))
            except queue.Empty:
                pass
    finally:
        worker.stop()
    told = [
        {
            "ids": sample.input_ids[sample.completion_mask == 1].tolist(), "completion": sample.completion,
            "advantage": sample.advantage, "metrics": sample.metrics, "group": sample.group_id,
        }
        for sample in samples
    ]
    print(json.dumps({"samples": told, "rows": [dict(row) for row in rows]}))

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
@needs_requests
@pytest.mark.skipif(not is_aiohttp_available(), reason="TRL's rollout worker needs aiohttp, which vLLM brings")
def test_trls_rollout_worker_scores_with_our_reward_in_its_own_process(tmp_path):
    base, port, log = resolve_model("tiny_reasoner"), free_port(), tmp_path / "log.jsonl"
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    with serving(base, port, log):
        done = subprocess.run(
            [sys.executable, str(script), str(base), f"http://127.0.0.1:{port}"],
            cwd=ROOT,
            env={**environment(), "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
            stdout=subprocess.PIPE,
            timeout=900,
            check=True,
        )
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["samples"]) == 8 and {len(row["tokens"]) for row in rows_of(log)} != {60}
    for sample in found["samples"]:
        row = found["rows"][sample["group"]]
        [grade] = Correctness()([sample["completion"]], solution=[row["solution"]])
        [reward] = MaxLength(alpha=0.05)([sample["completion"]], [sample["ids"]], [row["solution"]], [row["budget"]])
        assert reward is not None and (grade or reward == 0.0)
        assert sample["metrics"]["rewards/max_length"] == pytest.approx(reward) == sample["metrics"]["reward"]

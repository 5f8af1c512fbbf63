"""Dynamic sampling: groups that teach nothing are sampled anew; the cost is counted, and a resumed run repeats it."""

import json
import logging
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from rlred.rewards import Correctness, EffortLength, KimiLength
from rlred.runs.spent import rollouts_until
from rlred.training.ddca import DDCA
from rlred.training.drpo import DRPO
from rlred.training.dynamic_sampling import DynamicSampling, without_signal
from rlred.training.early_stop import EarlyStop
from rlred.training.easy_first import EasyFirst
from rlred.training.think_or_not import ThinkOrNot
from tests.paths import ROOT
from tests.test_advantages import batch_of, first_is_even, shortness, trainer_of

NAN = math.nan


@pytest.mark.parametrize(
    "group, signal",
    [
        ([1, 1, 1], False),
        ([0, 0, 0], False),
        ([1, 0, 1], True),
        ([1, NAN, 1], False),
        ([1, NAN, 0], True),
        ([NAN, NAN, NAN], False),
        ([0.5, 0.5 + 1e-3, 0.5], True),
        ([1], False),
    ],
)
def test_a_group_has_a_signal_where_two_values_differ(group, signal):
    assert without_signal(torch.tensor([group], dtype=torch.float64)) == ([] if signal else [0])


class Counting:
    """A grade by the row's column `budget`, which is the same for all; counts its calls."""

    __name__ = "correctness"

    def __init__(self, dull):
        self.dull, self.seen = dull, []

    def __call__(self, prompts, completion_ids, **columns):
        texts = [prompt[0]["content"] for prompt in prompts]
        self.seen.append(texts[::4])
        return [1.0 if text in self.dull else float(number % 2) for number, text in enumerate(texts)]


def metrics(trainer):
    return {name: values for name, values in trainer._metrics["train"].items() if name.startswith("dynamic_sampling/")}


def test_a_group_without_a_signal_gives_way_to_another_row(random_model, tmp_path):
    reward = Counting(dull={"1+1=?"})
    trainer = trainer_of(random_model, tmp_path, [DynamicSampling()], rewards=(reward,))
    batch = batch_of(trainer)
    first, *rounds, last = reward.seen
    assert first == ["0+1=?", "1+1=?"] and last[0] == "0+1=?" and last[1] == rounds[-1][0] != "1+1=?"
    assert batch["advantages"].view(2, 4).abs().tolist() == [[0.5] * 4] * 2
    sampled = (2 + len(rounds)) / 2
    assert metrics(trainer) == {
        "dynamic_sampling/sampled": [sampled],
        "dynamic_sampling/dropped": [len(rounds) / (2 + len(rounds))],
        "dynamic_sampling/unfilled": [0.0],
    }
    # The prompt that the model is trained on, and the one that is logged, are those of the new row.
    asked = trainer._tokenizer.batch_decode(batch["prompt_ids"], skip_special_tokens=True)
    assert "1+1" not in "".join(asked) and [text[0]["content"] for text in trainer._logs["prompt"]][4:] == [last[1]] * 4


def test_a_batch_with_a_signal_is_trls_own(random_model, tmp_path):
    plain = batch_of(trainer_of(random_model, tmp_path, [], rewards=(Counting(dull=set()),)))
    trainer = trainer_of(random_model, tmp_path, [DynamicSampling()], rewards=(Counting(dull=set()),))
    batch = batch_of(trainer)
    assert torch.equal(batch["completion_ids"], plain["completion_ids"])
    assert torch.equal(batch["advantages"], plain["advantages"])
    assert metrics(trainer)["dynamic_sampling/sampled"] == [1.0]


def test_trap_where_no_row_has_a_signal_it_ends_and_says_so(random_model, tmp_path):
    dull = {f"{n}+1=?" for n in range(8)}
    trainer = trainer_of(random_model, tmp_path, [DynamicSampling(max_rounds=2)], rewards=(Counting(dull=dull),))
    batch = batch_of(trainer)
    assert batch["advantages"].abs().max() == 0
    assert [metrics(trainer)[f"dynamic_sampling/{name}"] for name in ("sampled", "dropped", "unfilled")] == [
        [3.0],
        [1.0],
        [1.0],
    ]


def test_by_reward_a_group_whose_lengths_differ_has_a_signal(random_model, tmp_path):
    told = {"rewards": (shortness, Counting(dull={"0+1=?", "1+1=?"})), "reward_weights": [1.0, 0.0]}
    for by, sampled in (("reward", 1.0), ("grade", 2.0)):
        trainer = trainer_of(random_model, tmp_path, [DynamicSampling(by=by)], **told)
        batch_of(trainer)
        [found] = metrics(trainer)["dynamic_sampling/sampled"]
        assert found == sampled if by == "reward" else found >= sampled


def test_evaluation_is_left_alone(random_model, tmp_path):
    trainer = trainer_of(random_model, tmp_path, [DynamicSampling()], rewards=(Counting(dull={"0+1=?", "1+1=?"}),))
    trainer.model.eval()
    trainer._generate_and_score_completions([trainer.train_dataset[i // 4] for i in range(8)])
    assert not metrics(trainer) and len(trainer.reward_funcs[0].seen) == 1


def test_the_rows_are_a_function_of_the_seed_and_the_step(random_model, tmp_path):
    seen = []
    for seed in (0, 0, 1):
        reward = Counting(dull={"0+1=?", "1+1=?"})
        batch_of(trainer_of(random_model, tmp_path, [DynamicSampling()], rewards=(reward,), seed=seed))
        seen.append(reward.seen)
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: DynamicSampling(by="length"), "dynamic_sampling.by must be 'grade' or 'reward', got 'length'"),
        (lambda: DynamicSampling(max_rounds=0), "dynamic_sampling.max_rounds must be a whole number, 1 or more, got 0"),
        (lambda: DynamicSampling(max_rounds=1.5), "max_rounds must be a whole number, 1 or more, got 1.5"),
    ],
)
def test_a_value_out_of_range_is_one_line(make, message):
    with pytest.raises(ValueError, match=message):
        make()


async def later(completions, **columns):
    return [0.0] * len(completions)


@pytest.mark.parametrize(
    "parts, changes, message",
    [
        ([ThinkOrNot(baseline="group")], {}, "think_or_not.forced=True"),
        ([EarlyStop()], {}, "early_stop_rollouts=True"),
        ([EasyFirst(share=0.5)], {}, "easy_first.share=0.5: dynamic_sampling draws from all rows; set it to 1"),
        (
            [],
            {"rewards": (EffortLength(of="group"),)},
            "effort_length.of='group': dynamic_sampling replaces one effort",
        ),
        ([], {"rewards": (shortness,)}, "dynamic_sampling.by='grade' needs the reward 'correctness'"),
        ([], {"rewards": (first_is_even, later)}, "later is a model or asynchronous"),
    ],
)
def test_what_cannot_be_sampled_twice_is_refused(parts, changes, message, random_model, tmp_path):
    with pytest.raises(ValueError, match=message) as raised:
        trainer_of(random_model, tmp_path, [DynamicSampling(), *parts], **changes)
    assert "\n" not in str(raised.value)


def test_trap_groups_that_straddle_processes_are_refused():
    training = SimpleNamespace(per_device_train_batch_size=2, steps_per_generation=1, num_generations=4)
    with pytest.raises(ValueError, match="needs groups of 4 whole on each process"):
        DynamicSampling().check(training, [])


@pytest.mark.parametrize(
    "by, parts, rewards, warned",
    [
        ("grade", [], (KimiLength(group_size=4), Correctness()), "kimi_length"),
        ("reward", [], (KimiLength(group_size=4), Correctness()), None),
        ("grade", [], (Correctness(),), None),
        ("grade", [DDCA()], (Correctness(),), "ddca"),
        ("grade", [DRPO()], (KimiLength(group_size=4), Correctness()), None),
    ],
)
def test_trap_by_grade_the_groups_that_teach_length_are_dropped(
    by, parts, rewards, warned, random_model, tmp_path, caplog
):
    weights = [1.0, 0.0][: len(rewards)]
    with caplog.at_level(logging.WARNING):
        trainer_of(random_model, tmp_path, [DynamicSampling(by), *parts], rewards=rewards, reward_weights=weights)
    said = [record.getMessage() for record in caplog.records if "dynamic_sampling" in record.getMessage()]
    assert len(said) == (warned is not None) and all(warned in line for line in said)


def test_the_cost_of_a_run_counts_what_was_dropped():
    history = [{"step": 5, "loss": 0.0, "dynamic_sampling/sampled": 2.0}, {"step": 10, "loss": 0.0}, {"step": 10}]
    args = SimpleNamespace(
        steps_per_generation=1, num_iterations=1, generation_batch_size=8, gradient_accumulation_steps=1
    )
    trainer = SimpleNamespace(args=args, state=SimpleNamespace(log_history=history))
    assert rollouts_until(trainer, 10) == 8 * (5 * 2 + 5) and rollouts_until(trainer, 12) == 8 * (5 * 2 + 7)
    assert rollouts_until(trainer, 5) == 80


class Odd:
    """A grade that depends on what was sampled; most groups of three hard questions in four have no signal."""

    __name__ = "correctness"

    def __call__(self, prompts, completion_ids, **columns):
        asked = [int(prompt[0]["content"][0]) for prompt in prompts]
        return [float(n % 4 == 0 and ids[0] % 2) for n, ids in zip(asked, completion_ids, strict=True)]


def test_a_resumed_run_is_the_same_to_the_bit(random_model, tmp_path):
    found, told = [], {"max_steps": 3, "save_strategy": "steps", "save_steps": 1, "rewards": (Odd(),)}
    for resumed in (None, str(tmp_path / "checkpoint-1")):
        trainer = trainer_of(random_model, tmp_path, [DynamicSampling()], **told)
        trainer.train(resume_from_checkpoint=resumed)
        sampled = [entry.get("dynamic_sampling/sampled") for entry in trainer.state.log_history][:3]
        found.append((sampled, {name: value.clone() for name, value in trainer.model.named_parameters()}))
    (sampled, one), (again, two) = found
    assert sampled == again and sampled[1] > 1 and all(torch.equal(one[name], two[name]) for name in one)


SMALL = "--num_questions 16 --per_device_train_batch_size 8 --num_generations 4 --max_steps 1 --logging_steps 1"
SMALL += " --lora_r 4 --evaluate false --hindsight false --save_strategy no"


@pytest.mark.slow
def test_two_processes_fill_their_groups(tmp_path):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/ddp_cpu.yaml"]
    command += ["recipes/shorter_better.py", *SMALL.split(), "--max_steps", "2"]
    command += ["--parts", '{"dynamic_sampling": {}}', "--output_dir", str(tmp_path / "run")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    log = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    steps = [entry for entry in log if "loss" in entry]
    assert max(entry["dynamic_sampling/sampled"] for entry in steps) > 1  # a step may have no group to drop
    assert all(entry["dynamic_sampling/unfilled"] == 0 == entry["frac_reward_zero_std"] for entry in steps)

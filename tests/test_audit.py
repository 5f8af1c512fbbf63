"""The audit: each trap of the field is seen before the first step, and a sound configuration is left in peace."""

import logging

import pytest
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig

from rlred.checks.audit import audit_config, audit_epochs, audit_rewards, audit_rows, enforce
from rlred.checks.audit_room import audit_room
from rlred.data.budgets import BudgetSampler, Wording, training_rows
from rlred.rewards import ByMode, Correctness, ExactLength, Laconic, Lead, Length, MaxLength

SOUND = {
    "per_device_train_batch_size": 8,
    "num_generations": 8,
    "max_completion_length": 80,
    "scale_rewards": "none",
    "shuffle_dataset": False,
    "learning_rate": 1e-3,
    "max_steps": 100,
    "use_cpu": True,
    "bf16": False,
    "report_to": "none",
}
EXACT, MAXIMUM = BudgetSampler(16, 64), BudgetSampler(16, 64, modes={"max": 1})


def findings(tmp_path, sampler=EXACT, reward=None, hindsight=True, use_peft=True, **changes):
    training = GRPOConfig(str(tmp_path), **{**SOUND, **changes})
    reward = reward or (ExactLength(alpha=0.05) if sampler is EXACT else MaxLength(alpha=0.05))
    return [
        (finding.level, finding.field)
        for finding in audit_config(training, sampler, [reward], hindsight=hindsight, use_peft=use_peft)
    ]


def test_a_sound_configuration_has_no_findings(tmp_path):
    assert findings(tmp_path) == []
    assert findings(tmp_path, MAXIMUM) == []
    assert findings(tmp_path, reward=ByMode(exact=ExactLength(alpha=0.05), max=MaxLength(alpha=0.05))) == []


def test_an_overrun_may_cost_as_much_as_a_correct_answer(tmp_path):
    assert findings(tmp_path, MAXIMUM, MaxLength(alpha=0.05, over_penalty=1.0)) == []


def by_length(completions, **kwargs): ...


@pytest.mark.parametrize(
    "rewards, weights, said",
    [
        ([Correctness()], None, False),
        ([Laconic(budget=32, ceiling=0.0)], None, False),  # its term of length is multiplied by 0
        ([MaxLength(alpha=0.05), Correctness()], [0.0, 1.0], False),  # a length that is logged alone
        ([MaxLength(alpha=0.05), Correctness()], [1.0, 0.0], True),
        ([ByMode(free=Laconic(budget=32)), Correctness()], None, True),
        ([by_length], None, True),  # of a function of one's own nothing is known
    ],
)
def test_the_std_of_a_group_is_a_trap_where_there_is_a_term_of_length(rewards, weights, said, tmp_path):
    free = BudgetSampler(16, 64, modes={"free": 1})
    training = GRPOConfig(str(tmp_path), **{**SOUND, "scale_rewards": "group", "reward_weights": weights})
    found = [one.field for one in audit_config(training, free, rewards, hindsight=False, use_peft=True)]
    assert ("scale_rewards" in found) == said


@pytest.mark.parametrize(
    "changes, rows, hindsight, sampler, said",
    [
        ({"max_steps": -1}, 1000, False, EXACT, True),
        ({"max_steps": -1}, 25_000, False, EXACT, False),  # 8 rollouts of each
        ({"max_steps": -1}, 1000, True, EXACT, False),
        ({"max_steps": -1}, 1000, False, BudgetSampler(16, 64, modes={"free": 1}), False),
        ({"max_steps": 100}, 1000, False, EXACT, False),  # audit_config has said it
    ],
)
def test_rl_without_a_start_is_said_of_runs_by_epochs(changes, rows, hindsight, sampler, said, tmp_path):
    training = GRPOConfig(str(tmp_path), **{**SOUND, **changes})
    found = list(audit_epochs(training, sampler, hindsight, rows))
    assert [(one.level, one.field) for one in found] == [("warning", "hindsight")] * said
    assert not said or found[0].advice.startswith("8,000 rollouts")


@pytest.mark.parametrize(
    "changes, context, cap, expected",
    [
        ({}, 200, 190, [("warning", "eval_budgets")]),  # transformers writes on without sense
        ({}, 200, 180, []),
        ({}, None, 10**6, []),
        ({}, 90, 80, []),  # the cap of the run itself is said by audit_rows
        ({"vllm_max_model_length": 64}, 200, 100, []),  # without vLLM nobody reads it
        ({"use_vllm": True}, 200, 190, [("error", "eval_budgets")]),
        ({"use_vllm": True, "vllm_max_model_length": 119}, 200, 100, [("error", "vllm_max_model_length")]),
        ({"use_vllm": True, "vllm_max_model_length": 120}, 200, 100, []),
        ({"use_vllm": True, "vllm_max_model_length": 99}, 200, 0, [("error", "vllm_max_model_length")]),
        ({"use_vllm": True, "vllm_mode": "server", "vllm_max_model_length": 99}, 200, 100, []),
    ],
)
def test_trap_a_sweep_without_room(changes, context, cap, expected, tmp_path):
    training = GRPOConfig(str(tmp_path), **{**SOUND, "vllm_mode": "colocate", **changes})
    found = list(audit_room(20, context, training, cap, [95]))
    assert [(one.level, one.field) for one in found] == expected


class NeedsGroups:
    group_relative = True
    __name__ = "needs_groups"


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"scale_rewards": "group"}, ("warning", "scale_rewards")),
        ({"reward": MaxLength(alpha=0.05, over_penalty=1.5), "sampler": MAXIMUM}, ("warning", "reward.over_penalty")),
        ({"mask_truncated_completions": True}, ("error", "mask_truncated_completions")),
        ({"max_completion_length": 65}, ("error", "max_completion_length")),
        ({"shuffle_dataset": True}, ("error", "shuffle_dataset")),
        ({"temperature": 0.0}, ("error", "temperature")),
        ({"learning_rate": 1e-6}, ("warning", "learning_rate")),
        ({"hindsight": False}, ("warning", "hindsight")),
        ({"use_peft": False}, ("error", "use_peft")),
        ({"reward": ExactLength()}, ("warning", "reward.alpha")),
        ({"reward": MaxLength(alpha=0.05)}, ("error", "reward")),
        ({"reward": ExactLength(alpha=0.05), "sampler": MAXIMUM}, ("error", "reward")),
        ({"reward": MaxLength(alpha=1e-3), "sampler": MAXIMUM}, ("warning", "reward.alpha")),
        ({"reward": ExactLength(alpha=0.05, length=Length("thinking", 5))}, ("warning", "reward.length.count")),
    ],
)
def test_trap(tmp_path, changes, expected):
    found = findings(tmp_path, **changes)
    assert found == [expected]


def test_trap_groups_that_straddle_processes(tmp_path):
    training = GRPOConfig(str(tmp_path), **SOUND)
    training.per_device_train_batch_size = 4  # as on each of two processes that share a group of eight
    [finding] = audit_config(training, EXACT, [NeedsGroups()], hindsight=True, use_peft=True)
    assert finding.level == "error" and "straddle" in finding.advice


def test_enforce_raises_every_error_and_logs_every_warning(tmp_path, caplog):
    unsound = {"scale_rewards": "group", "temperature": 0.0, "shuffle_dataset": True}
    training = GRPOConfig(str(tmp_path), **{**SOUND, **unsound})
    with caplog.at_level(logging.WARNING), pytest.raises(ValueError) as raised:
        enforce(audit_config(training, EXACT, [ExactLength(alpha=0.05)], hindsight=True, use_peft=True))
    assert len(str(raised.value).splitlines()) == 2
    assert "scale_rewards='group'" in caplog.text


@pytest.fixture
def asked(random_model, tmp_path):
    questions = Dataset.from_list([{"question_id": i, "question": f"{i}+1=?", "solution": "1"} for i in range(8)])
    return {
        "rows": training_rows(questions, Wording(), EXACT, num_rows=16),
        "tokenizer": AutoTokenizer.from_pretrained(random_model),
        "model": AutoModelForCausalLM.from_pretrained(random_model),
        "rewards": [ExactLength(alpha=0.05)],
        "sampler": EXACT,
        "training": GRPOConfig(str(tmp_path), **SOUND),
    }


def fields_of(asked):
    return [finding.field for finding in audit_rows(**asked)]


def test_sound_rows_have_no_findings(asked):
    assert fields_of(asked) == []


def test_trap_a_missing_column(asked):
    asked["rows"] = asked["rows"].remove_columns("mode")
    assert fields_of(asked) == ["rows"]


def test_trap_a_template_that_edits_the_turn(asked):
    asked["tokenizer"].chat_template = "{{ messages[0]['content'][:20] }}"
    assert fields_of(asked) == ["chat_template"]


def test_trap_no_chat_template(asked):
    asked["tokenizer"].chat_template = None
    assert fields_of(asked) == ["model_name_or_path"]


def test_trap_a_context_that_is_too_short(asked):
    asked["model"].config.max_position_embeddings = 90
    assert fields_of(asked) == ["max_completion_length"]


def test_trap_a_thinking_token_that_does_not_exist(asked):
    asked["rewards"] = [ExactLength(alpha=0.05, length=Length("thinking", 10**6))]
    assert fields_of(asked) == ["reward.length.end_of_thinking"]


def test_trap_deepspeed_that_use_cpu_leaves_out_is_refused(tmp_path, monkeypatch):
    training = GRPOConfig(str(tmp_path), **SOUND)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    found = list(audit_config(training, EXACT, [ExactLength(alpha=0.05)], hindsight=True, use_peft=True))
    assert [(finding.level, finding.field) for finding in found] == [("error", "use_cpu")]


@pytest.mark.parametrize("reward", [Laconic(budget=32), ByMode(exact=Lead())])
@pytest.mark.parametrize(
    "changes, refused", [({}, False), ({"num_iterations": 2}, True), ({"steps_per_generation": 4}, True)]
)
def test_trap_a_controller_takes_the_steps_on_one_batch_for_batches(reward, changes, refused, tmp_path):
    training = GRPOConfig(str(tmp_path), **{**SOUND, **changes})
    found = [finding for finding in audit_rewards(training, [reward], ["exact"]) if finding.field == "num_iterations"]
    assert [finding.level for finding in found] == ["error"] * refused


@pytest.mark.parametrize("budgets, found", [([], []), ([16, 64], []), ([8, 32, 100], [("warning", "eval_budgets")])])
def test_a_sweep_beyond_the_trained_range_is_said(budgets, found, tmp_path):
    training = GRPOConfig(str(tmp_path), **SOUND)
    told = {"hindsight": True, "use_peft": True, "eval_budgets": budgets}
    assert [(one.level, one.field) for one in audit_config(training, EXACT, [ExactLength(alpha=0.05)], **told)] == found


def test_trap_rows_that_ask_for_a_length_that_nothing_rewards(tmp_path):
    assert findings(tmp_path, reward=Correctness()) == [("warning", "reward")]
    assert findings(tmp_path, sampler=MAXIMUM, reward=ByMode(max=Correctness())) == [("warning", "reward")]
    free = BudgetSampler(16, 64, modes={"free": 1})
    assert ("warning", "reward") not in findings(tmp_path, sampler=free, reward=Correctness())
    found = audit_config(GRPOConfig(str(tmp_path), **SOUND), EXACT, [evenness], hindsight=True, use_peft=True)
    assert list(found) == []  # of a function of one's own nothing is known


def evenness(completions, **kwargs):
    return [0.0] * len(completions)

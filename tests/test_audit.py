"""The audit: each trap of the field is seen before the first step, and a sound configuration is left in peace."""

import logging

import pytest
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig

from rlred.checks.audit import audit_config, audit_rewards, audit_rows, enforce
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


class NeedsGroups:
    group_relative = True
    __name__ = "needs_groups"


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"scale_rewards": "group"}, ("warning", "scale_rewards")),
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

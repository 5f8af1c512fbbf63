"""A run that is left alone: it says when it has collapsed, keeps its best adapter, and stops when the dial is there."""

import json
import logging
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback, TrainerControl, TrainerState

from rlred.training.callbacks import (
    CORRELATION,
    CollapseAlarm,
    KeepBest,
    SkipBadUpdates,
    StopWhenObeyed,
    signs_of_collapse,
)
from tests.pairwise import trainer_of_job
from tests.test_recipes import arguments, run

HEALTHY = {
    "entropy": 0.07,
    "adherence/length_std": 14.0,
    "completions/mean_length": 41.0,
    "frac_reward_zero_std": 0.15,
    "completions/clipped_ratio": 0.0,
}


@pytest.mark.parametrize(
    "name, value",
    [
        ("entropy", 0.002),
        ("entropy", 0.0),
        ("adherence/length_std", 0.5),
        ("frac_reward_zero_std", 1.0),
        ("completions/clipped_ratio", 1.0),
    ],
)
def test_each_sign_of_collapse_is_warned_of_once_until_it_has_gone(name, value, caplog):
    alarm, state = CollapseAlarm(), SimpleNamespace(global_step=7)
    with caplog.at_level(logging.WARNING):
        sick = {**HEALTHY, name: value}
        for logs in (HEALTHY, sick, sick, HEALTHY, sick, sick, sick, sick, HEALTHY, sick, sick, sick):
            alarm.on_log(None, state, None, logs=logs)
    assert [record.getMessage().split(":")[1].strip().split("=")[0] for record in caplog.records] == [name, name]
    assert signs_of_collapse(HEALTHY) == signs_of_collapse({}) == {}


def test_a_run_that_has_collapsed_says_so(tmp_path, caplog):
    # Budgets that no rollout can keep, and no other reward: every completion earns 0.
    flags = {
        "budget_low": 1,
        "budget_high": 2,
        "modes": '{"max":1}',
        "hindsight": False,
        "evaluate": False,
        "max_steps": 4,
    }
    with caplog.at_level(logging.WARNING, logger="rlred"):
        run(*arguments("l1_maxlen", "tiny_reasoner", output_dir=tmp_path / "run", **flags), tmp_path)
    [warning] = [record.getMessage() for record in caplog.records if "collapse" in record.getMessage()]
    assert "collapse at step 3: frac_reward_zero_std=1: all completions of each group earn the same" in warning


@pytest.mark.parametrize(
    "correlations, stops", [([0.2, 0.9, 0.95, 0.92], True), ([0.9, 0.95, 0.5, 0.95], False), ([0.95, 0.95], False)]
)
def test_training_ends_when_the_dial_is_there(correlations, stops):
    control, state = TrainerControl(), TrainerState()
    state.log_history = [{"step": step, CORRELATION: value} for step, value in enumerate(correlations)]
    StopWhenObeyed(0.9).on_log(None, state, control)
    assert control.should_training_stop is control.should_save is stops


def test_a_recipe_can_be_asked_to_stop_there(tmp_path, monkeypatch):
    monkeypatch.setattr("rlred.training.adherence.step_metrics", lambda outcomes: {CORRELATION: 0.95})
    flags = {"hindsight": False, "evaluate": False, "max_steps": 6, "save_steps": 100, "stop_at_correlation": 0.9}
    run(*arguments("l1_exact", "tiny_reasoner", output_dir=tmp_path, **flags), tmp_path)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]
    assert (tmp_path / "adapter_model.safetensors").exists()


def test_the_best_adapter_is_kept_beside_the_last(tmp_path):
    flags = {"hindsight": False, "evaluate": False, "max_steps": 6, "save_steps": 1, "save_total_limit": 1}
    run(*arguments("l1_exact", "tiny_reasoner", output_dir=tmp_path, learning_rate=0.05, **flags), tmp_path)
    history = json.loads((tmp_path / "trainer_state.json").read_text())["log_history"]
    rewards = {entry["step"]: entry["reward"] for entry in history if "reward" in entry}
    best = json.loads((tmp_path / "best" / "best.json").read_text())
    assert best == {"step": max(rewards, key=rewards.get), "reward": max(rewards.values())}
    adapters = [load_file(folder / "adapter_model.safetensors") for folder in (tmp_path, tmp_path / "best")]
    same = all(torch.equal(adapters[0][name], adapters[1][name]) for name in adapters[0])
    assert same is (best["step"] == 6)
    assert not (tmp_path / "best" / "optimizer.pt").exists() and not list(tmp_path.glob(".best*"))


def test_a_worse_checkpoint_does_not_replace_the_best(tmp_path):
    keep, args, state = KeepBest(tmp_path / "best"), SimpleNamespace(output_dir=tmp_path), TrainerState(save_steps=1)
    for step, reward in enumerate([0.1, 0.7, 0.4], start=1):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "adapter_model.safetensors").write_text(str(reward))
        state.global_step = step
        state.log_history.append({"step": step, "reward": reward})
        keep.on_save(args, state, None)
    assert (tmp_path / "best" / "adapter_model.safetensors").read_text() == "0.7"


def test_the_last_save_counts_the_steps_since_the_one_before(tmp_path):
    keep, args, state = KeepBest(tmp_path / "best"), SimpleNamespace(output_dir=tmp_path), TrainerState(save_steps=10)
    log = [{"step": step, "reward": 0.9 if step <= 30 else 0.1} for step in range(1, 34)]
    state.global_step = 20
    keep.on_train_begin(args, state, None)  # resumed
    for step in (30, 33):
        (tmp_path / f"checkpoint-{step}").mkdir()
        state.global_step, state.log_history = step, log[:step]
        keep.on_save(args, state, None)
        best = json.loads((tmp_path / "best" / "best.json").read_text())
        assert best["step"] == 30 and best["reward"] == pytest.approx(0.9)


@pytest.mark.parametrize("bad, survives", [({2}, True), ({1, 2, 3}, False)])
def test_an_update_without_a_finite_gradient_is_left_out_and_said(bad, survives, tmp_path, caplog):
    class Poison(TrainerCallback):
        """Makes one weight's gradient nan, as one row of a batch can."""

        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            if state.global_step + 1 in bad:
                next(p for p in model.parameters() if p.grad is not None).grad.view(-1)[0] = float("nan")

    words = ["--max_steps", "4", "--per_device_train_batch_size", "8", "--num_generations", "4", "--lora_r", "4"]
    trainer = trainer_of_job([*words, "--output_dir", str(tmp_path)], callbacks=[Poison(), SkipBadUpdates(patience=3)])
    with caplog.at_level(logging.WARNING, logger="rlred"):
        if not survives:
            with pytest.raises(ValueError, match="not finite in 3 updates running, the last of them update 3; lower"):
                trainer.train()
            return
        trainer.train()
    assert [record.getMessage() for record in caplog.records if "not finite" in record.getMessage()] == [
        "update 2: the gradient is not finite; the update is left out"
    ]
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    assert all(torch.isfinite(parameter).all() for parameter in trained)
    assert any(parameter.abs().max() > 0 for name, parameter in trainer.model.named_parameters() if "lora_B" in name)

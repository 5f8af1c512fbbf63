"""A start that is repeated with other settings begins anew; one with the same settings goes on. Nothing is deleted."""

import dataclasses
import json

import pytest

from rlred.data.budgets import BudgetSampler
from rlred.evaluation.sampling import Sampling
from rlred.training.earlier_start import asked_for, defaults, move_aside
from rlred.training.hindsight import advice
from rlred.training.hindsight_settings import Hindsight

SETTINGS = Hindsight(learning_rate=1e-3, max_updates=40, batch_size=16, sources={"brief": 8})
FILES = ("adapter/weights", "checkpoint-40/trainer_state.json", "range_test.json", "traces.jsonl", "traces-brief.jsonl")
TRACES = {"traces.jsonl", "traces-brief.jsonl"}


BUDGETS = BudgetSampler(16, 64)


def left_after(output, changes=(), sampler=BUDGETS, cap=90):
    """What a start of `changes` finds of one of SETTINGS; every file is somewhere."""
    move_aside(output, asked_for(SETTINGS, BUDGETS, Sampling(90)))
    for name in FILES:
        (output / name).parent.mkdir(exist_ok=True)
        (output / name).write_text(name)
    settings = dataclasses.replace(SETTINGS, **dict(changes))
    move_aside(output, asked_for(settings, sampler, Sampling(cap)))
    kept = {name for name in FILES if (output / name).exists()}
    moved = {name for name in FILES if (output / "earlier-1" / name).exists()}
    assert kept | moved == set(FILES) and not kept & moved
    return kept


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 2e-4},
        {"learning_rate": None},
        {"max_updates": 80},
        {"batch_size": 8},
        {"num_samples": 4096},
        {"modes": {"max": 1}},
        {"train_answer": True},
    ],
)
def test_trap_a_finished_checkpoint_of_other_settings_is_not_gone_on_with(changes, tmp_path, caplog):
    assert left_after(tmp_path, changes) == TRACES
    [told] = caplog.messages
    assert f"begins anew, for {next(iter(changes))} changed" in told


@pytest.mark.parametrize(
    "changes",
    [{}, {"micro_batch_size": 2}, {"required_correlation": 0.5}, {"probe_every": 7}, {"target_correlation": 0.8}],
)
def test_a_start_of_the_same_settings_goes_on(changes, tmp_path, caplog):
    assert left_after(tmp_path, changes) == set(FILES) and not caplog.messages


@pytest.mark.parametrize(
    "changed",
    [
        {"changes": {"sources": {}}},  # without sources, the model is asked for budgets
        {"changes": {"answer_cue": ""}},
        {"sampler": BudgetSampler(16, 80)},
        {"cap": 120},
    ],
)
def test_traces_that_were_asked_for_otherwise_go_too(changed, tmp_path):
    assert left_after(tmp_path, **changed) == set()


def test_each_start_gets_a_folder_of_its_own(tmp_path):
    for number, rate in enumerate((1e-3, 2e-3, 3e-3)):
        settings = dataclasses.replace(SETTINGS, learning_rate=rate)
        move_aside(tmp_path, asked_for(settings, BUDGETS, Sampling(90)))
        (tmp_path / f"checkpoint-{number}").mkdir()
    assert (tmp_path / "earlier-1" / "checkpoint-0").is_dir() and (tmp_path / "earlier-2" / "checkpoint-1").is_dir()


def test_a_start_of_an_older_version_goes_on(tmp_path):
    (tmp_path / "checkpoint-40").mkdir()
    move_aside(tmp_path, asked_for(SETTINGS, BUDGETS, Sampling(90)))
    assert (tmp_path / "checkpoint-40").is_dir() and (tmp_path / "asked.json").exists()


@pytest.mark.parametrize("name", sorted(defaults()))
def test_a_setting_that_an_older_version_did_not_have_was_at_its_default(tmp_path, name):
    asked = asked_for(Hindsight(), BUDGETS, Sampling(90))
    (tmp_path / "asked.json").write_text(json.dumps({key: value for key, value in asked.items() if key != name}))
    (tmp_path / "checkpoint-40").mkdir()
    move_aside(tmp_path, asked)
    assert (tmp_path / "checkpoint-40").is_dir()
    assert json.loads((tmp_path / "asked.json").read_text()) == asked
    move_aside(tmp_path, {**asked, name: "another"})
    assert (tmp_path / "earlier-1" / "checkpoint-40").is_dir()


def test_a_loss_that_was_not_logged_did_not_rise():
    assert "no loss was logged" in advice([0.0, 0.02], [], Hindsight())
    assert "raise max_updates" in advice([0.2, 0.3], [], Hindsight())
    assert "the loss rose from 1.000 to 2.000" in advice([0.0, 0.02], [1.0, 2.0], Hindsight())
    assert "the loss rose from 1.000 to nan" in advice([0.0, 0.02], [1.0, float("nan")], Hindsight())

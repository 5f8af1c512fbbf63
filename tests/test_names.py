"""An old name that somebody writes is refused with the one of today; an old record is read by it."""

import dataclasses
import json
from pathlib import Path

import pytest

from rlred.cli import find
from rlred.data.budgets import Wording
from rlred.evaluation.evaluate import prompts_of
from rlred.evaluation.measures import measure
from rlred.evaluation.predictions import load_predictions
from rlred.evaluation.results import read_result, to_markdown
from rlred.evaluation.settings import Evaluation
from rlred.files import read_record, write_json
from rlred.flags import parse as parse_flags
from rlred.names import HEADS, MODELS, MODES, SETTINGS, in_todays_names
from rlred.rewards import REWARDS, ByMode, base, make_reward
from rlred.runs.arguments import KINDS, SFT_KINDS, LengthControlArguments, parse, read_config
from rlred.runs.upft import UpftArguments
from rlred.runs.visual import VisionArguments
from rlred.tiny import resolve_model
from rlred.training.hindsight_settings import Hindsight


@pytest.mark.parametrize("old", SETTINGS)
def test_an_old_setting_in_a_yaml_is_one_line_with_the_new_name(old, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(f"max_steps: 1\n{old}: 1\n")
    with pytest.raises(ValueError) as raised:
        read_config(path)
    assert str(raised.value) == f"{path}: {old!r} is now called {SETTINGS[old]!r}"


@pytest.mark.parametrize("old", SETTINGS)
def test_an_old_setting_in_a_record_is_read_as_the_new_one(old):
    assert in_todays_names({"arguments": {old: [1], "seed": 0}}) == {"arguments": {SETTINGS[old]: [1], "seed": 0}}
    assert in_todays_names(today := {SETTINGS[old]: None}) == today


def sees(flag):
    return parse(Path("none.yaml"), [flag, "a", "--use_cpu", "true"], (VisionArguments, *KINDS[1:]))


def compared(flag):
    return parse(Path("none.yaml"), [flag, "full", "--use_cpu", "true"], (UpftArguments, *SFT_KINDS))


TRAINS, MEASURES, COMPARES = ("high_beta", "stop_decided", "eval_row_cap"), ("row_cap",), ("arms",)
FLAGS = {  # the command line that knows the new name
    **dict.fromkeys(TRAINS, lambda flag: parse(Path("none.yaml"), [flag, "1", "--use_cpu", "true"])),
    **dict.fromkeys(MEASURES, lambda flag: parse_flags(Evaluation, ["--budgets", "8", flag, "2"], "rlred evaluate")),
    **dict.fromkeys(COMPARES, compared),
    "never": sees,
    "looks": lambda flag: parse(Path("none.yaml"), [flag, "{}", "--use_cpu", "true"], (VisionArguments, *KINDS[1:])),
}


@pytest.mark.parametrize("old", FLAGS)
@pytest.mark.parametrize("spelling", [str, lambda name: name.replace("_", "-")])
def test_an_old_flag_is_one_line_with_the_new_one(old, spelling, tmp_path):
    flag = f"--{spelling(old)}"
    with pytest.raises(ValueError) as raised:
        FLAGS[old](flag)
    assert str(raised.value) == f"{flag} is now called --{SETTINGS[old]}"


def test_no_old_name_is_one_of_today():
    kinds = [*KINDS, Evaluation, Hindsight]
    today = {item.name for kind in kinds for item in dataclasses.fields(kind)}
    assert not set(SETTINGS) & (today | set(SETTINGS.values())) and "max_steps" in today


@pytest.mark.parametrize("name, kind, old", [("hindsight_settings", Hindsight, "only_right")])
def test_an_old_setting_inside_a_mapping_is_refused_likewise(name, kind, old):
    assert SETTINGS[old] in {item.name for item in dataclasses.fields(kind)}
    with pytest.raises(ValueError) as raised:
        LengthControlArguments(**{name: {old: True}})
    assert str(raised.value) == f"{name}: {old!r} is now called {SETTINGS[old]!r}"


STRICT = {"name": "correctness"}


def evaluated(mode):
    return parse_flags(Evaluation, ["--modes", mode, "--max_completion_length", "9"], "rlred evaluate")


REFUSALS = {  # where a mode is named -> how its refusal begins
    "a YAML's modes": ("modes: ", lambda mode: LengthControlArguments(modes={mode: 1})),
    "a YAML's eval_modes": ("eval_modes: ", lambda mode: LengthControlArguments(eval_modes=[mode])),
    "templates": ("wording: ", lambda mode: LengthControlArguments(wording={mode: "{question}"})),
    "by_mode's parts": (
        "reward: by_mode: ",
        lambda mode: make_reward({"name": "by_mode", mode: STRICT}),
    ),
    "by_mode's rows": ("mode: ", lambda mode: ByMode()(["4"], [[1]], [mode], solution=["4"], budget=[None])),
    "a prompt": ("mode: ", lambda mode: Wording().ask("1+1?", None, mode)),
    "a flag": ("--modes: ", evaluated),
}


@pytest.mark.parametrize("old", MODES)
@pytest.mark.parametrize("place", REFUSALS)
def test_an_old_mode_is_one_line_with_the_new_one_and_the_new_one_goes_through(place, old):
    begins, use = REFUSALS[place]
    with pytest.raises(ValueError) as raised:
        use(old)
    assert str(raised.value) == f"{begins}{old!r} is now called {MODES[old]!r}"
    use(MODES[old])


def test_the_rewards_know_the_same_old_modes_though_they_import_nothing_of_rlred():
    assert base.OLD_MODES == MODES


OLD_REPORT = {
    "model": "m", "adapter": "a", "seed": 0, "n_questions": 1,
    "trained": measure([
        {"question_id": 0, "level": None, "mode": "none", "budget": None, "length": 9, "thinking_length": None,
         "correct": 1.0, "truncated": False},
    ]),
}  # fmt: skip


def test_an_old_report_and_an_old_run_are_read(tmp_path):
    assert set(OLD_REPORT["trained"]["overall"]) == {"none"}  # as it was written
    write_json(tmp_path / "adherence.json", OLD_REPORT)
    told = {"modes": {"none": 1, "max": 0}, "wording": {"none": "{question}!"}, "high_beta": 0.01, "eval_row_cap": None}
    write_json(tmp_path / "run.json", {"arguments": told, "training": {"scale_rewards": "none"}})
    result, run = read_result(tmp_path), read_record(tmp_path / "run.json")
    assert "| free | 9.0 |" in to_markdown(result) and set(result.blocks["trained"]["overall"]) == {"free"}
    assert prompts_of(tmp_path).wording == Wording(free="{question}!")
    assert run["arguments"]["modes"] == {"free": 1, "max": 0} and run["arguments"]["beta_solved"] == 0.01
    assert run["training"] == {"scale_rewards": "none"}


def test_predictions_that_name_an_old_mode_are_read(tmp_path):
    row = {"question": "1+1?", "completion": "\\boxed{2}", "answer": "2", "length": 9, "mode": "none"}
    (tmp_path / "old.jsonl").write_text(json.dumps(row) + "\n")
    assert [outcome["mode"] for outcome in load_predictions(tmp_path / "old.jsonl")[0]] == ["free"]


@pytest.mark.parametrize("old", MODELS)
@pytest.mark.parametrize("place", ["", "data/"])
def test_an_old_embedded_model_is_one_line_with_the_new_one(old, place, tmp_path, monkeypatch):
    for use, begins in (
        (lambda: resolve_model(place + old), "model_name_or_path"),
        (lambda: find(["make", old]), "make"),
    ):
        with pytest.raises(ValueError) as raised:
            use()
        assert str(raised.value) == f"{begins}: {old!r} is now called {MODELS[old]!r}"
    (tmp_path / place / old).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve_model(place + old) == place + old  # a folder of one's own may be called so


@pytest.mark.parametrize("old", HEADS)
def test_an_old_head_is_one_line_with_the_new_one(old):
    with pytest.raises(ValueError) as raised:
        LengthControlArguments(selection={"head": old})
    assert str(raised.value) == f"selection.head: {old!r} is now called {HEADS[old]!r}"
    LengthControlArguments(selection={"head": HEADS[old]})


@pytest.mark.parametrize("old", base.OLD_PARAMETERS)
def test_an_old_parameter_of_a_reward_is_one_line_with_the_new_one(old):
    new = base.OLD_PARAMETERS[old]
    having = [name for name, kind in REWARDS.items() if new in {item.name for item in dataclasses.fields(kind)}]
    assert having
    for name in having:
        with pytest.raises(ValueError) as raised:
            make_reward({"name": name, old: 1.0})
        assert str(raised.value) == f"reward: {name}: {old!r} is now called {new!r}"


def test_no_reward_has_a_parameter_of_an_old_name():
    assert not [
        kind for kind in REWARDS.values() if {f.name for f in dataclasses.fields(kind)} & {*base.OLD_PARAMETERS}
    ]

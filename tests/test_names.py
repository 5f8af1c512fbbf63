"""An old name that somebody writes is refused with the one of today; an old record is read by it."""

import dataclasses
from pathlib import Path

import pytest

from rlred.evaluation.settings import Evaluation
from rlred.flags import parse as parse_flags
from rlred.names import SETTINGS, in_todays_names
from rlred.runs.arguments import KINDS, SFT_KINDS, DialArguments, parse, read_config
from rlred.runs.upft import UpftArguments
from rlred.training.hindsight import Hindsight


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


TRAINS, MEASURES, COMPARES = ("high_beta", "stop_decided", "eval_row_cap"), ("row_cap",), ("arms",)
FLAGS = {  # the command line that knows the new name
    **dict.fromkeys(TRAINS, lambda flag: parse(Path("none.yaml"), [flag, "1", "--use_cpu", "true"])),
    **dict.fromkeys(MEASURES, lambda flag: parse_flags(Evaluation, ["--budgets", "8", flag, "2"], "rlred evaluate")),
    **dict.fromkeys(COMPARES, lambda flag: parse(Path("none.yaml"), [flag, "full"], (UpftArguments, *SFT_KINDS))),
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
        DialArguments(**{name: {old: True}})
    assert str(raised.value) == f"{name}: {old!r} is now called {SETTINGS[old]!r}"

"""`rlred doctor`: what is here, and the traps that stop a run or make it another one without a word."""

import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import rlred as package
from rlred.checks import doctor
from rlred.cli import main as rlred
from tests.paths import ROOT


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A machine without traps."""
    for name in ("TORCH_EXTENSIONS_DIR", "XDG_CACHE_HOME", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_CPU"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "LEAST_FREE", 0)
    return tmp_path


def test_version(capsys):
    assert rlred(["--version"]) == 0 and capsys.readouterr().out == f"rlred {package.__version__}\n"


def test_a_sound_machine(home, capsys):
    assert rlred(["doctor"]) == 0
    told = capsys.readouterr().out
    for part in ("rlred 0.", "  trl 1.", "extra vllm: ", "extra deepspeed: ", "cores ", "no problem found"):
        assert part in told


@pytest.mark.parametrize("place", [".cache/torch_extensions/py311_cpu", "own"])
def test_trap_the_lock_of_a_killed_build_is_found(home, place, monkeypatch, capsys):
    if place == "own":
        monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(home / "own"))
    folder = home / place / "deepspeed_shm_comm"
    folder.mkdir(parents=True)
    (folder / "build.ninja").write_text("")  # what a finished build leaves, too
    assert doctor.stale_locks() == []
    (folder / "lock").write_text("")
    assert rlred(["doctor", "--traps_only"]) == 1
    assert f"problem: {folder / 'lock'}: a lock of DeepSpeed's build" in capsys.readouterr().out


@pytest.mark.parametrize(
    "settings, found",
    [
        ({"distributed_type": "DEEPSPEED", "use_cpu": True}, True),
        ({"distributed_type": "DEEPSPEED", "use_cpu": False}, False),
        ({"distributed_type": "MULTI_CPU", "use_cpu": True}, False),
        ({}, False),
    ],
)
def test_trap_use_cpu_beside_deepspeed_is_found_in_the_default_file(home, settings, found):
    path = home / "hf" / "accelerate" / "default_config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(settings))
    assert bool(doctor.traps()) == found
    assert not found or str(path) in doctor.traps()[0]


@pytest.mark.parametrize("cpu, found", [("true", True), ("false", False)])
def test_trap_use_cpu_beside_deepspeed_is_found_in_the_environment(home, cpu, found, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_USE_CPU", cpu)
    assert bool(doctor.traps()) == found


def test_a_disk_with_little_room_is_said(home, monkeypatch):
    assert doctor.full_disks() == []
    monkeypatch.setattr(doctor, "LEAST_FREE", 2**62)
    assert "rlred clean RUN makes room" in doctor.full_disks()[0]


@pytest.mark.parametrize(
    "told, problem",
    [
        ("pytest>=1", None),
        ("pytest<1", "is outside <1"),
        ("no-such-package-at-all>=3", "no-such-package-at-all is missing (>=3)"),
    ],
)
def test_a_package_is_held_against_its_bounds(told, problem):
    found = doctor.problem_of(Requirement(told))
    assert found is None if problem is None else problem in found


def test_the_requirements_are_those_of_the_project():
    found = doctor.requirements()
    assert {"", "dev", "vllm", "deepspeed"} <= set(found)
    assert "trl" in {requirement.name for requirement in found[""]}
    assert all(len(requirement.specifier) == 2 for group in found.values() for requirement in group)  # both bounds


def test_the_lock_is_that_of_pyproject():
    """`uv lock --check` without uv: the same requirements, each with a version that it allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = {(one, "") for one in project["dependencies"]} | {(one, name) for name in extras for one in extras[name]}
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    [own] = [one for one in packages if one["name"] == project["name"]]
    locked = {
        (one["name"], Requirement(f"x{one['specifier']}").specifier, one.get("marker", ""))
        for one in own["metadata"]["requires-dist"]
    }
    told = {(Requirement(one), f"extra == '{name}'" if name else "") for one, name in asked}
    assert locked == {(one.name, one.specifier, marker) for one, marker in told}
    for one, _ in told:
        versions = [package["version"] for package in packages if package["name"] == canonicalize_name(one.name)]
        assert versions and all(one.specifier.contains(version) for version in versions), one

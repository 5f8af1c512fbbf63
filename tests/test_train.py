"""`rlred train`: the recipe's own script under accelerate, found by name in a checkout and in a wheel."""

import os
import subprocess
import sys
import zipfile

import pytest

from rlred.cli import main
from rlred.train import command_line, listing, recipes, shipped
from tests.paths import ROOT

SCRIPT = str(ROOT / "recipes" / "l1_maxlen.py")


def test_every_recipe_is_listed_with_a_line_of_its_own(capsys):
    assert main(["train"]) == 0
    printed = capsys.readouterr().out
    assert listing() in printed
    assert {"l1_exact", "l1_maxlen", "tokenskip", "visual_sparsity"} <= set(recipes())
    assert all(len(line.split(maxsplit=1)) == 2 for line in listing().splitlines())
    assert "tale" in recipes()  # which needs no YAML to be run


@pytest.mark.parametrize(
    "words, expected",
    [
        (["l1_maxlen"], [SCRIPT]),
        (["l1_maxlen", "--max_steps", "2"], [SCRIPT, "--max_steps", "2"]),
        (["--num_processes", "2", "l1_maxlen", "--seed", "1"], ["--num_processes", "2", SCRIPT, "--seed", "1"]),
        (
            ["--config_file", "zero2", "l1_maxlen"],
            ["--config_file", str(ROOT / "accelerate_configs" / "zero2.yaml"), SCRIPT],
        ),
        (
            ["l1_maxlen", "--config", "l1_maxlen_r1_1.5b.yaml"],
            [SCRIPT, "--config", str(ROOT / "recipes" / "l1_maxlen_r1_1.5b.yaml")],
        ),
        (["l1_maxlen", "--config", "no_such.yaml"], [SCRIPT, "--config", "no_such.yaml"]),
        (["--cpu", "l1_maxlen", "--note", "l1_maxlen"], ["--cpu", SCRIPT, "--note", "l1_maxlen"]),
        # Help is the script's own: nothing is launched for it.
        (["--cpu", "l1_maxlen", "--seed", "1", "--help", "lora"], [SCRIPT, "--help", "lora", "--seed", "1"]),
        (["l1_maxlen", "-h", "--audit_only"], [SCRIPT, "-h", "--audit_only"]),
    ],
)
def test_the_words_are_those_of_accelerate_launch(words, expected):
    assert command_line(words) == expected


def test_a_file_of_ones_own_comes_before_one_that_is_shipped(tmp_path, monkeypatch):
    (tmp_path / "l1_exact.yaml").write_text("max_steps: 2\n")
    monkeypatch.chdir(tmp_path)
    assert command_line(["l1_exact", "--config", "l1_exact.yaml"])[-1] == "l1_exact.yaml"


def test_a_recipe_that_does_not_exist_is_one_clear_line(capsys):
    assert main(["train", "l1_maxlength"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: train: no recipe is called 'l1_maxlength'; there are") and "l1_maxlen," in line


def test_trap_a_rewards_module_beside_the_script_does_not_shadow_ours(tmp_path):
    (tmp_path / "rewards.py").write_text("raise SystemExit('this is not the module that was asked for')\n")
    script = ["from rlred.rewards import Correctness", r"print(Correctness()([r'\boxed{4}'], solution=['4']))"]
    (tmp_path / "mine.py").write_text("\n".join(script))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "mine.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "[1.0]", done.stderr


@pytest.mark.slow
def test_the_wheel_brings_recipes_settings_and_models_and_trains_from_an_empty_folder(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True)
    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if name.startswith("rewards/")]
    for name in ("py.typed", "rewards/presets.py", "recipes/l1_exact.yaml", "accelerate_configs/zero2.yaml"):
        assert f"rlred/{name}" in names
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(installed)
    empty.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1"}
    words = "train l1_maxlen --max_steps 2 --hindsight false --num_eval_questions 4 --num_questions 64"
    command = [sys.executable, "-m", "rlred.cli", *words.split()]
    done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (empty / "outputs" / "l1_maxlen" / "adapter_model.safetensors").is_file()


def test_what_is_shipped_lies_in_the_checkout_here():
    assert shipped("recipes") == ROOT / "recipes" and shipped("accelerate_configs").is_dir()

"""Every recipe from its command line to a published adapter, as small as it goes: first step, export, report, resume.

Each runs as `python recipes/NAME.py FLAGS` does, in this process; what it leaves is then given to `rlred export` and
`rlred report`. Then it is made into a run that was stopped after its first checkpoint, and goes on to the second step.
A new recipe fails here until it has a line in RECIPES.
"""

import json
import re
import runpy
import sys

import pytest
from huggingface_hub import ModelCard

from rlred.cli import main as rlred
from rlred.tiny.makers.tiny_hybrid import make_hybrid
from tests.paths import ROOT
from tests.test_run_card import check_card

STEP = "--max_steps 1 --logging_steps 1"
SAVED = f"{STEP} --save_strategy steps --save_steps 1"
SFT = f"{SAVED} --per_device_train_batch_size 4 --lora_r 4"
GRPO = f"{SAVED} --lora_r 4 --num_eval_questions 2"
TEXT = f"{GRPO} --per_device_train_batch_size 8 --num_generations 4 --num_questions 16"
REFERENCE = f"{TEXT} --reference_samples 2"
HINDSIGHT = f"{TEXT} --eval_budgets 16 48 --hindsight_settings " + (
    '{"num_samples":32,"max_updates":1,"batch_size":8,"probe_every":1,"num_probe_questions":2,"cooldown_updates":0}'
)
VISUAL = f"{GRPO} --per_device_train_batch_size 10 --num_generations 10"
RECIPES = {
    "dler": TEXT,
    "efficient_reasoning": TEXT,
    "fast": TEXT,
    "fast_vision": VISUAL,
    "forking_tokens": TEXT,
    "l1_exact": HINDSIGHT,
    "l1_maxlen": HINDSIGHT,
    "laser": f'{TEXT} --target_search {{"num_questions":4,"every":1,"low":16,"step":16}}',
    "o1_pruner": REFERENCE,
    "rho1": f"{SFT} --num_rows 16 --num_clean_rows 16 --reference_steps 1 --num_eval_questions 2"
    " --max_completion_length 8 --eval_strategy no --variants base plain",
    "shorter_better": TEXT,
    "tale": f"{STEP} --num_questions 16 --num_eval_questions 2 --budgets 48 72 --batch_size 8",
    "think_or_not": f"{REFERENCE} --model_name_or_path HYBRID",
    "thinkprune": TEXT,
    "tokenskip": f"{SFT} --num_questions 16 --num_eval_questions 2 --ratios 1.0 0.5 --eval_ratios 0.3"
    " --max_completion_length 96",
    "upft": f"{SFT} --num_questions 32 --num_eval_questions 2 --trained_tokens 40 --eval_strategy no"
    " --variants base upft",
    "visionthink": f"{VISUAL} --start_steps 1",
    "visual_sparsity": VISUAL,
}
SUPERVISED = {"rho1", "tale", "tokenskip", "upft"}
REPORTED = {  # what a page must say of a run
    "rho1": "<td>plain</td>",
    "tokenskip": "trained on question",
    "upft": "<td>upft</td>",
    **dict.fromkeys(("fast_vision", "visionthink", "visual_sparsity"), "Visual tokens and accuracy"),
}
VARIANTS = {"rho1": "plain-0", "upft": "upft-0"}  # comparisons: a folder of variants, each resumed by itself
SAID = {  # what a card must say of its adapter
    "l1_exact": "Think for exactly 48 tokens.",
    "l1_maxlen": "Think for maximum 48 tokens.",
    "tale": "chooses by itself how long to think",
    "tokenskip": "Think within 0.5 of the tokens.",
    "upft": "SFT (TRL) with LoRA on `sums`",
    "visual_sparsity": "chooses how many of a picture's tokens to use",
}


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory):
    return make_hybrid(tmp_path_factory.mktemp("hybrid"), max_steps=3)


def test_no_recipe_is_left_out():
    assert {path.stem for path in (ROOT / "recipes").glob("*.py")} == set(RECIPES)


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_the_commands_of_a_recipes_docstring_name_files_that_are_there(recipe):
    page = (ROOT / "recipes" / f"{recipe}.py").read_text().split('"""')[1]
    named = re.findall(r"(?:recipes|accelerate_configs)/\w[\w.]*\.(?:py|yaml)", page)
    assert f"recipes/{recipe}.py" in named
    assert [name for name in named if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_first_step_is_exported_and_reported(recipe, tmp_path, monkeypatch, request, capsys):
    output, flags = tmp_path / "run", RECIPES[recipe]
    if "HYBRID" in flags:
        flags = flags.replace("HYBRID", str(request.getfixturevalue("hybrid")))
    monkeypatch.chdir(ROOT)
    start(recipe, flags, output, monkeypatch, capsys)
    check_own_card(recipe, output / ("upft-0" if recipe == "upft" else ""))
    check_published(recipe, output, tmp_path, capsys)
    resumed(recipe, flags, output, monkeypatch, capsys)


def start(recipe, flags, output, monkeypatch, capsys):
    """Runs a recipe to its end."""
    monkeypatch.setattr(sys, "argv", [f"recipes/{recipe}.py", *flags.split(" "), "--output_dir", str(output)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(f"recipes/{recipe}.py", run_name="__main__")
    assert ended.value.code == 0, capsys.readouterr().err


def resumed(recipe, flags, output, monkeypatch, capsys):
    """The run goes on as one that was stopped after the checkpoint of its first step: what came later is not there."""
    trained = output / VARIANTS.get(recipe, "")
    for name in ("adapter_model.safetensors", "model.safetensors", "result.json"):
        (trained / name).unlink(missing_ok=True)
    done = {path: path.stat().st_mtime_ns for path in output.rglob("*.jsonl")}
    if recipe in VARIANTS:
        flags = f"{flags} --variants {VARIANTS[recipe].removesuffix('-0')}"
    elif recipe == "tale":
        (trained / "run.json").unlink()  # written last: without it the run is unfinished
    else:
        flags += " --evaluate false --resume_from_checkpoint true"
    start(recipe, flags.replace("--max_steps 1", "--max_steps 2"), output, monkeypatch, capsys)
    state = json.loads((trained / "trainer_state.json").read_text())
    assert [entry["step"] for entry in state["log_history"] if "loss" in entry] == [1, 2]
    assert [path for path in done if path.stat().st_mtime_ns != done[path]] == []  # no completion is sampled twice
    assert list(trained.glob("*model.safetensors"))


def check_own_card(recipe, trained):
    """The run's folder has a README of its own, and no template of TRL's or PEFT's is left below it."""
    cards = list(trained.rglob("README.md"))
    if recipe == "rho1":  # whole weights without a record
        assert cards == []
        return
    assert cards == [trained / "README.md"]
    check_card(trained)
    text = cards[0].read_text()
    assert f"| `recipe` | {recipe} |" in text and "## What was measured" in text


def check_published(recipe, output, tmp_path, capsys):
    """What a first step leaves can be exported and reported."""
    trained = output / ("upft-0" if recipe == "upft" else "")
    if recipe in VARIANTS:
        assert rlred(["export", str(output), "--output", str(tmp_path / "none")]) == 2
        said = {"rho1": "all weights were trained: plain-0 is a model by itself", "upft": "one of its variants: upft-0"}
        assert said[recipe] in capsys.readouterr().err
        assert rlred(["report", str(output)]) == 0 and REPORTED[recipe] in (output / "report.html").read_text()
        if recipe == "rho1":
            return
    else:
        assert json.loads((trained / "trainer_state.json").read_text())["global_step"] >= 1

    assert rlred(["export", str(trained), "--output", str(tmp_path / "out")]) == 0, capsys.readouterr().err
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"adapter_model.safetensors", "adapter_config.json", "run.json", "README.md"}
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert "rlred" in card.data.tags and "## What was measured" in card.text and "## How to load" in card.text
    assert SAID.get(recipe, "") in card.text
    pictures = re.findall(r"\]\((\w+\.png)\)", card.text)
    assert set(pictures) <= names and str(tmp_path) not in card.text

    assert rlred(["report", str(output)]) == 0, capsys.readouterr().err
    page = (output / "report.html").read_text()
    assert REPORTED.get(recipe, "after RL") in page and page.count("<script") == 1
    assert ("Training: the reinforcement learning steps" in page) == (recipe not in SUPERVISED)

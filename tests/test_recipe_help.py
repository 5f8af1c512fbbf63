"""`--help` of a recipe: one screen for each of them, and every argument for those who ask."""

import runpy
import sys

import pytest

from rlred.runs.help import help_asked
from tests.paths import ROOT

RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.py"))
SCREEN = 45


def printed(recipe, words, monkeypatch, capsys):
    """What a recipe prints, and its exit status."""
    monkeypatch.setattr(sys, "argv", [f"recipes/{recipe}.py", *words])
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(f"recipes/{recipe}.py", run_name="__main__")
    out, err = capsys.readouterr()
    return ended.value.code, out, err


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_help_of_a_recipe_fits_a_screen_and_ends_with_two_examples(recipe, monkeypatch, capsys):
    status, text, _ = printed(recipe, ["--help"], monkeypatch, capsys)
    lines = text.splitlines()
    assert status == 0 and len(lines) <= SCREEN and max(map(len, lines)) <= 100
    place = lines.index("for example:")
    assert len(lines) == place + 3 and all(line.startswith(f"  rlred train {recipe} ") for line in lines[place + 1 :])
    for told in ("--output_dir", "--max_steps", "--learning_rate", "--seed", "--config FILE", "--audit_only [N]"):
        assert any(line.startswith(f"  {told} ") for line in lines), told
    assert any(line.startswith("  --help all, --help WORD ") for line in lines)
    # A row without a text says nothing.
    assert [line for line in lines if line.startswith("  --") and len(line.split()) < 3] == []


def test_the_values_are_those_of_the_yaml_that_is_named(monkeypatch, capsys, tmp_path):
    (tmp_path / "mine.yaml").write_text("defaults: [embedded]\nmodel_name_or_path: me/base\nbudget_low: 123\n")
    _, own, _ = printed("l1_exact", ["--help"], monkeypatch, capsys)
    _, mine, _ = printed("l1_exact", ["--config", str(tmp_path / "mine.yaml"), "-h"], monkeypatch, capsys)
    assert "--budget_low 16 " in own and "--budget_low 123 " in mine and "--model_name_or_path me/base " in mine
    status, _, err = printed("l1_exact", ["--config", "no_such.yaml", "--help"], monkeypatch, capsys)
    assert status == 2 and err == "error: --config: no such file: no_such.yaml\n"


def test_a_word_lists_the_arguments_whose_names_hold_it(monkeypatch, capsys):
    _, text, _ = printed("tokenskip", ["--help", "--ratio"], monkeypatch, capsys)
    assert "usage" in text  # a flag is no word
    _, text, _ = printed("tokenskip", ["--help", "ratio"], monkeypatch, capsys)
    names = [line.split()[0] for line in text.splitlines() if line.startswith("  --")]
    assert {"--ratios", "--eval_ratios", "--ratio_format"} <= set(names)
    assert all("ratio" in name for name in names) and "Shares of the thinking to keep" in text
    _, dashed, _ = printed("tokenskip", ["--help=LORA-r"], monkeypatch, capsys)
    assert dashed.startswith("  --lora_r 32\n")
    status, _, err = printed("tokenskip", ["--help", "nothing_like_it"], monkeypatch, capsys)
    assert status == 2 and err.startswith("error: --help nothing_like_it: no argument has that in its name;")


@pytest.mark.parametrize("recipe", ["l1_exact", "rho1", "tale", "visionthink"])
def test_help_all_lists_every_argument(recipe, monkeypatch, capsys):
    _, text, _ = printed(recipe, ["--help", "all"], monkeypatch, capsys)
    listed = {line.split()[0].strip(",") for line in text.splitlines() if line.startswith("  --")}
    assert {"--output_dir", "--seed", "--config"} <= listed
    assert len(listed) > (20 if recipe == "tale" else 150)


@pytest.mark.parametrize(
    "words, wanted",
    [(["--seed", "1"], None), (["--seed", "1", "-h"], ""), (["--help", "all"], "all"), (["--helpful"], None)],
)
def test_help_is_asked_for_by_its_own_flag_alone(words, wanted):
    assert help_asked(words) == wanted

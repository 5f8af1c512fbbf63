"""What each recipe's YAML says once its defaults are merged in: frozen, so that a shared line cannot change one unseen.

After a change that is meant: python -m tests.test_recipe_settings
"""

import json

import pytest

from rlred.runs.arguments import KINDS, LoraModelConfig, RLConfig, parse, read_config
from tests.paths import ROOT

FROZEN = ROOT / "tests" / "frozen" / "recipe_settings.json"
YAMLS = {path.stem: path for room in ("recipes", "tests/benchmarks") for path in sorted((ROOT / room).glob("*.yaml"))}


def merged(name: str) -> dict:
    return read_config(YAMLS[name])


def test_every_yaml_is_frozen_and_no_other():
    assert sorted(json.loads(FROZEN.read_text())) == sorted(YAMLS)


@pytest.mark.parametrize("name", YAMLS)
def test_the_merged_settings_are_the_frozen_ones(name):
    assert merged(name) == json.loads(FROZEN.read_text())[name]


def test_a_variant_is_its_base_with_two_settings_changed():
    base, variant = merged("l1_exact_r1_1.5b"), merged("l1_exact_r1_1.5b_8gpu")
    assert {name for name in variant if variant[name] != base[name]} == {
        "gradient_accumulation_steps",
        "num_generations",
    }


@pytest.mark.parametrize(
    "files, message",
    [
        ({"own": "defaults: nowhere\n"}, "defaults: no file nowhere.yaml"),
        ({"own": "defaults: {a: 1}\n"}, "defaults must be a name or a list of names, got {'a': 1}"),
        ({"own": "defaults: base\n", "base": "defaults: other\n"}, "defaults of defaults"),
        ({"own": "- max_steps\n"}, "must be a mapping of settings"),
        ({"own": "max_steps: [1\n"}, "not YAML"),
        ({"own": "max_stepz: 1\n"}, "no setting is called 'max_stepz'"),
    ],
)
def test_a_wrong_file_is_one_clear_line_that_names_it(files, message, tmp_path):
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    with pytest.raises(ValueError, match=message) as raised:
        parse(tmp_path / "own.yaml", ["--use_cpu", "true"])
    assert "\n" not in str(raised.value) and ".yaml" in str(raised.value)


def test_ones_own_file_stands_on_shipped_defaults_and_flags_stand_above_it(tmp_path):
    (tmp_path / "mine.yaml").write_text("defaults: embedded\nmax_steps: 7\nlearning_rate: 0.5\n")
    flags = ["--config", str(tmp_path / "mine.yaml"), "--learning_rate", "0.25", "--output_dir", str(tmp_path)]
    _, training, model = parse(tmp_path / "unused.yaml", flags)
    assert (training.max_steps, training.learning_rate, training.use_cpu, model.lora_r) == (7, 0.25, True, 32)


def test_the_merged_file_can_be_printed_and_used_again(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(ROOT / "recipes" / "laser.yaml", ["--print_config"])
    assert ended.value.code == 0
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    assert read_config(tmp_path / "printed.yaml") == merged("laser")


def test_flags_are_printed_and_one_of_several_fields_leaves_the_others(tmp_path, capsys):
    changed = {"learning_rate": 0.5, "sources": {"brief": 8}}
    flags = ["--max_steps=7", "--eval_budgets", "16", "--merged_rollouts", "--model_name_or_path", "mine"]
    flags += ["--hindsight_settings", json.dumps(changed), "--reward", '{"name": "correctness"}']
    with pytest.raises(SystemExit):
        parse(ROOT / "recipes" / "l1_exact.yaml", [*flags, "--print_config"])
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    shown, shipped = read_config(tmp_path / "printed.yaml"), merged("l1_exact")
    told = {"max_steps": 7, "eval_budgets": [16], "merged_rollouts": True, "model_name_or_path": "mine"}
    told |= {"hindsight_settings": shipped["hindsight_settings"] | changed, "reward": {"name": "correctness"}}
    assert shown == shipped | told
    output = ["--output_dir", str(tmp_path)]
    asked, printed = (
        parse(path, [*words, *output])
        for path, words in ((ROOT / "recipes" / "l1_exact.yaml", flags), (tmp_path / "printed.yaml", []))
    )
    assert (
        asked[0] == printed[0] and asked[0].make_hindsight().batch_size == shipped["hindsight_settings"]["batch_size"]
    )
    hyphens = parse(tmp_path / "printed.yaml", ["--hindsight-settings", '{"num_bins": 5}', *output])[0]
    assert hyphens.hindsight_settings == shown["hindsight_settings"] | {"num_bins": 5}
    with pytest.raises(ValueError, match="--buget_low: there is no such flag; did you mean --budget_low"):
        parse(ROOT / "recipes" / "l1_exact.yaml", ["--buget_low", "8", "--print_config"])


def test_the_projects_own_defaults_are_in_one_place():
    _, training, model = parse(ROOT / "recipes" / "defaults" / "embedded.yaml", [], KINDS)
    assert isinstance(training, RLConfig) and isinstance(model, LoraModelConfig)
    assert (training.shuffle_dataset, training.scale_rewards, training.report_to) == (False, "none", [])
    assert (training.seed, model.use_peft, model.lora_dropout) == (0, True, 0.0)


if __name__ == "__main__":
    FROZEN.write_text(json.dumps({name: merged(name) for name in sorted(YAMLS)}, indent=1) + "\n")


def test_a_yaml_is_named_in_one_word_or_two(tmp_path):
    (tmp_path / "own.yaml").write_text("max_steps: 7\n")
    for words in (["--config", str(tmp_path / "own.yaml")], [f"--config={tmp_path / 'own.yaml'}"]):
        flags = [*words, "--use_cpu", "true", "--bf16", "false", "--output_dir", str(tmp_path)]
        assert parse(ROOT / "recipes" / "l1_maxlen.yaml", flags)[1].max_steps == 7

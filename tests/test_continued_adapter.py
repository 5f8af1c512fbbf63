"""Training goes on with a saved adapter in the place of a fresh one."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlred.cli import main as rlred
from rlred.runs.chassis import check_adapter
from rlred.runs.grpo import run
from rlred.tiny import resolve_adapter
from tests.test_recipes import arguments, base, digest  # noqa: F401  (base is a fixture)

# At temperature 1 it keeps every number, and no group has anything to learn from.
LIKE_IT = {"lora_r": 32, "lora_alpha": 64, "evaluate": False, "temperature": 2.0}
WEIGHTS = "adapter_model.safetensors"
# Rates at which an update of Adam moves no weight of the adapter by 1e-6.
STILL = 1e-9
SAVED = {name: tensor.float() for name, tensor in load_file(Path(resolve_adapter("l1_exact")) / WEIGHTS).items()}


def distance(folder: Path) -> float:
    """How far the adapter of a folder is from the embedded one, in its weight that moved most."""
    made = load_file(folder / WEIGHTS)
    assert made.keys() == SAVED.keys()
    return max((made[name] - SAVED[name]).abs().max().item() for name in made)


def test_rl_goes_on_with_an_adapter_and_moves_it(base, tmp_path):  # noqa: F811
    before = digest(base)
    asked = {**LIKE_IT, "adapter": "l1_exact", "hindsight": False, "lr_scheduler_type": "constant", "warmup_steps": 0}
    run(*arguments("l1_exact", base, output_dir=tmp_path / "still", learning_rate=STILL, **asked), tmp_path)
    run(*arguments("l1_exact", base, output_dir=tmp_path / "moved", learning_rate=1e-3, **asked), tmp_path)
    assert distance(tmp_path / "still") < 1e-6 < 1e-4 < distance(tmp_path / "moved")
    assert digest(base) == before
    assert json.loads((tmp_path / "moved" / "run.json").read_text())["arguments"]["adapter"] == "l1_exact"


def test_a_start_trains_the_adapter_on_traces_of_the_base(base, tmp_path):  # noqa: F811
    shared = {**LIKE_IT, "max_steps": 1, "save_steps": 1}
    settings = {"num_samples": 64, "max_updates": 1, "cooldown_updates": 1, "batch_size": 8, "num_probe_questions": 2}
    for name, adapter, rate in (("fresh", {}, 1e-3), ("still", {"adapter": "l1_exact"}, STILL)):
        told = json.dumps({**settings, "learning_rate": rate, "probe_every": 2})
        asked = {**shared, **adapter, "hindsight_settings": told, "output_dir": tmp_path / name}
        run(*arguments("l1_exact", base, **asked), tmp_path)
    assert distance(tmp_path / "still" / "hindsight" / "adapter") < 1e-6
    assert distance(tmp_path / "fresh" / "hindsight" / "adapter") > 1e-3
    traces = [(tmp_path / name / "hindsight" / "traces.jsonl").read_text() for name in ("fresh", "still")]
    assert traces[0] == traces[1]


def test_a_resumed_run_goes_on_where_it_was_and_not_at_the_adapter(base, tmp_path):  # noqa: F811
    asked = {**LIKE_IT, "adapter": "l1_exact", "hindsight": False, "learning_rate": 1e-3, "save_steps": 2}
    asked |= {"lr_scheduler_type": "constant", "warmup_steps": 0}
    run(*arguments("l1_exact", base, output_dir=tmp_path / "whole", max_steps=4, **asked), tmp_path)
    run(*arguments("l1_exact", base, output_dir=tmp_path / "parts", max_steps=2, **asked), tmp_path)
    again = {"max_steps": 4, "resume_from_checkpoint": "true"}
    run(*arguments("l1_exact", base, output_dir=tmp_path / "parts", **again, **asked), tmp_path)
    whole, parts = (load_file(tmp_path / name / WEIGHTS) for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"lora_r": 4}, "adapter='l1_exact' was made with other settings than lora_r=4; set lora_r to 32"),
        (
            {"lora_r": 4, "lora_alpha": 8},
            "was made with other settings than lora_r=4, lora_alpha=8; set lora_r to 32, lora_alpha to 64",
        ),
        (
            {"lora_modules_to_save": "lm_head"},
            "than lora_modules_to_save=['lm_head']; set lora_modules_to_save to None",
        ),
        ({"use_peft": False}, "adapter='l1_exact': use_peft=False trains none; set use_peft to true"),
        ({"adapter": "/nowhere"}, "adapter '/nowhere' cannot be loaded: there is no such folder"),
        ({"lora_target_modules": ".*q_proj"}, "adapter='l1_exact' does not fit lora_target_modules=.*q_proj of this"),
        ({"model_name_or_path": "tiny_verbose"}, None),
    ],
)
def test_an_adapter_of_another_kind_is_refused_before_anything_is_sampled(base, tmp_path, changes, message):  # noqa: F811
    asked = {**LIKE_IT, "evaluate": True, "adapter": "l1_exact", "output_dir": tmp_path / "run", **changes}
    told = arguments("l1_exact", asked.pop("model_name_or_path", base), **asked)
    if message is None:  # the same shapes
        check_adapter(told[0], told[2], told[1])
        return
    with pytest.raises(ValueError) as raised:
        run(*told, tmp_path)
    assert message in str(raised.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"alpha_pattern": {"q_proj": 8}}, "has alpha_pattern={'q_proj': 8}, which no recipe trains"),
        ({"rank_pattern": {"q_proj": 8}}, "has rank_pattern={'q_proj': 8}, which no recipe trains"),
        ({"bias": "all"}, "has bias='all', which no recipe trains"),
        ({"peft_type": "IA3"}, "has peft_type='IA3', which no recipe trains"),
        ({"modules_to_save": ["lm_head"]}, "than lora_modules_to_save=None; set lora_modules_to_save to ['lm_head']"),
        ({"use_dora": True}, "than use_dora=None; set use_dora to True"),
    ],
)
def test_what_an_adapter_has_and_a_run_would_not_make_is_refused(base, tmp_path, changes, message):  # noqa: F811
    shutil.copytree(resolve_adapter("l1_exact"), tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    told = arguments("l1_exact", base, **LIKE_IT, adapter=tmp_path / "adapter")
    with pytest.raises(ValueError) as raised:
        check_adapter(told[0], told[2], told[1])
    assert message in str(raised.value)


def test_the_audit_alone_refuses_it_as_well(base, capfd):  # noqa: F811
    words = ["train", "l1_exact", "--audit_only", "--model_name_or_path", str(base), "--adapter", "l1_exact"]
    assert rlred([*words, "--lora_r", "8"]) == 2
    assert "set lora_r to 32" in capfd.readouterr().out
    assert rlred(words) == 0


def test_a_folder_goes_on_with_its_own_adapter_alone(base, tmp_path):  # noqa: F811
    asked = {**LIKE_IT, "hindsight": False, "max_steps": 1, "save_steps": 1, "output_dir": tmp_path / "run"}
    run(*arguments("l1_exact", base, adapter="l1_exact", **asked), tmp_path)
    again = {**asked, "max_steps": 2, "resume_from_checkpoint": "true"}
    with pytest.raises(ValueError, match="holds a run of adapter='l1_exact'; name another output_dir"):
        run(*arguments("l1_exact", base, **again), tmp_path)


def test_other_words_and_other_counts_are_told(base, caplog):  # noqa: F811
    wording = json.dumps({"exact": "{question} Use {budget} tokens."})
    told = arguments("l1_exact", base, **LIKE_IT, adapter="l1_exact", wording=wording)
    check_adapter(told[0], told[2], told[1])
    assert "adapter='l1_exact' was trained with another wording" in caplog.text


@pytest.mark.parametrize("file", ["adapter_config.json", WEIGHTS])
def test_a_folder_without_an_adapter_is_refused(base, tmp_path, file):  # noqa: F811
    shutil.copytree(resolve_adapter("l1_exact"), tmp_path / "adapter")
    (tmp_path / "adapter" / file).unlink()
    asked = {**LIKE_IT, "adapter": tmp_path / "adapter", "output_dir": tmp_path / "run"}
    with pytest.raises(ValueError, match=f"there is no {file} in"):
        run(*arguments("l1_exact", base, **asked), tmp_path)


def test_a_damaged_file_is_refused(base, tmp_path):  # noqa: F811
    shutil.copytree(resolve_adapter("l1_exact"), tmp_path / "adapter")
    (tmp_path / "adapter" / WEIGHTS).write_bytes(b"x" * 100)
    asked = {**LIKE_IT, "adapter": tmp_path / "adapter", "output_dir": tmp_path / "run"}
    with pytest.raises(ValueError, match="adapter_model.safetensors cannot be read"):
        run(*arguments("l1_exact", base, **asked), tmp_path)


def test_weights_that_are_not_the_adapters_are_refused(base, tmp_path):  # noqa: F811
    shutil.copytree(resolve_adapter("l1_exact"), tmp_path / "adapter")
    weights = load_file(tmp_path / "adapter" / WEIGHTS)
    weights.pop(next(iter(weights)))
    save_file(weights, tmp_path / "adapter" / WEIGHTS)
    asked = {**LIKE_IT, "adapter": tmp_path / "adapter", "hindsight": False, "output_dir": tmp_path / "run"}
    with pytest.raises(ValueError, match="1 of its weights have another name or shape"):
        run(*arguments("l1_exact", base, **asked), tmp_path)


def test_an_adapter_of_another_base_is_told(tmp_path, caplog):
    asked = {**LIKE_IT, "adapter": "l1_exact", "hindsight": False, "max_steps": 1, "save_steps": 1}
    run(*arguments("l1_exact", "tiny_sorter", questions="sorting", output_dir=tmp_path / "run", **asked), tmp_path)
    assert "was trained on `data/tiny_reasoner` and is trained further on" in caplog.text

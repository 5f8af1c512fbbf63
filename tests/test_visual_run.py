"""A run on pictures has the manners of every run: its model settings, resume, alarm, best adapter, held-out check."""

import json

import pytest
from PIL import Image
from safetensors.torch import load_file

from rlred.evaluation.results import read_result
from rlred.runs.visual import check_held_out
from tests.vision_recipe import SMALL, VLM, command, digest, moved


def given(output, *flags):
    return ["--output_dir", str(output), *SMALL, "--num_eval_questions", "4", "--save_steps", "1", *flags]


def test_a_run_keeps_its_best_adapter_and_goes_on_without_doing_a_stage_twice(tmp_path, monkeypatch):
    output, before = tmp_path / "run", digest()
    flags = ["--start_steps", "2", "--max_steps", "1"]
    assert command(monkeypatch, "visionthink", *given(output, *flags)) == 0
    assert (output / "best" / "adapter_model.safetensors").is_file()
    stages = [output / "measures" / "baseline.json", output / "measures" / "started.json"]
    stages.append(output / "start" / "adapter_model.safetensors")
    written = [path.stat().st_mtime_ns for path in stages]
    first = load_file(output / "adapter_model.safetensors")

    flags = ["--start_steps", "2", "--max_steps", "2", "--resume_from_checkpoint", "true"]
    assert command(monkeypatch, "visionthink", *given(output, *flags)) == 0
    assert [path.stat().st_mtime_ns for path in stages] == written
    log = json.loads((output / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2]
    second = load_file(output / "adapter_model.safetensors")
    assert any(not second[name].equal(first[name]) for name in first)
    result = read_result(output, "visual")
    assert {row["stage"] for row in result.rows("policy")} == {"base", "started", "trained"}
    assert (output / "measures" / "trained-1" / "trained.json").exists()  # of one step; the run has gone on since

    # Killed while it measured: what is saved is not generated again, and the result is the same.
    saved = sorted((output / "measures").glob("trained.*.completions.jsonl"))
    written = [path.stat().st_mtime_ns for path in saved[1:]]
    for path in (output / "measures" / "trained.json", output / "visual.json", saved[0]):
        path.unlink()
    assert len(saved) == 4 and command(monkeypatch, "visionthink", *given(output, *flags)) == 0
    assert [path.stat().st_mtime_ns for path in saved[1:]] == written
    assert read_result(output, "visual").blocks == result.blocks
    assert digest() == before


def test_the_model_settings_are_heeded(tmp_path, monkeypatch, capsys):
    output = tmp_path / "run"
    flags = ["--lora_r", "3", "--lora_target_modules", "q_proj", "v_proj", "--evaluate", "false"]
    assert command(monkeypatch, "visual_sparsity", *given(output, *flags)) == 0
    config = json.loads((output / "adapter_config.json").read_text())
    assert (config["r"], set(config["target_modules"])) == (3, {"q_proj", "v_proj"})
    # Bits cannot be had on this machine: what matters is that the setting is not passed over in silence.
    again = ["--model_name_or_path", str(VLM), "--load_in_4bit", "true", "--evaluate", "false"]
    assert command(monkeypatch, "visual_sparsity", *given(tmp_path / "bits", *again)) == 2
    assert "cannot be loaded" in capsys.readouterr().err


def test_without_an_adapter_all_weights_are_trained_and_a_start_by_imitation_is_refused(tmp_path, monkeypatch, capsys):
    output = tmp_path / "run"
    assert command(monkeypatch, "visual_sparsity", *given(output, "--use_peft", "false", "--evaluate", "false")) == 0
    assert not (output / "adapter_model.safetensors").exists() and (output / "model.safetensors").is_file()
    flags = ["--use_peft", "false", "--start_steps", "1"]
    assert command(monkeypatch, "visionthink", *given(tmp_path / "no", *flags)) == 2
    assert "use_peft=False: the start by imitation trains an adapter" in capsys.readouterr().err


def test_held_out_rows_that_are_training_rows_are_refused():
    def row(question, colour):
        return {"question": question, "image": Image.new("RGB", (4, 4), colour)}

    trained = [row("what color ?", "red"), row("what color ?", "blue")]
    check_held_out(trained, [row("what color ?", "green"), row("what shape ?", "red")])
    check_held_out(trained, [])
    with pytest.raises(ValueError, match="1 of 2 held-out rows are training rows too"):
        check_held_out(trained, [row("what color ?", "blue"), row("what color ?", "green")])


def test_the_adapter_moves(tmp_path, monkeypatch):
    output = tmp_path / "run"
    assert command(monkeypatch, "visual_sparsity", *given(output, "--evaluate", "false")) == 0
    assert moved(output)

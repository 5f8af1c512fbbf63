"""The one SFT loop: TRL's trainer unless told otherwise, resumed where it was left, saved whole or not at all."""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, set_seed
from trl import GRPOConfig, SFTTrainer

from rlred.training.sft import SFTSettings, SupervisedTrainer, check_lengths, fine_tune

SETTINGS = SFTSettings(max_steps=4, batch_size=4, learning_rate=0.01, warmup_steps=0, save_steps=1, logging_steps=1)
ROWS = [{"input_ids": [11 + n, 20, 30 + n, 2], "completion_mask": [0, 1, 1, 1]} for n in range(16)]


def make(folder, output, settings=SETTINGS, kind=SupervisedTrainer, rows=ROWS, **more):
    set_seed(0)
    return kind(
        model=AutoModelForCausalLM.from_pretrained(folder),
        args=settings.config(output),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder),
        **more,
    )


def weights(trainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters() if value.requires_grad}


def same(one: dict, two: dict) -> bool:
    return one.keys() == two.keys() and all(value.equal(two[name]) for name, value in one.items())


def test_told_nothing_it_is_trls_own_trainer(random_model, tmp_path):
    ours, trls = make(random_model, tmp_path / "a"), make(random_model, tmp_path / "b", kind=SFTTrainer)
    before = weights(ours)
    ours.fit(), trls.train()
    assert same(weights(ours), weights(trls)) and not same(weights(ours), before)
    saved = load_file(tmp_path / "a" / "model.safetensors")
    assert saved and all(value.equal(weights(ours)[name]) for name, value in saved.items())


@pytest.mark.parametrize("torn", [False, True])
def test_it_goes_on_from_the_last_whole_checkpoint(random_model, tmp_path, torn):
    whole = make(random_model, tmp_path / "whole")
    whole.fit()
    begun = make(random_model, tmp_path / "begun")
    begun.args.save_total_limit = None
    begun.add_callback(StopAfter(3))
    begun.train()
    if torn:  # killed while it wrote
        (tmp_path / "begun" / "checkpoint-3" / "trainer_state.json").write_text("{")
    resumed = make(random_model, tmp_path / "begun")
    state = resumed.fit()
    assert same(weights(resumed), weights(whole)) and state.global_step == 4
    assert [entry["step"] for entry in state.log_history if "loss" in entry] == [1, 2, 3, 4]


def test_trap_a_training_that_was_killed_before_it_saved_is_not_trained_one_update_more(random_model, tmp_path):
    settings = SFTSettings(**{**vars(SETTINGS), "schedule": "constant"})
    first = make(random_model, tmp_path, settings, rows=ROWS * 2)  # four updates are half an epoch
    first.fit()
    (tmp_path / "model.safetensors").unlink()
    second = make(random_model, tmp_path, settings, rows=ROWS * 2)
    assert second.fit().global_step == 4 and same(weights(second), weights(first))
    assert (tmp_path / "model.safetensors").is_file()
    longer = make(random_model, tmp_path, SFTSettings(**{**vars(settings), "max_steps": 5}), rows=ROWS * 2)
    assert longer.fit().global_step == 5 and not same(weights(longer), weights(first))


class StopAfter(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


def test_trap_a_save_that_breaks_off_leaves_no_weights_that_look_finished(random_model, tmp_path):
    class FullDisk(SupervisedTrainer):
        def _save(self, output_dir=None, state_dict=None):
            super()._save(output_dir, state_dict)
            if "checkpoint" not in output_dir:
                raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        make(random_model, tmp_path, kind=FullDisk).fit(tmp_path / "model")
    assert not (tmp_path / "model" / "model.safetensors").exists()
    trainer = make(random_model, tmp_path)  # what is left of it is in nobody's way
    assert trainer.fit(tmp_path / "model").global_step == 4
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= names and "partial" not in names
    assert (tmp_path / "trainer_state.json").is_file()


def test_what_choose_takes_away_is_neither_trained_on_nor_counted(random_model, tmp_path):
    def first_only(trainer, batches):
        assert len(batches) == 2 and all(batch["labels"].shape[0] == 2 for batch in batches)
        for batch in batches:
            batch["labels"][:, 2:] = -100

    settings = {**vars(SETTINGS), "micro_batch_size": 2, "max_steps": 1}
    chosen = make(random_model, tmp_path / "a", SFTSettings(**settings), choose=first_only)
    chosen.fit()
    rows = [{**row, "completion_mask": [0, 1, 0, 0]} for row in ROWS]
    expected = make(random_model, tmp_path / "b", SFTSettings(**settings), rows=rows)
    expected.fit()
    difference = sum((value - weights(expected)[name]).norm() for name, value in weights(chosen).items())
    assert difference < 1e-4
    losses = [one.state.log_history[0]["loss"] for one in (chosen, expected)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_rate_is_a_share_of_the_learning_rate(random_model, tmp_path):
    trainer = make(random_model, tmp_path, rate=lambda update: [1.0, 0.5, 0.25, 0.0, 0.0][update])
    log = trainer.fit().log_history
    assert [entry["learning_rate"] for entry in log if "loss" in entry] == [0.01, 0.005, 0.0025, 0.0]


def test_a_sampler_draws_the_rows_and_must_know_all_of_them(random_model, tmp_path):
    seen = []

    def look(trainer, batches):
        seen.extend(token for batch in batches for token in batch["input_ids"][:, 0].tolist())

    settings = SFTSettings(max_steps=2, batch_size=4, learning_rate=0.01)
    make(random_model, tmp_path, settings, sampler=[3] * 16, choose=look).fit()
    assert seen == [14] * 8
    with pytest.raises(ValueError, match="max_length=None: 17 rows were made and TRL kept 16"):
        make(random_model, tmp_path, sampler=[3] * 17)


def test_a_new_adapter_depends_on_the_seed_alone(random_model, tmp_path):
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear")
    made = []
    for noise, seed in ((0, 5), (1, 5), (0, 6)):
        config = SFTSettings(**{**vars(SETTINGS), "seed": seed}).config(tmp_path)
        model, tokenizer = (
            AutoModelForCausalLM.from_pretrained(random_model),
            AutoTokenizer.from_pretrained(random_model),
        )
        torch.manual_seed(noise)
        rows = Dataset.from_list(ROWS)
        trainer = SupervisedTrainer(
            model=model, args=config, train_dataset=rows, processing_class=tokenizer, peft_config=lora
        )
        made.append(weights(trainer))
    assert same(made[0], made[1]) and not same(made[0], made[2])


def test_fine_tune_returns_an_adapter_or_the_model(random_model, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(random_model)
    for lora_r, name in ((4, "adapter_model.safetensors"), (None, "model.safetensors")):
        settings = SFTSettings(max_steps=1, batch_size=4, learning_rate=0.01, lora_r=lora_r)
        model = AutoModelForCausalLM.from_pretrained(random_model)
        trained = fine_tune(model, tokenizer, Dataset.from_list(ROWS), settings, tmp_path / str(lora_r))
        assert (tmp_path / str(lora_r) / name).is_file() and (trained is model) == (lora_r is None)
        assert not list((tmp_path / str(lora_r)).glob("checkpoint-*"))


@pytest.mark.parametrize(
    "batch_size, micro_batch_size, per_device, accumulated",
    [(64, 32, 32, 2), (8, 32, 8, 1), (8, None, 8, 1), (6, 4, 3, 2), (48, 32, 24, 2), (7, 4, 1, 7)],
)
def test_a_batch_is_cut_into_forward_passes(tmp_path, batch_size, micro_batch_size, per_device, accumulated):
    sizes = {"batch_size": batch_size, "micro_batch_size": micro_batch_size}
    config = SFTSettings(max_steps=1, learning_rate=1.0, **sizes).config(tmp_path)
    assert (config.per_device_train_batch_size, config.gradient_accumulation_steps) == (per_device, accumulated)
    assert per_device * accumulated == batch_size  # an update is the batch that was asked for


def test_a_stage_takes_seed_precision_and_trackers_from_its_run(tmp_path):
    run = GRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, seed=7, logging_steps=3, run_name="mine")
    config = SETTINGS.config(tmp_path / "hindsight", run)
    assert (config.seed, config.logging_steps, config.run_name) == (7, 3, "mine-hindsight")
    assert config.use_cpu and not config.bf16 and config.report_to == run.report_to
    assert SETTINGS.config(tmp_path).seed == 0 and SETTINGS.config(tmp_path).report_to == []


@pytest.mark.parametrize(
    "name, value", [("max_steps", 0), ("batch_size", -1), ("micro_batch_size", 0), ("lora_r", 0), ("save_steps", 0),
                    ("logging_steps", 0), ("learning_rate", 0.0), ("learning_rate", float("nan"))],
)  # fmt: skip
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be .*, got {value}$"):
        SFTSettings(**{"max_steps": 1, "batch_size": 1, "learning_rate": 1.0, name: value})


def test_a_batch_that_the_processes_do_not_divide_is_an_error(tmp_path):
    run = GRPOConfig(str(tmp_path), use_cpu=True, bf16=False)
    run.__class__ = type("OfThree", (GRPOConfig,), {"world_size": property(lambda self: 3)})
    with pytest.raises(ValueError, match="batch_size must be a multiple of the 3 processes, got 64"):
        SFTSettings(max_steps=1, learning_rate=1.0, batch_size=64).config(tmp_path, run)


def test_trap_rows_are_not_cut_behind_their_answer():
    rows = Dataset.from_dict({"input_ids": [[1] * 5, [1] * 12], "completion_mask": [[0, 1, 1, 1, 1], [1] * 12]})
    with pytest.raises(ValueError, match="max_length=8: 1 of 2 rows are longer and would lose their answer; set it to"):
        check_lengths(rows, 8)
    check_lengths(rows, 12), check_lengths(rows, None), check_lengths(Dataset.from_dict({"text": ["a"]}), 1)

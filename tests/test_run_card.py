"""README.md of a run's folder: what was trained and what to do next, at every checkpoint and at the end."""

import json
import re
import shlex
import shutil

import pytest
from datasets import Dataset
from huggingface_hub import ModelCard
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, SFTConfig

from rlred.cli import command_of, find
from rlred.cli import main as rlred
from rlred.evaluation.results import read_result
from rlred.flags import parse
from rlred.publish.run_card import write_card, write_cards
from rlred.publish.text_card import asked_budgets
from rlred.training.sft import SupervisedTrainer
from rlred.training.trainer import ComposedGRPOTrainer, PlainGRPOTrainer
from tests.paths import ROOT

BUDGETS = {"questions": "sums", "wording": "l1", "modes": {"max": 1, "exact": 1}, "hindsight": True}
BUDGETS |= {"budget_low": 16, "budget_high": 48, "num_eval_questions": 2, "reward": "by_mode"}
EFFORTS = {**BUDGETS, "modes": {"effort": 1}, "effort_low": 0.1}
RATIOS = {"questions": "short_sums", "ratio_format": "words", "ratios": [1.0, 0.5], "scorer": "question"}
RATIOS |= {"num_eval_questions": 2, "eval_temperature": 0.0, "max_completion_length": 20}
FREE = {"questions": "sums", "budgets": [16, 24], "wording": "l1", "num_eval_questions": 2, "max_steps": 1, "seed": 0}


@pytest.fixture(scope="module")
def adapter(random_model, tmp_path_factory):
    """An adapter without a record."""
    folder = tmp_path_factory.mktemp("adapter")
    model = AutoModelForCausalLM.from_pretrained(random_model)
    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(folder)  # with PEFT's README
    AutoTokenizer.from_pretrained(random_model).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(adapter, tmp_path):
    """The same in a run's place."""
    return shutil.copytree(adapter, tmp_path / "a run")


def record(folder, arguments, **more):
    """Writes the record of a run whose model lies on this machine."""
    training = {"max_steps": 3, "seed": 0, "learning_rate": 1e-4, "max_completion_length": 40}
    model = {"model_name_or_path": "/home/me/models/base-1b", "use_peft": True, "lora_r": 2}
    told = {"recipe": "l1_maxlen", "arguments": arguments, "training": training, "model": model, **more}
    (folder / "run.json").write_text(json.dumps(told))


def commands(text):
    """The words of the commands of a card."""
    return [shlex.split(line) for line in re.findall(r"^    (rlred .*)$", text, re.MULTILINE)]


def check_card(folder):
    """No template, no dead link, no path of this machine; every command is one that rlred understands."""
    text = (folder / "README.md").read_text()
    ModelCard(text, ignore_metadata_errors=False)
    for wrong in ("Model Card for", "More Information Needed", "huggingface.co", "None", str(ROOT), str(folder.parent)):
        assert wrong not in text, wrong
    assert not re.findall(r"[\s(`\"'=](?:/(?:home|tmp|root|work)/|file:|https?:)", text)
    for target in re.findall(r"\]\(([^)]*)\)", text):
        assert (folder / target).is_file(), target
    asked = commands(text)
    assert asked
    for words in asked:
        name, rest = find(words[1:])
        parse(command_of(name), rest, f"rlred {name}")
    return text, {words[1] for words in asked}


@pytest.mark.parametrize(
    ("arguments", "said", "wanted"),
    [
        (BUDGETS, "Think for maximum 48 tokens.", {"evaluate", "serve", "play", "report", "export"}),
        (EFFORTS, "Efforts from 0.1 to 1 were trained", {"evaluate", "serve", "report", "export"}),
        (RATIOS, "the share of its tokens that it is asked for", {"evaluate", "serve", "report", "export"}),
        (FREE, "chooses by itself how long to think", {"evaluate", "serve", "report", "export"}),
    ],
    ids=["budgets", "efforts", "ratios", "free"],
)
def test_a_card_says_what_was_trained_and_its_commands_run(arguments, said, wanted, folder, monkeypatch, capsys):
    record(folder, arguments)
    write_cards(folder)
    text, found = check_card(folder)
    assert said in text and found == wanted
    assert "| `recipe` | l1_maxlen |" in text and "| `learning_rate` | 0.0001 |" in text
    assert "A LoRA adapter for" in text and "num_eval" not in text

    monkeypatch.chdir(folder)
    measured = next(words for words in commands(text) if words[1] == "evaluate")
    assert rlred(measured[1:]) == 0, capsys.readouterr().err
    result = read_result(folder.parent / "a run-measured", "ratios" if arguments is RATIOS else "adherence")
    assert {row["n"] for row in result.rows("baseline" if arguments is not RATIOS else "base")} == {2}
    for words in commands(text):
        if words[1] == "export":
            assert rlred(words[1:]) == 0, capsys.readouterr().err


def test_a_card_of_all_weights_offers_no_command_for_an_adapter(folder):
    (folder / "adapter_config.json").unlink()
    (folder / "adapter_model.safetensors").rename(folder / "model.safetensors")
    record(folder, BUDGETS, model={"model_name_or_path": "me/base", "use_peft": False})
    write_cards(folder)
    text, found = check_card(folder)
    assert found == {"serve", "report"}
    assert "adapter" not in text and "lora" not in text.lower() and "GRPO (TRL) of all weights on `sums`" in text


def test_trap_questions_of_a_private_folder_are_named_without_it(folder):
    record(folder, {**BUDGETS, "questions": "/home/me/private/q.jsonl"})
    write_cards(folder)
    text, _ = check_card(folder)
    assert "--questions q.jsonl" in text and "The held-out questions lay in `q.jsonl`" in text
    record(folder, BUDGETS)
    write_cards(folder)
    assert "held-out questions lay" not in (folder / "README.md").read_text()


def test_templates_below_a_run_go_and_what_a_user_wrote_stays(folder, adapter):
    record(folder, BUDGETS)
    shutil.copytree(adapter, folder / "checkpoint-2")
    assert "# Model Card for" in (folder / "checkpoint-2" / "README.md").read_text()
    (folder / "notes").mkdir()
    (folder / "notes" / "README.md").write_text("my own")
    write_cards(folder)
    names = {str(path.relative_to(folder)) for path in folder.rglob("README.md")}
    assert names == {"README.md", "notes/README.md"} and check_card(folder)


def test_a_folder_without_a_record_gets_no_card(adapter, tmp_path):
    write_card(tmp_path)
    assert list(tmp_path.iterdir()) == []


ROWS = [{"prompt": [{"role": "user", "content": "1+1=?"}]}] * 4
SETTINGS = {"use_cpu": True, "bf16": False, "report_to": "none", "max_steps": 1, "save_strategy": "steps"}
SETTINGS |= {"save_steps": 1, "per_device_train_batch_size": 2}


def grpo(kind, model, folder):
    config = GRPOConfig(str(folder), **SETTINGS, num_generations=2, max_completion_length=4)
    rows, tokenizer = Dataset.from_list(ROWS), AutoTokenizer.from_pretrained(model)
    return kind(str(model), lambda completions, **_: [0.0] * len(completions), config, rows, None, tokenizer)


def sft(kind, model, folder):
    rows = Dataset.from_list([{"input_ids": [1, 2, 3], "completion_mask": [0, 1, 1]}] * 4)
    config, tokenizer = SFTConfig(str(folder), **SETTINGS), AutoTokenizer.from_pretrained(model)
    return kind(str(model), args=config, train_dataset=rows, processing_class=tokenizer)


@pytest.mark.parametrize(
    ("make", "kind"),
    [(grpo, PlainGRPOTrainer), (grpo, ComposedGRPOTrainer), (sft, SupervisedTrainer)],
    ids=["plain", "composed", "sft"],
)
def test_trap_a_checkpoint_leaves_the_card_of_an_unfinished_run(make, kind, random_model, tmp_path):
    output = tmp_path / "run"
    output.mkdir()
    trainer = make(kind, random_model, output)
    trainer.create_model_card("run")
    assert not (output / "README.md").exists()  # no record, no card
    record(output, BUDGETS)
    trainer.train()
    assert (output / "checkpoint-1").is_dir()
    text = (output / "README.md").read_text()
    assert "This run has not ended" in text and "--resume_from_checkpoint true" in text and "Model Card" not in text


@pytest.mark.parametrize(
    "words, told", [("{question} Spend {effort:03}.", True), ("{question} Spend {effort}.", False)]
)
def test_a_card_says_where_a_number_is_written_in_three_digits(words, told, tmp_path):
    arguments = {"wording": {"effort": words}, "modes": {"effort": 3, "free": 1}, "budget_low": 8, "budget_high": 64}
    _, [prompt, _], how = asked_budgets(tmp_path, {"arguments": arguments})
    assert prompt == f"{{question}} Spend {'025' if told else '25'}." and ("three digits" in how) == told

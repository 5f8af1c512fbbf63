"""Publishing: the folder holds what a stranger needs and nothing else, and is pushed by the Hub's own protocol."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from rlred.cli import main as rlred
from rlred.data.prompts import Conversation, Prompts, prompt_ids
from rlred.evaluation.interruptions import measure_interruptions
from rlred.evaluation.measures import measure
from rlred.evaluation.report import adherence
from rlred.evaluation.results import Result, write_result
from rlred.publish import visual_card as card
from rlred.publish.export import base_is_local
from rlred.publish.server import may_run_code
from rlred.publish.template import base_template
from rlred.publish.text_card import About, prompt_of
from rlred.vision.rows import load_rows
from tests.hub import Hub
from tests.paths import ROOT
from tests.vision_recipe import SMALL, command

ODD = (r"\s?\p{L}+", r"\frac\sqrt", "/home/me/x")  # tokens that look like paths


@pytest.fixture
def run(random_model, tmp_path):
    """The output folder of a finished run, with what training leaves behind beside the adapter."""
    folder = tmp_path / "run"
    model = AutoModelForCausalLM.from_pretrained(random_model)
    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(random_model).save_pretrained(folder)
    about = {"mode": "max", "correct": 1.0, "truncated": False, "completion": "x"}
    blocks = [
        measure([{**about, "question_id": 0, "budget": b, "length": b - cut} for b in (16, 64)]) for cut in (0, 3)
    ]
    labels = {"model": "tiny_reasoner", "adapter": str(folder), "seed": 0, "n_questions": 1, "temperature": 1.0}
    write_result(adherence(labels, dict(zip(("baseline", "trained"), blocks, strict=True))), folder)
    arguments = {"questions": "me/questions", "wording": "l1", "modes": {"max": 1, "exact": 1}, "hindsight": True}
    arguments |= {"budget_low": 16, "budget_high": 64}
    settings = {"arguments": arguments, "training": {"max_steps": 60, "seed": 0}, "model": {"dtype": "float32"}}
    (folder / "run.json").write_text(json.dumps(settings))
    (folder / "training_args.bin").write_bytes(b"a pickle")
    (folder / "checkpoint-2").mkdir()
    return folder


def test_the_folder_holds_what_a_stranger_needs_and_nothing_else(run, random_model, tmp_path):
    output = tmp_path / "out"
    assert rlred(["export", str(run), "--output", str(output), "--base_model", "me/base", "--merge"]) == 0
    names = {path.name for path in output.iterdir()}
    assert names >= {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "README.md", "adherence.png"}
    assert not [path for path in output.rglob("*") if path.suffix in (".bin", ".pt", ".pkl", ".pth")]
    assert not list(tmp_path.glob(".out*"))  # nothing is left of the making

    base = AutoModelForCausalLM.from_pretrained(random_model)
    ids = torch.arange(8)[None]
    adapted = PeftModel.from_pretrained(base, output).merge_and_unload()
    merged = AutoModelForCausalLM.from_pretrained(output / "merged")
    torch.testing.assert_close(adapted(ids).logits, merged(ids).logits, rtol=0, atol=1e-5)
    AutoTokenizer.from_pretrained(output).apply_chat_template([{"role": "user", "content": "1+1"}])


@pytest.mark.parametrize("name", ["l1_maxlen", "l1_effort"])
def test_an_embedded_adapter_is_exported_by_its_name_in_every_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert rlred(["export", name]) == 0
    weights = (tmp_path / "exports" / name / "adapter_model.safetensors").read_bytes()
    assert weights == (ROOT / "data" / name / "adapter_model.safetensors").read_bytes()


def test_the_card_says_how_to_ask_and_what_was_measured(run, tmp_path):
    assert rlred(["export", str(run), "--output", str(tmp_path / "out"), "--base_model", "me/base"]) == 0
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.base_model == "me/base" and card.data.datasets == ["me/questions"]
    assert card.data.library_name == "peft" and "length-control" in card.data.tags
    assert "Think for maximum 64 tokens." in card.text and "Think for exactly 64 tokens." in card.text
    assert "| max | 16 |" in card.text and "(adherence.png)" in card.text
    for way in ("PeftModel.from_pretrained", "merge_and_unload", "--enable-lora"):
        assert way in card.text
    assert str(tmp_path) not in card.text  # no folder of this machine


def test_trap_a_card_shows_interruptions_which_have_no_budgets_to_follow(run, tmp_path):
    about = {"question_id": 0, "mode": "free", "budget": None, "truncated": False, "length": 9, "cut_away": 4}
    about |= {"answer_length": 3, "natural_answer_length": 3, "naturally_correct": 1.0, "correct": 1.0}
    rows = measure_interruptions([{**about, "fraction": share} for share in (0.5, 1.0)])
    blocks = {name: {"title": title, "rows": rows} for name, title in (("baseline", "base"), ("trained", str(run)))}
    labels = {"model": "tiny_reasoner", "adapter": str(run), "n_questions": 1, "temperature": 1.0}
    write_result(Result("interruptions", labels, blocks), run)
    assert rlred(["export", str(run), "--output", str(tmp_path / "out"), "--base_model", "me/base"]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| free | 50 % |" in card and "(interruptions.png)" in card and "| max | 16 |" in card
    assert (tmp_path / "out" / "interruptions.png").exists() and str(tmp_path) not in card


def test_the_cards_metadata_hold_what_was_measured(run, tmp_path):
    assert rlred(["export", str(run), "--output", str(tmp_path / "out"), "--base_model", "me/base"]) == 0
    card = ModelCard.load(tmp_path / "out" / "README.md")
    found = {one.metric_name: one for one in card.data.eval_results}
    assert list(found) == [
        "Rank correlation of budget and length within a question",
        "Mean absolute error as a share of the budget, mode max",
        "Share of completions over budget, mode max",
        "Accuracy, max 16 tokens",
        "Accuracy, max 64 tokens",
    ]
    # Lengths 13 and 61 at budgets 16 and 64: (3/16 + 3/64) / 2.
    assert found["Mean absolute error as a share of the budget, mode max"].metric_value == 0.1172
    assert found["Accuracy, max 16 tokens"].metric_value == 1.0
    [about] = {(one.task_type, one.dataset_type, one.dataset_split) for one in found.values()}
    assert about == ("text-generation", "me/questions", "test") and card.data.model_name == "out"
    assert "model-index:" in (tmp_path / "out" / "README.md").read_text()


def test_a_card_without_measures_has_none_in_its_metadata(run, tmp_path):
    for name in ("json", "md", "png"):
        (run / f"adherence.{name}").unlink(missing_ok=True)
    assert rlred(["export", str(run), "--output", str(tmp_path / "out"), "--base_model", "me/base"]) == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert "model-index" not in text and "model_name" not in text.partition("\n---")[0]


def texts(folder):
    """The text files of an exported folder, by their place in it."""
    kinds = (".json", ".md", ".jinja")
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.suffix in kinds}


def test_a_server_finds_the_words_of_a_budget_in_the_template(run, tmp_path):
    output = tmp_path / "out"
    assert rlred(["export", str(run), "--output", str(output), "--merge"]) == 0
    base = (run / "chat_template.jinja").read_text()
    trained = AutoTokenizer.from_pretrained(run)
    prompts = Prompts().fitted(trained)
    message = [{"role": "user", "content": "1+1?"}]
    for place in (output, output / "merged"):
        served = AutoTokenizer.from_pretrained(place)
        assert served.chat_template != base and base_template(served.chat_template) == base
        for mode, budget in (("max", 40), ("exact", 40), ("free", None)):
            settings = {"budget_mode": mode} | ({"thinking_budget": budget} if budget else {})
            ids = prompt_ids(served, Conversation(message, settings))
            assert ids == prompts.ids(trained, {"question": "1+1?"}, budget, mode)
        assert prompt_ids(served, message) == prompt_ids(trained, message)
    assert rlred(["export", str(output), "--output", str(tmp_path / "again")]) == 0  # an export is a run's folder too
    assert base_template((tmp_path / "again" / "chat_template.jinja").read_text()) == base


def test_an_exported_folder_names_no_path_of_this_machine(run, random_model, tmp_path):
    output, name = tmp_path / "out", Path(random_model).name
    record = json.loads((run / "run.json").read_text())
    record["arguments"]["questions"] = str(tmp_path / "sums.jsonl")
    record["model"]["model_name_or_path"] = str(random_model)
    (run / "run.json").write_text(json.dumps(record))
    assert rlred(["export", str(run), "--output", str(output), "--merge"]) == 0
    found = texts(output)
    assert {"README.md", "run.json", "adapter_config.json", "adherence.md", "merged/config.json"} <= set(found)
    assert [place for place, text in found.items() if str(tmp_path) in text or str(random_model) in text] == []
    assert json.loads(found["adapter_config.json"])["base_model_name_or_path"] == name
    assert f"`{name}` is what its folder was called" in found["README.md"] and "sums.jsonl" in found["README.md"]
    assert "base_model:" not in found["README.md"]  # the Hub would look for it
    request = json.loads(found["README.md"].partition("-d '")[2].partition("'\n")[0])
    assert request["chat_template_kwargs"] == {"thinking_budget": 64, "budget_mode": "max"}


@pytest.mark.parametrize("name", ["l1_effort", "l1_exact", "l1_maxlen"])
def test_a_published_adapter_is_what_export_makes_of_it_today(name, tmp_path):
    """Where this fails: `rlred export data/NAME --output /tmp/NAME`, and the files go back into data/NAME."""
    published, again = ROOT / "data" / name, tmp_path / name
    assert rlred(["export", str(published), "--output", str(again)]) == 0
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {
        path.name: path.read_bytes() for path in published.iterdir()
    }
    config = json.loads((published / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "data/tiny_reasoner"  # a checkout has it; rlred finds it anywhere
    assert not [place for place, text in texts(published).items() if re.search(r"/(work|home|tmp|root)/", text)]


def test_trap_what_a_tokenizer_splits_at_is_no_path(run, tmp_path):
    told = json.loads((run / "tokenizer.json").read_text())
    told["added_tokens"] += [{**told["added_tokens"][0], "id": 9000 + i, "content": text} for i, text in enumerate(ODD)]
    (run / "tokenizer.json").write_text(json.dumps(told))
    for name in ("vocab.txt", "merges.txt", "tokenizer.model", "video_preprocessor_config.json"):
        (run / name).write_text('{"one": "/home/me/x"}')
    record = json.loads((run / "run.json").read_text())
    record["arguments"]["hindsight_settings"] = {"markers": {"every": 8, "before": r"\btake\b"}}
    record["arguments"]["questions"] = "file:///home/me/sums.jsonl"
    (run / "run.json").write_text(json.dumps(record))
    assert rlred(["export", str(run), "--output", str(tmp_path / "out"), "--base_model", "me/base"]) == 0
    same = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "merges.txt", "tokenizer.model")
    for name in (*same, "video_preprocessor_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (run / name).read_bytes(), name
    arguments = json.loads((tmp_path / "out" / "run.json").read_text())["arguments"]
    assert arguments["hindsight_settings"]["markers"]["before"] == r"\btake\b"
    assert arguments["questions"] == "sums.jsonl"


def test_templates_that_a_tokenizer_keeps_by_name_are_all_worded(run, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(run)
    plain = tokenizer.chat_template
    tokenizer.chat_template = {"default": plain, "tool_use": "tools" + plain}
    tokenizer.save_pretrained(run)
    assert rlred(["export", str(run), "--output", str(tmp_path / "out")]) == 0
    served = AutoTokenizer.from_pretrained(tmp_path / "out").chat_template
    assert {name: base_template(text) for name, text in served.items()} == tokenizer.chat_template
    assert all("thinking_budget" in text for text in served.values())


def test_a_run_without_budgets_keeps_its_template(run, tmp_path):
    record = json.loads((run / "run.json").read_text())
    record["arguments"]["modes"] = {"free": 1}
    record["arguments"]["hindsight"] = False
    (run / "run.json").write_text(json.dumps(record))
    assert rlred(["export", str(run), "--output", str(tmp_path / "out"), "--base_model", "me/base"]) == 0
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == (run / "chat_template.jinja").read_text()
    assert "How to serve" not in (tmp_path / "out" / "README.md").read_text()


def test_a_run_on_pictures_is_published_with_its_visual_report(tmp_path, monkeypatch, capsys):
    folder, output = tmp_path / "run", tmp_path / "out"
    more = ["--strategy", "prune", "--thumbnail", "0.0625"]
    assert command(monkeypatch, "visual_sparsity", "--output_dir", folder, *SMALL, *more) == 0
    assert rlred(["export", str(folder), "--output", str(output), "--merge"]) == 0
    names = {path.name for path in output.iterdir()}
    assert names >= {"processor_config.json", "visual.json", "visual.md", "visual.png", "positions.png", "run.json"}
    assert not [path for path in output.rglob("*") if path.suffix in (".bin", ".pt", ".pkl", ".pth")]

    page = ModelCard.load(output / "README.md")
    assert page.data.pipeline_tag == "image-text-to-text" and "visual-tokens" in page.data.tags
    assert "chooses how many of a picture's tokens to use (`<look-1>` 100 %, `<look-1/2>` 50 %" in page.text
    table = [line for line in (output / "visual.md").read_text().splitlines() if line.startswith("| ")]
    assert len(table) == 2 + 5 + 8 and all(line in page.text for line in table)
    assert "(visual.png)" in page.text and "(positions.png)" in page.text and "reward `visual_sparsity`" in page.text

    # A stranger runs what the card says; here the adapter lies in a folder.
    code = page.text.partition("```python")[2].partition("```")[0].replace('"out"', repr(str(output)))
    row = load_rows("pictures", limit=1)[0]
    capsys.readouterr()
    exec(code, {"question": row["question"], "image": row["image"]})
    token, used, _ = capsys.readouterr().out.split(" ", 2)
    assert token in json.loads((output / "run.json").read_text())["arguments"]["budget_tokens"] and 8 <= int(used) <= 68
    AutoModelForImageTextToText.from_pretrained(output / "merged")
    AutoProcessor.from_pretrained(output / "merged")


def test_a_card_says_what_a_policy_with_pictures_does():
    arguments = {
        "budget_tokens": {"<tool_call>": 1.0},
        "thumbnail": 0.25,
        "on_request": True,
        "suppress_tokens": ["<a>"],
    }
    arguments |= {"instruction": "Ask.\nOr not.", "score": "maxmin", "strategy": "pool", "max_answer": 9}
    assert "answers from 25 % of a picture's tokens, or asks for more (`<tool_call>` 100 %)" in card.does(arguments)
    assert "for as long as the question is hard" in card.does({**arguments, "budget_tokens": {}})
    code = card.usage("me/a", "me/b", arguments)
    compile(code.strip("`").removeprefix("python"), "card", "exec")
    assert "convert_tokens_to_ids(['<a>'])" in code and "Or not." in code and "Prompts" not in code
    told = card.usage("me/a", "me/b", arguments, Prompts(system_prompt="Be brief.", chat_template_kwargs={"a": False}))
    compile(told.strip("`").removeprefix("python"), "card", "exec")
    assert "prompts=Prompts(system_prompt='Be brief.', chat_template_kwargs={'a': False})" in told
    assert "from rlred.data.prompts import Prompts" in told


def test_the_card_says_the_system_prompt_and_the_settings_of_the_template(run, tmp_path):
    record = json.loads((run / "run.json").read_text())
    record["arguments"]["system_prompt"] = "Answer like a mathematician."
    record["training"]["chat_template_kwargs"] = {"enable_thinking": False}
    folder = tmp_path / "asked"
    shutil.copytree(run, folder)
    (folder / "run.json").write_text(json.dumps(record))
    assert rlred(["export", str(folder), "--output", str(tmp_path / "out"), "--base_model", "me/base"]) == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert "The system prompt was:\n\n    Answer like a mathematician." in text
    assert 'The chat template was given `{"enable_thinking": false}`.' in text
    assert '"role": "system", "content": "Answer like a mathematician."' in text and "enable_thinking=False" in text


def changed(run, folder, arguments=None, **record):
    """A copy of a run with other settings in its run.json."""
    shutil.copytree(run, folder)
    told = json.loads((run / "run.json").read_text())
    told["arguments"] |= arguments or {}
    (folder / "run.json").write_text(json.dumps({**told, **record}))
    return folder


@pytest.mark.parametrize(
    "arguments, record, low, high",
    [
        ({}, {}, 16, 64),
        ({"budget_distribution": "choices", "budget_choices": [24, 48, 8]}, {}, 8, 48),
        ({"budget_distribution": "uniform", "budget_choices": [24, 48, 8]}, {}, 16, 64),
        ({"budget_distribution": "log_uniform"}, {"trained_budgets": [20, 33]}, 20, 33),
    ],
)
def test_a_card_names_the_budgets_that_were_drawn(arguments, record, low, high, run, tmp_path):
    arguments = {**arguments, "hindsight_settings": {"markers": {"every": 200}}}
    folder = changed(run, tmp_path / "drawn", arguments, **record)
    assert rlred(["export", str(folder), "--output", str(tmp_path / "out"), "--base_model", "me/base"]) == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert f"Budgets from {low} to {high} tokens were trained." in text and f'"thinking_budget": {high}' in text
    assert f"{high} of {high} tokens have been spent" in text
    assert f"(trained: {low} to {high})" in (tmp_path / "out" / "chat_template.jinja").read_text()


@pytest.mark.parametrize(
    "examples, questions, wanted",
    [(["7+5+2=?", "3+4=?"], "sums", "3+4=?"), ([], "sums", "=?"), ([], "me/questions", "What is 2+2?")],
)
def test_the_code_of_a_card_asks_a_question(examples, questions, wanted, run, tmp_path):
    found = json.loads((run / "adherence.json").read_text())
    about = {"mode": "max", "budget": 16, "length": 16, "correct": 1.0, "completion": "x"}
    found["blocks"]["trained"]["examples"] = [{"question": question, **about} for question in examples]
    (run / "adherence.json").write_text(json.dumps(found))
    settings = {**json.loads((run / "run.json").read_text())}
    settings["arguments"]["questions"] = questions
    about = About.of(run, settings)
    prompt = prompt_of(run, about, settings)
    assert f"{wanted} Let's think step by step" in prompt and "{question}" not in prompt
    assert "{question} Let's think" in about.prompts[0]  # the section on how to ask has its place


@pytest.mark.parametrize("cap, wanted", [(4096, 4096), (96, 96), ("None", 128)])
def test_the_code_of_a_card_lets_an_answer_be_as_long_as_in_training(cap, wanted, run, tmp_path):
    folder = changed(run, tmp_path / "long", training={"max_steps": 60, "seed": 0, "max_completion_length": cap})
    assert rlred(["export", str(folder), "--output", str(tmp_path / "out"), "--base_model", "me/base"]) == 0
    assert f"max_new_tokens={wanted})" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    "trained_on, recorded, given, name, revision",
    [
        ("org/model", "v2", None, "org/model", "v2"),
        ("org/model", "main", None, "org/model", None),
        ("org/model", "v2", "org/model", "org/model", "v2"),
        ("org/model", "v2", "me/copy", "me/copy", None),  # which need not have it
        ("/home/x/hub/models--org--model/snapshots/1f2e", "main", None, "org/model", "1f2e"),
        ("/home/x/sft", "v2", "me/sft", "me/sft", None),
    ],
)
def test_a_base_is_loaded_at_the_revision_that_was_trained_on(
    trained_on, recorded, given, name, revision, run, tmp_path
):
    config = json.loads((run / "adapter_config.json").read_text())
    (run / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": trained_on}))
    model = {"model_name_or_path": trained_on, "model_revision": recorded, "dtype": "float32"}
    folder, place, more = changed(run, tmp_path / "run2", model=model), tmp_path / "out", []
    for _ in range(2):  # an export is a run's folder too
        more = more or (["--base_model", given] if given else [])
        assert rlred(["export", str(folder), "--output", str(place), "--space", *more]) == 0
        code = f'"{name}"' + (f', revision="{revision}"' if revision else "")
        text = (place / "README.md").read_text()
        assert f"AutoModelForCausalLM.from_pretrained({code})" in text
        assert text.count(f"{name} --revision {revision} ") == (3 if revision else 0)
        page = json.loads((place / "space" / "page.json").read_text())
        assert (page["base"], page["revision"]) == (name, revision)
        folder, place, more = place, tmp_path / "again", ["--base_model", given] if given == trained_on else []


@pytest.mark.parametrize(
    "trained_on, given, public",
    [
        ("org/model", None, True),
        ("gpt2", None, True),
        ("/home/x/hub/models--org--model/snapshots/1f2e", None, True),
        ("/home/x/sft", None, False),  # whether or not this machine has it
        ("outputs/sft/merged", None, False),
        ("./sft", None, False),
        ("data/tiny_reasoner", None, False),
        ("tiny_reasoner", None, False),
        ("/home/x/sft", "me/sft", True),
    ],
)
def test_trap_nothing_is_pushed_whose_base_nobody_else_can_load(trained_on, given, public, run):
    config = json.loads((run / "adapter_config.json").read_text())
    (run / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": trained_on}))
    assert base_is_local(run, given) is not public


OWN = """from transformers import PreTrainedTokenizerFast


class OwnTokenizer(PreTrainedTokenizerFast):
    def own(self):
        return "own"
"""


@pytest.mark.parametrize("trusted", [True, False])
def test_a_tokenizer_that_brings_code_is_exported_where_the_run_was_allowed_to_run_it(trusted, run, tmp_path):
    folder = changed(run, tmp_path / "own", training={"max_steps": 60, "seed": 0, "trust_remote_code": trusted})
    (folder / "tokenization_own.py").write_text(OWN)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {
        "tokenizer_class": "OwnTokenizer",
        "auto_map": {"AutoTokenizer": [None, "tokenization_own.OwnTokenizer"]},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    words = ["export", str(folder), "--output", str(tmp_path / "out"), "--base_model", "me/base"]
    status = subprocess.run(
        [sys.executable, "-m", "rlred.cli", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if not trusted:
        assert not (tmp_path / "out" / "tokenization_own.py").exists()
        return
    assert status.returncode == 0, status.stderr
    assert AutoTokenizer.from_pretrained(tmp_path / "out", trust_remote_code=True).own() == "own"
    assert "thinking_budget" in (tmp_path / "out" / "chat_template.jinja").read_text()
    assert may_run_code(tmp_path / "out")


def test_a_run_is_called_by_its_folder_from_inside_of_it(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(run)
    assert rlred(["export", ".", "--base_model", "me/base"]) == 0
    assert (run / "exports" / "run" / "README.md").read_text().partition("---\n\n")[2].startswith("# run\n")
    assert rlred(["report", "."]) == 0
    assert (run / "1-run-adherence.png").is_file() and "<title>rlred: run</title>" in (run / "report.html").read_text()


def push(run, output, endpoint, **changes):
    """`rlred export --push` in a process of its own, against `endpoint`."""
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_TOKEN": "hf_token", "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_HUB_OFFLINE": "0", **changes}
    command = [sys.executable, "-m", "rlred.cli", "export", str(run), "--output", str(output)]
    command += ["--base_model", "me/base", "--push", "me/adapter", "--private"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_push_uploads_the_folder_by_the_hubs_protocol(run, tmp_path):
    hub = Hub()
    done = push(run, tmp_path / "out", hub.url)
    assert done.returncode == 0, done.stderr
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert hub.files == written
    assert hub.created[0]["name"] == "adapter" and hub.created[0]["organization"] == "me"
    assert hub.created[0].get("private") or hub.created[0].get("visibility") == "private"
    assert hub.cards and hub.cards[0].startswith("---\n")  # the Hub was asked to validate the card


@pytest.mark.parametrize(
    "changes",
    [
        {"HF_TOKEN": "hf_wrong"},
        pytest.param({"HF_HUB_OFFLINE": "1"}, marks=pytest.mark.slow),
        pytest.param({"HF_ENDPOINT": "http://127.0.0.1:9"}, marks=pytest.mark.slow),
    ],
)
def test_a_push_that_fails_is_one_clear_line_and_loses_nothing(run, tmp_path, changes):
    done = push(run, tmp_path / "out", Hub().url, **changes)
    assert done.returncode == 2
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "--push me/adapter" in line and f"hf upload me/adapter {tmp_path / 'out'}" in line
    assert (tmp_path / "out" / "adapter_model.safetensors").exists() and run.exists()


BAD = [
    ("export {tmp}/nothing", "there is no adapter_model.safetensors"),
    ("export {run} --output {run}", "exists and is not written over"),
    ("export {run} --output {tmp}/out --push me/adapter", "name the base on the Hub with --base_model"),
]


@pytest.mark.parametrize("command, message", BAD)
def test_bad_exports_are_one_clear_line(command, message, run, tmp_path, capsys):
    assert rlred(command.format(run=run, tmp=tmp_path).split(" ")) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line
    assert not (tmp_path / "out").exists()

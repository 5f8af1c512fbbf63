"""`rlred play` and `rlred export --space`: one page over an adapter, which runs without rlred."""

import ast
import contextlib
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time

import pytest
import torch
from huggingface_hub import RepoCard

from rlred.cli import main as rlred
from rlred.data.models import NEUTRAL
from rlred.publish.names import Base
from rlred.publish.space import GRADIO, played, requirements, write_space
from tests.paths import ROOT

ADAPTER = ROOT / "data" / "l1_maxlen"
HAS_GRADIO = importlib.util.find_spec("gradio") is not None

# --- the folder of a Space --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    output = tmp_path_factory.mktemp("exports") / "mine"
    assert rlred(["export", str(ADAPTER), "--output", str(output), "--space"]) == 0
    return output / "space"


def test_a_space_holds_all_that_its_page_reads(space):
    names = {str(path.relative_to(space)) for path in space.rglob("*") if path.is_file()}
    assert {"app.py", "page.json", "README.md", "requirements.txt", "adapter/chat_template.jinja"} <= names
    assert {"adapter/adapter_model.safetensors", "adapter/tokenizer.json", "base/model.safetensors"} <= names
    assert (space / "app.py").read_bytes() == (ROOT / "rlred" / "publish" / "app.py").read_bytes()
    about = json.loads((space / "page.json").read_text())
    assert about["base"] is None and about["modes"] == ["max", "exact"] and about["trained"] == [16, 80]
    assert len(about["examples"]) == 3 and about["budget"] == "thinking_budget" and about["temperature"] == 1.0
    assert about["sampling"] == NEUTRAL and about["revision"] is None
    assert not [one for one in space.rglob("*.json") if str(ROOT) in one.read_text()]


def test_a_space_lists_every_library_that_its_page_imports(space):
    names = set()
    for node in ast.walk(ast.parse((space / "app.py").read_text())):
        names |= {one.name for one in node.names} if isinstance(node, ast.Import) else set()
        names |= {node.module} if isinstance(node, ast.ImportFrom) else set()
    imported = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
    listed = {re.match(r"[\w-]+", line)[0] for line in (space / "requirements.txt").read_text().splitlines()}
    assert imported == {"gradio", "torch", "transformers", "peft"} and imported <= listed
    assert all(re.search(r"[<=]", line) for line in requirements())  # bounded, as rlred's own are


def test_the_settings_of_a_space_name_the_gradio_that_the_extra_takes(space):
    settings = RepoCard.load(space / "README.md", ignore_metadata_errors=False).data.to_dict()
    assert settings["sdk"] == "gradio" and settings["app_file"] == "app.py" and settings["title"] == "mine"
    assert settings["sdk_version"] == GRADIO
    [extra] = re.findall(r'play = \["gradio>=([\d.]+),<(\d+)"\]', (ROOT / "pyproject.toml").read_text())
    least, below = (tuple(map(int, one.split("."))) for one in extra)
    assert least <= tuple(map(int, GRADIO.split("."))) < below


@pytest.mark.parametrize(
    "name, public, message",
    [
        ("my-base", False, "--space: nobody else has the base 'my-base'; name it on the Hub with --base_model"),
        ("me/base", True, None),
    ],
)
def test_a_base_that_a_space_could_not_load_is_refused(name, public, message, tmp_path):
    from rlred.publish.serving import Served

    template = Served.of(ADAPTER, "tiny_reasoner")
    if message is None:
        write_space(ADAPTER, tmp_path / "space", Base(name, public), template, "mine")
        assert json.loads((tmp_path / "space" / "page.json").read_text())["base"] == name
        assert not (tmp_path / "space" / "base").exists()
    else:
        with pytest.raises(ValueError, match=re.escape(message)):
            write_space(ADAPTER, tmp_path / "space", Base(name, public), template, "mine")


@pytest.mark.parametrize(
    "modes, message", [({"free": 1}, "no budget was trained"), ({"effort": 1}, "efforts were trained, and no number")]
)
def test_an_adapter_without_budgets_has_no_page_and_is_not_merged_first(modes, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("rlred.publish.export.merge_adapter", lambda *_: pytest.fail("it was merged"))
    folder = tmp_path / "run"
    shutil.copytree(ADAPTER, folder)
    record = json.loads((folder / "run.json").read_text())
    record["arguments"] |= {"modes": modes, "hindsight": False}
    (folder / "run.json").write_text(json.dumps(record))
    assert rlred(["export", str(folder), "--output", str(tmp_path / "out"), "--merge", "--space"]) == 2
    assert f"--space: out: {message}" in (said := capsys.readouterr().err) and "the page asks for budgets" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words, message", [(["x", "--port", "0"], "--port must be 1 to 65535, got 0")])
def test_a_wrong_word_is_one_clear_line(words, message, capsys):
    assert rlred(["play", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(HAS_GRADIO, reason="the extra is installed")
def test_a_missing_extra_is_one_clear_line(capsys):
    assert rlred(["play", "l1_maxlen"]) == 2
    assert "rlred play needs gradio; install it with: pip install 'rlred[play]'" in capsys.readouterr().err


# --- the page ---------------------------------------------------------------------------------------------------------

needs_gradio = pytest.mark.skipif(not HAS_GRADIO, reason="no gradio: pip install 'rlred[play]'")


@pytest.fixture(scope="module")
def adapter():
    from rlred.publish.app import Adapter

    with played(str(ADAPTER)) as folder:
        yield Adapter(folder)


@needs_gradio
def test_three_budgets_stream_side_by_side(adapter):
    from rlred.publish.app import asking

    pages = list(asking(adapter)("3+7+2+9=?", "max", 16, 48, 80))
    assert len(pages) > 2 and pages[-1][0].startswith("Done")

    def used(page: list) -> list[int]:
        return [int(re.match(r"<b>(\d+)</b> of \d+ tokens", text)[1]) for text in page[1::2]]

    after = used(pages[-1])[0::2]
    assert after[0] <= 16 < after[1] <= 48 < after[2] <= 80  # its card: never over budget, half of it and more
    assert all(
        a <= b
        for first, then in zip(pages, pages[1:], strict=False)
        for a, b in zip(used(first), used(then), strict=True)
    )
    assert all("\\boxed{" in text for text in pages[-1][2::4]) and "<|" not in "".join(pages[-1])
    assert len(pages[-1]) == 1 + 4 * 3


@needs_gradio
def test_trap_before_and_after_are_the_base_and_the_adapter(adapter):
    """Their cards: of 16 tokens, the adapter never needs more; the base needs more in 83 % of its answers."""
    inputs = adapter.inputs("3+7+2+9=?", "max", [16] * 16)
    over = {}
    for on in (True, False, True):
        *_, rows = adapter.answers(inputs, [16] * 16, on)
        over[on] = sum(len(row) > 16 for row in rows)
        assert over.get(True) == 0
    assert over[False] > 4  # fewer: one in 10 million


@needs_gradio
def test_trap_a_page_samples_as_training_does_whatever_the_base_says(adapter, monkeypatch):
    inputs, found = adapter.inputs("3+7+2+9=?", "max", [48]), []
    for own in ({}, {"repetition_penalty": 3.0, "no_repeat_ngram_size": 2, "min_p": 0.9, "top_h": 0.1, "top_k": 1}):
        for name, value in own.items():
            monkeypatch.setattr(adapter.model.generation_config, name, value)
        torch.manual_seed(0)
        found.append(list(adapter.answers(inputs, [48], True))[-1])
    assert found[0] == found[1]


@needs_gradio
@pytest.mark.parametrize("revision, asked", [(None, "main"), ("v2", "v2")])
def test_a_page_loads_the_revision_that_was_trained_on(revision, asked, monkeypatch):
    from rlred.publish import app

    seen, real = {}, app.AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        app.AutoModelForCausalLM, "from_pretrained", lambda name, **more: seen.update(more) or real(name, **more)
    )
    with played(str(ADAPTER)) as folder:
        about = json.loads((folder / "page.json").read_text())
        (folder / "page.json").write_text(json.dumps({**about, "revision": revision}))
        app.Adapter(folder)
    assert seen["revision"] == asked


@needs_gradio
@pytest.mark.parametrize(
    "question, budget, message",
    [
        (
            "1+1=?",
            0,
            "thinking_budget=0 is no budget; give a whole number of tokens from 1 to 2048 (trained: 16 to 80)",
        ),
        ("1+1=?", -5, "thinking_budget=-5 is no budget"),
        ("1+1=?", "many", 'thinking_budget="many" is no budget'),
        ("1+1=?", 10**9, "thinking_budget=1000000000 is no budget"),
        ("1+1=?", 16.5, "thinking_budget=16.5 is no budget"),
        ("1+1=?", None, "budget_mode="),
        ("1+1=?", 2040, "together they are more than the 2048 that this model reads"),
        ("1+1=? " * 1000, 16, "Ask a shorter question, or for less."),
        ("  ", 16, "The question is empty."),
        (None, 16, "The question is empty."),
    ],
)
def test_bad_input_is_a_sentence_and_leaves_the_answers_as_they_are(question, budget, message, adapter):
    from rlred.publish.app import asking

    [page] = asking(adapter)(question, "max", 16, budget, 80)
    assert message in page[0] and all(part == {"__type__": "update"} for part in page[1:])


@needs_gradio
def test_a_whole_number_may_come_as_a_float(adapter):
    assert adapter.inputs("1+1=?", "exact", [16.0])["input_ids"].tolist() == (
        adapter.inputs("1+1=?", "exact", [16])["input_ids"].tolist()
    )


@needs_gradio
def test_an_unknown_mode_is_a_sentence(adapter):
    with pytest.raises(ValueError, match='budget_mode="extreme" is no mode of this model'):
        adapter.inputs("1+1=?", "extreme", [16])


@needs_gradio
def test_what_a_model_raises_reaches_the_reader(adapter, monkeypatch):
    def broken(**_):
        raise RuntimeError("out of memory")

    inputs = adapter.inputs("1+1=?", "max", [16])
    monkeypatch.setattr(adapter.model, "generate", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(adapter.answers(inputs, [16], True))


@needs_gradio
def test_a_reader_that_goes_ends_the_model(adapter):
    inputs = adapter.inputs("3+7+2+9=?", "max", [80])
    answers = adapter.answers(inputs, [80], True)
    assert len(next(answers)[0]) == 1
    answers.close()  # joins the thread, which ends long before the cut


@needs_gradio
@pytest.mark.slow
def test_a_space_starts_without_rlred_and_answers(space, tmp_path):
    from gradio_client import Client

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "import runpy, sys; sys.modules['rlred'] = None; runpy.run_path(sys.argv[1], run_name='__main__')"
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port), "HF_HUB_OFFLINE": "1"}
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(space / "app.py")], cwd=tmp_path, env=environment, stdout=log, stderr=log
        )
        try:
            for _ in range(300):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
                    break
                assert process.poll() is None, (tmp_path / "log").read_text()[-2000:]
                time.sleep(1)
            client = Client(f"http://127.0.0.1:{port}", verbose=False)
            status, used, text, *_ = client.predict("3+7+2+9=?", "max", 16, 48, 80, api_name="/ask")
            assert status.startswith("Done") and " of 16 tokens" in used and "boxed" in text
            with pytest.raises(Exception, match="less than minimum|greater than maximum|minimum value"):
                client.predict("3+7+2+9=?", "max", 0, 48, 80, api_name="/ask")
        finally:
            process.terminate()
            process.wait(60)


@needs_gradio
def test_the_page_is_made(adapter, space):
    from rlred.publish.app import page

    kinds = [type(block).__name__ for block in page(space).blocks.values()]
    assert kinds.count("Slider") == 3 and kinds.count("HTML") >= 6

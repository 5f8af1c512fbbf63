"""The one loader: what it is told reaches transformers, and what cannot be loaded is one clear line."""

import dataclasses
import shutil
import tomllib
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, ProcessorMixin
from trl import ModelConfig

from rlred.cli.generate import Generate
from rlred.data.models import Loading, check_model, load_model, load_tokenizer, local_adapter
from rlred.evaluation.sweep import merged_adapter
from rlred.tiny import ADAPTERS, EMBEDDED
from tests.paths import ROOT


def test_the_fields_are_those_of_a_model_config():
    ours = {item.name for item in dataclasses.fields(Loading)} - {"trust_remote_code"}
    assert ours <= {item.name for item in dataclasses.fields(ModelConfig)}
    told = ModelConfig(dtype="float16", model_revision="v2", load_in_8bit=True)
    assert Loading.of(told) == Loading("float16", "v2", load_in_8bit=True)
    with pytest.raises(ValueError, match="load_in_4bit and load_in_8bit are both set"):
        Loading(load_in_4bit=True, load_in_8bit=True)
    with pytest.raises(ValueError, match="dtype must be float32, bfloat16, float16, auto, got 'float31'"):
        Loading("float31")


def test_every_embedded_model_and_adapter_is_in_the_wheel():
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = told["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    published = {path.parent.name for path in (ROOT / "data").glob("*/*.safetensors")}
    assert published == {*EMBEDDED, *ADAPTERS}
    assert all(included[f"data/{name}"] == f"rlred/tiny/{name}" for name in published)


def test_a_folder_that_is_not_there_and_one_of_an_adapter_are_named_as_such(tmp_path):
    for name in ("/nope", "./nope", "outputs/run/base", f"{tmp_path}/x/"):
        with pytest.raises(ValueError, match="--model=.* cannot be loaded: there is no such folder"):
            check_model(name, "--model")
    with pytest.raises(ValueError, match="--adapter '/nope' cannot be loaded: there is no such folder"):
        local_adapter("/nope")
    with pytest.raises(ValueError, match="--tokenizer '/nope' cannot be loaded: there is no such folder"):
        load_tokenizer("/nope")
    for name in (str(ROOT / "data" / "l1_exact"), "l1_maxlen"):
        with pytest.raises(ValueError, match="it is an adapter, and no model; name it with --adapter"):
            check_model(name)
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "config.json").write_text("{}")
    for name in ("org/model", "gpt2", "tiny_reasoner", "data/tiny_reasoner", str(tmp_path)):
        check_model(name)  # a Hub id is the Hub's to find; a model may keep an adapter beside it


@pytest.mark.parametrize(
    "given, message",
    [
        ({"question": " "}, "QUESTION is empty"),
        ({"question": "1+1?", "max_completion_length": 0}, "--max_completion_length must be 1 or more, got 0"),
    ],
)
def test_what_cannot_be_generated_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Generate(**given)
    assert Generate(question="1+1?", max_completion_length=1).max_completion_length == 1


def test_what_it_is_told_reaches_the_model_and_the_tokenizer(random_model, monkeypatch):
    seen = {}
    for kind in (AutoModelForCausalLM, AutoTokenizer):
        real = kind.from_pretrained

        def spy(name, real=real, kind=kind, **settings):
            seen[kind.__name__] = settings
            return real(name, **{key: value for key, value in settings.items() if key != "quantization_config"})

        monkeypatch.setattr(kind, "from_pretrained", spy)
    loading = Loading("float16", "v2", trust_remote_code=True, load_in_4bit=True, attn_implementation="eager")
    model, _ = load_model(str(random_model), None, loading, device="cpu")
    for settings in seen.values():
        assert settings["revision"] == "v2" and settings["trust_remote_code"] is True
    asked = seen["AutoModelForCausalLM"]
    assert asked["quantization_config"].load_in_4bit and asked["use_safetensors"]
    assert model.dtype == torch.float16 and model.config._attn_implementation == "eager"


def test_pictures_bring_a_processor():
    model, processor = load_model("tiny_vlm", pictures=True)
    assert isinstance(processor, ProcessorMixin) and model.dtype == torch.float32
    assert processor.tokenizer.pad_token is not None


@pytest.mark.parametrize(
    "words, message",
    [
        ({"name": "/no/such/model"}, "model='/no/such/model' cannot be loaded: "),
        ({"name": "/no/such/model", "field": "--model"}, "--model='/no/such/model' cannot be loaded: "),
        ({"name": "tiny_reasoner", "adapter": "/no/such/adapter"}, "adapter '/no/such/adapter' cannot be loaded on "),
    ],
)
def test_what_cannot_be_loaded_is_one_line(words, message):
    with pytest.raises(ValueError) as caught:
        load_model(**words)
    assert str(caught.value).startswith(message) and len(str(caught.value).splitlines()) == 1


def test_trap_an_adapter_is_not_folded_into_quantised_weights():
    base = AutoModelForCausalLM.from_pretrained(ROOT / "data" / "tiny_reasoner", dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "k_proj"], init_lora_weights=False))
    layers = [layer for name, layer in model.named_modules() if name.endswith(("q_proj", "k_proj"))]
    packed = layers[0].get_base_layer()
    packed.weight = torch.nn.Parameter(torch.zeros(8, 1, dtype=torch.uint8), requires_grad=False)  # as 4 bits look
    with merged_adapter(model):
        assert not layers[0].merged and all(layer.merged for layer in layers[1:])
    assert not any(layer.merged for layer in layers)


def test_trap_weights_that_were_cut_off_are_one_line(random_model, tmp_path):
    folder = shutil.copytree(random_model, tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot be loaded: "):
        load_model(str(folder))
    get_peft_model(load_model(str(random_model))[0], LoraConfig(target_modules="all-linear")).save_pretrained(folder)
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="adapter .* cannot be loaded on "):
        load_model(str(random_model), str(folder))


def test_an_adapter_is_a_folder_the_embedded_one_or_on_the_hub(tmp_path):
    assert local_adapter(str(tmp_path)) == str(tmp_path)
    assert Path(local_adapter("l1_maxlen")).name == "l1_maxlen"
    with pytest.raises(ValueError, match="--adapter 'me/mine': neither a folder nor an adapter that can be downloaded"):
        local_adapter("me/mine")

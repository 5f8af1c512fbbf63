"""A reasoner so small that it trains in a second: the embedded tokenizer, random weights, real everything else."""

import os

# Before the first import of huggingface_hub, which reads it once: a model that is nowhere is then known to be so at
# once, not after its five tries of a Hub that a test machine may not reach.
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from hypothesis import settings
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from tests.paths import ROOT

settings.register_profile("rlred", deadline=None)  # a machine that is busy is no failure
settings.load_profile("rlred")


def pytest_addoption(parser):
    parser.addoption("--record-goldens", action="store_true", help="write tests/goldens/*.json anew (test_goldens.py)")


@pytest.fixture(autouse=True)
def threads(monkeypatch):
    """A recipe that is run in this process takes all cores: beside its neighbours, that costs nine times the work."""
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)


@pytest.fixture(scope="session")
def random_model(tmp_path_factory):
    """The folder of a two-layer model with random weights."""
    folder = tmp_path_factory.mktemp("random_model")
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "data" / "tiny_reasoner")
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder

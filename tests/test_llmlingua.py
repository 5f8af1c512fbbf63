"""Our LLMLingua-2 scores against the llmlingua package's own, on a random model of its kind."""

import json

import pytest
import torch

from rlred.compression.scores import TokenClassifier
from tests.paths import real_data
from tests.released_llmlingua import load_compressor, make_model, word_probabilities

pytest.importorskip("llmlingua", reason="llmlingua is not installed: pip install llmlingua==0.2.2")


@pytest.fixture(scope="module")
def texts():
    """Published solutions of GSM8K in ASCII; one of them long enough for several windows."""
    lines = real_data("gsm8k/train.jsonl").read_text().splitlines()
    solutions = [json.loads(line)["answer"].replace("\n", " ") for line in lines[:400]]
    ascii_only = [text for text in solutions if text.isascii() and "  " not in text]
    return [*ascii_only[:20], " ".join(ascii_only[20:60])]


@pytest.fixture(scope="module")
def pair(texts, tmp_path_factory):
    folder = make_model(tmp_path_factory.mktemp("xlmr"), texts, layers=2, width=64)
    return load_compressor(folder), TokenClassifier.from_pretrained(folder)


def test_scores_are_llmlinguas_own_word_probabilities(pair, texts):
    compressor, ours = pair
    for text, spans in zip(texts, ours.batch(texts), strict=True):
        words, probabilities = word_probabilities(compressor, text)
        assert [text[start:end].strip() for start, end, _ in spans] == words
        assert [score for _, _, score in spans] == pytest.approx(probabilities, abs=1e-4)


def test_trap_framed_as_trained_the_scores_are_others(pair, texts):
    """llmlingua 0.2.2 frames XLM-R's windows with BERT's tokens, which are unknown to it."""
    _, ours = pair
    trained = TokenClassifier(ours.model, ours.tokenizer, released=False)
    assert ours.frame == (ours.tokenizer.unk_token_id,) * 2 and trained.frame != ours.frame
    a, b = (torch.tensor([score for _, _, score in scorer(texts[0])]) for scorer in (ours, trained))
    assert (a - b).abs().max() > 1e-4

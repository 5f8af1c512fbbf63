"""The embedded tiny VLM: what it can see, that it does not choose, and the recipe that makes it."""

import random

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from rlred.cli import main as rlred
from rlred.evaluation.sampling import Sampling
from rlred.evaluation.visual import row_of, sweep_pictures
from rlred.tiny import pictures, resolve_model
from rlred.tiny.makers import tiny_vlm
from rlred.tiny.makers.tiny_vlm import (
    BUDGET_TOKENS,
    Batch,
    build_model,
    build_processor,
    encode,
    policy_states,
    spread_budget_tokens,
)
from rlred.vision.budget_policy import VisualBudgetPolicy
from rlred.vision.model import SparseVision
from rlred.vision.reduce import Reducer
from rlred.vision.rows import load_rows

RATIOS = {token: k / 64 for token, k in BUDGET_TOKENS.items()}


@pytest.fixture(scope="module")
def vlm():
    folder = resolve_model("tiny_vlm")
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    policy = VisualBudgetPolicy(AutoProcessor.from_pretrained(folder), RATIOS)
    SparseVision(model, Reducer(strategy="downsample"), images_per_row=1)
    return model, policy


def accuracy(vlm, token, wordings="test", n=60):
    model, policy = vlm
    rows = load_rows("pictures", split="test", limit=n, wordings=wordings)
    table = row_of(sweep_pictures(policy, model, rows, Sampling(2, temperature=0.0), choice=token))["by_level"]
    return {family: table[family]["accuracy"] for family in pictures.FAMILIES}


def test_families_need_different_amounts_of_the_picture(vlm):
    whole, some, little = (accuracy(vlm, token) for token in ("<look-1>", "<look-1/4>", "<look-1/16>"))
    assert whole["background"] > 0.9 and whole["square"] > 0.9 and whole["dot"] > 0.7
    assert some["square"] > 0.9 and some["dot"] < 0.5
    assert little["background"] > 0.9


def test_it_does_not_choose(vlm):
    model, policy = vlm
    questions = [text for family in pictures.FAMILIES for text in pictures.wordings(family, "test")]
    prompts = [[{"role": "user", "content": text}] for text in questions]
    inputs = policy.tokenizer.pad({"input_ids": policy._asked(prompts, [])}, return_tensors="pt")
    with torch.no_grad():
        shares = model(**inputs).logits[:, -1].softmax(-1)[:, list(policy.ids.values())]
    assert shares.sum(-1).min() > 0.99
    assert (shares - 0.2).abs().max() < 0.05


def test_the_recipe_sees_pictures_as_the_reduced_model_does(vlm):
    model, policy = vlm
    rows = load_rows("pictures", limit=2)
    pixels = policy.vision([row["image"] for row in rows])["pixel_values"]
    expected = torch.stack(encode(model, pixels, 16).pooler_output)
    output, _ = model.sparse_vision.family.downsampled({"pixel_values": pixels}, [16, 16])
    assert torch.equal(expected, torch.stack(output.pooler_output))


def test_a_batch_shows_the_picture_after_the_first_look():
    processor = build_processor()
    batch = Batch(processor.tokenizer, 4, 8, True, tiny_vlm.STAGES[-1], random.Random(0))
    image = batch.input_ids == processor.image_token_id
    assert image.sum(-1).tolist() == [12] * 4  # a thumbnail of 4, and 8
    assert (batch.labels != -100).sum(-1).tolist() == [6] * 4  # three answers, three ends
    assert batch.pixels.abs().max() <= 1
    assert not (image & (batch.labels != -100)).any()


def test_spread_budget_tokens_are_distinct_and_leave_the_gate_uniform():
    processor = build_processor()
    torch.manual_seed(0)
    model = build_model(processor.tokenizer)
    batch = Batch(processor.tokenizer, 24, 64, False, tiny_vlm.STAGES[-1], random.Random(0))
    with torch.no_grad():
        states = policy_states(model, processor.tokenizer, random.Random(1), batch.pixels, 8)
        spread_budget_tokens(model, processor.tokenizer, states)
    rows = model.lm_head.weight[processor.tokenizer.convert_tokens_to_ids(list(BUDGET_TOKENS))]
    logits = states @ rows.T
    assert (logits - logits.mean(-1, keepdim=True)).abs().max() < 0.1
    apart = rows - rows.mean(0)
    assert (apart.norm(dim=-1) > 0.5 * rows.mean(0).norm()).all()


def test_the_recipe_makes_a_model_and_writes_over_nothing(tmp_path, capsys):
    output = tmp_path / "vlm"
    flags = ["make", "tiny_vlm", "--output", str(output), "--steps", "4", "--batch_size", "8"]
    assert rlred(flags) == 0
    assert "936,384 parameters" in capsys.readouterr().out
    assert AutoModelForImageTextToText.from_pretrained(output).config.image_token_id == 4
    assert rlred(flags) == 2
    assert "is not written over" in capsys.readouterr().err

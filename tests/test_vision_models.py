"""The mechanics of reduced models, per family: exact at K = N, really shorter, alike in generate and in training."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from trl.trainer.utils import add_fused_lm_head

from rlred.vision.model import SparseVision, match
from rlred.vision.reduce import Reducer
from tests.vision_models import FAMILIES, IMAGE, batch, build, continued, full_sizes, pixels

NEW = 6
per_family = pytest.mark.parametrize("kind", FAMILIES)


def generate(model, inputs, **settings):
    settings = {"max_new_tokens": NEW, "do_sample": False, **settings}
    return model.generate(**inputs, **settings, return_dict_in_generate=True, output_logits=True)


def sparse(kind, reducer=None, **settings):
    model = build(kind)
    SparseVision(model, reducer or Reducer("maxmin"), **settings)
    return model


@per_family
def test_all_tokens_give_the_stock_models_logits_and_greedy_tokens_exactly(kind):
    stock, model = build(kind), sparse(kind)
    inputs = batch(kind, [[n] for n in full_sizes(kind, 2)])
    with torch.no_grad():
        assert torch.equal(stock(**inputs).logits, model(**inputs).logits)
    expected, found = generate(stock, inputs), generate(model, inputs)
    assert torch.equal(expected.sequences, found.sequences)
    assert torch.equal(torch.stack(expected.logits), torch.stack(found.logits))


@per_family
@pytest.mark.parametrize("reducer", [Reducer("maxmin"), Reducer("similarity", "merge"), Reducer("random", "package")])
def test_generate_and_the_training_forward_agree_at_mixed_k_with_left_padding(kind, reducer):
    model = sparse(kind, reducer)
    inputs = batch(kind, [[9], [5]])
    out = generate(model, inputs)
    with torch.no_grad():
        logits = model(**continued(inputs, out.sequences)).logits[:, -NEW - 1 : -1]
    assert (logits - torch.stack(out.logits, 1)).abs().max() < 1e-5


@per_family
def test_the_sequence_and_the_kv_cache_are_really_shorter(kind):
    model = sparse(kind)
    whole, some = batch(kind, [[n] for n in full_sizes(kind, 2)]), batch(kind, [[4], [4]])
    saved = whole["input_ids"].shape[1] - some["input_ids"].shape[1]
    caches = [generate(model, inputs).past_key_values for inputs in (whole, some)]
    assert caches[0].get_seq_length() - caches[1].get_seq_length() == saved >= 10
    assert caches[1].layers[0].keys.shape[-2] == some["input_ids"].shape[1] + NEW - 1
    assert [(s.full, len(s.index)) for s in model.sparse_vision.seen] == [(n, 4) for n in full_sizes(kind, 2)]


@per_family
def test_kept_tokens_keep_the_features_and_positions_that_they_had_among_all(kind):
    """Against a stock model: every token is computed, then embeddings, positions and deepstack rows are picked."""
    stock, model = build(kind), sparse(kind)
    [n] = full_sizes(kind, 1)
    inputs, whole = batch(kind, [[7]]), batch(kind, [[n]])
    with torch.no_grad():
        logits = model(**inputs).logits
        kept = model.sparse_vision.seen[0].index
        columns = torch.cat([torch.arange(3), 3 + kept, torch.arange(3 + n, whole["input_ids"].shape[1])])
        core = stock.model
        given = {k: v for k, v in whole.items() if k in ("pixel_values", "image_grid_thw")}
        output = core.get_image_features(**given, return_dict=True)
        embeddings = core.get_input_embeddings()(whole["input_ids"])
        embeddings[whole["input_ids"] == IMAGE] = torch.cat(list(output.pooler_output))
        more = {}
        if kind.startswith("qwen"):
            ids = {k: whole[k] for k in ("input_ids", "mm_token_type_ids", "image_grid_thw")}
            more["position_ids"] = core.get_rope_index(**ids)[0][:, :, columns]
        if kind == "qwen3_vl":
            more["visual_pos_masks"] = (whole["input_ids"] == IMAGE)[:, columns]
            more["deepstack_visual_embeds"] = [torch.cat(list(layer))[kept] for layer in output.deepstack_features]
        language = core.text_model if hasattr(core, "text_model") else core.language_model
        hidden = language(inputs_embeds=embeddings[:, columns], **more).last_hidden_state
        expected = stock.lm_head(hidden)
    assert (expected - logits).abs().max() < 1e-5


@per_family
def test_trls_fused_log_probs_agree_with_generate_under_lora_and_gradients_flow(kind):
    model = sparse(kind)
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    tower = "text_model" if kind in ("smolvlm", "idefics3") else "language_model"
    lora = LoraConfig(r=4, target_modules=rf".*{tower}.*\.(q_proj|v_proj)", init_lora_weights=False)
    peft_model = get_peft_model(model, lora)
    inputs = batch(kind, [[9], [5]])
    out = generate(peft_model, inputs)
    more = continued(inputs, out.sequences)
    labels = more["input_ids"].clone()
    labels[:, :-NEW] = -100
    output = peft_model(**more, labels=labels, fused_lm_head=True)
    chosen = out.sequences[:, -NEW:, None]
    expected = torch.stack(out.logits, 1).log_softmax(-1).gather(-1, chosen)[..., 0]
    assert (output.log_probs[:, -NEW:] - expected).abs().max() < 1e-5
    output.loss.backward()
    grads = [p.grad for name, p in peft_model.named_parameters() if "lora_" in name]
    assert grads and all(grad is not None and grad.abs().sum() > 0 for grad in grads)


@per_family
def test_two_images_and_a_text_only_row_stand_in_one_batch(kind):
    model = sparse(kind)
    counts = [[6, 3], [], [8]]
    inputs = batch(kind, counts)
    out = generate(model, inputs)
    assert [(s.row, len(s.index)) for s in model.sparse_vision.seen] == [(0, 6), (0, 3), (2, 8)]
    with torch.no_grad():
        logits = model(**continued(inputs, out.sequences)).logits[:, -NEW - 1 : -1]
    assert (logits - torch.stack(out.logits, 1)).abs().max() < 1e-5
    # The text-only row is what it is alone.
    row = {k: inputs[k][1:2, -8:] for k in ("input_ids", "attention_mask")}
    alone = generate(build(kind), {k: v[:, v.shape[1] - 8 :] for k, v in row.items()})
    assert torch.equal(out.sequences[1:2, -NEW:], alone.sequences[:, -NEW:])


@per_family
def test_a_text_only_batch_needs_no_images(kind):
    inputs = {"input_ids": torch.tensor([[5, 6, 10, 11]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    expected, found = generate(build(kind), inputs), generate(sparse(kind), inputs)
    assert torch.equal(expected.sequences, found.sequences)


@per_family
def test_several_completions_of_one_row_see_the_same_tokens(kind):
    model = sparse(kind)
    inputs = batch(kind, [[9], [5]])
    one = generate(model, inputs)
    three = generate(model, inputs, num_return_sequences=3, num_beams=3)
    torch.manual_seed(0)
    sampled = generate(model, inputs, num_return_sequences=2, do_sample=True)
    assert len(three.sequences) == 6 and len(sampled.sequences) == 4
    first = torch.stack(sampled.logits, 1)[:, 0]  # before anything is sampled
    assert torch.allclose(first[::2], first[1::2], atol=1e-6)
    assert torch.allclose(first[::2], torch.stack(one.logits, 1)[:, 0], atol=1e-5)


@pytest.mark.parametrize("kind", ["smolvlm", "idefics3"])
def test_tiles_are_reduced_one_by_one(kind):
    model = sparse(kind)
    inputs = batch(kind, [[4, 4, 16], [2]])  # two tiles and a thumbnail, whole; one tile
    out = generate(model, inputs)
    assert [(s.row, len(s.index)) for s in model.sparse_vision.seen] == [(0, 4), (0, 4), (0, 16), (1, 2)]
    with torch.no_grad():
        logits = model(**continued(inputs, out.sequences)).logits[:, -NEW - 1 : -1]
    assert (logits - torch.stack(out.logits, 1)).abs().max() < 1e-5


def test_whole_images_may_touch():
    stock, model = build("llava"), sparse("llava")
    ids = torch.tensor([[5, *[IMAGE] * 32, 6, 7], [5, *[IMAGE] * 32, 8, 9]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **pixels("llava", [2, 2])}
    with torch.no_grad():
        assert torch.equal(stock(**inputs).logits, model(**inputs).logits)


@per_family
def test_a_row_that_chose_not_to_look_stands_in_a_batch(kind):
    model = sparse(kind, images_per_row=1)
    inputs = batch(kind, [[9], [], [5]], pixels_for=[1, 1, 1])
    out = generate(model, inputs)
    assert [(s.row, len(s.index)) for s in model.sparse_vision.seen] == [(0, 9), (2, 5)]
    with torch.no_grad():
        logits = model(**continued(inputs, out.sequences)).logits[:, -NEW - 1 : -1]
    assert (logits - torch.stack(out.logits, 1)).abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["llava", "qwen3_vl"])
def test_a_batch_in_which_nobody_looks_is_a_batch_of_text(kind):
    for reducer in [Reducer(), *([Reducer(strategy="downsample")] if kind == "llava" else [])]:
        model = sparse(kind, reducer, images_per_row=1)
        inputs = batch(kind, [[], []], pixels_for=[1, 1])
        text = {k: inputs[k] for k in ("input_ids", "attention_mask")}
        assert torch.equal(generate(model, inputs).sequences, generate(build(kind), text).sequences)
        with torch.no_grad():
            assert model(**inputs).logits.isfinite().all()
        assert model.sparse_vision.seen == []


def test_downsampling_shrinks_the_picture_before_the_tower():
    model = sparse("llava", Reducer(strategy="downsample"))
    inputs = batch("llava", [[16], [4], [2]])
    patches = []
    model.model.vision_tower.register_forward_pre_hook(
        lambda module, args, kwargs: patches.append(args[0].shape), with_kwargs=True
    )
    with torch.no_grad():
        model(**inputs)
    assert [tuple(shape[-2:]) for shape in patches] == [(28, 14), (28, 28), (56, 56)]
    assert [s.index.tolist() for s in model.sparse_vision.seen][1:] == [[5, 7, 13, 15], [6, 14]]
    whole = batch("llava", [[16], [16]])
    with torch.no_grad():
        assert torch.equal(model(**whole).logits, build("llava")(**whole).logits)


def test_attention_scores_come_from_the_tower():
    model = build("llava")
    model.set_attn_implementation({"vision_config": "eager"})
    SparseVision(model, Reducer("attention"))
    inputs = batch("llava", [[4], [4]])
    with torch.no_grad():
        model(**inputs)
        tower = model.model.vision_tower(inputs["pixel_values"], output_attentions=True)
    received = tower.attentions[-2].mean((1, 2))[:, 1:]
    expected = received.topk(4).indices.sort().values
    assert torch.equal(torch.stack([s.index for s in model.sparse_vision.seen]), expected)


@per_family
def test_an_image_token_sampled_by_the_policy_is_suppressed_or_a_clear_error(kind):
    model = sparse(kind)
    assert IMAGE in model.generation_config.suppress_tokens
    inputs = batch(kind, [[9], [5]])
    sampled = inputs["input_ids"].clone()
    sampled[:, -1] = IMAGE
    with pytest.raises(ValueError, match="runs of image tokens for 2 images: the policy sampled an image token"):
        model(**{**inputs, "input_ids": sampled})


@per_family
def test_a_prompt_cut_through_an_image(kind):
    model = sparse(kind)
    inputs = batch(kind, [[9, 5]])
    cut = {k: v[:, 18:] if v.shape == inputs["input_ids"].shape else v for k, v in inputs.items()}  # all of image one
    with pytest.raises(ValueError, match="1 runs of image tokens for 2 images.*a prompt was cut through"):
        model(**cut)


@per_family
def test_no_image_in_a_row_that_has_image_tokens(kind):
    model = sparse(kind)
    inputs = batch(kind, [[9], [5]])
    text = {k: inputs[k] for k in ("input_ids", "attention_mask")}
    for call in (model, lambda **kwargs: generate(model, kwargs)):
        with pytest.raises(ValueError, match="2 runs of image tokens for 0 images"):
            call(**text)


def test_more_placeholders_than_features():
    with pytest.raises(ValueError, match="row 1 has 17 image tokens side by side for an image of 16 features"):
        sparse("llava")(**batch("llava", [[16], [17]]))


def test_two_reduced_images_that_touch():
    ids = torch.tensor([[5, *[IMAGE] * 8, 6, 7]])
    with pytest.raises(ValueError, match="1 runs of image tokens for 2 images.*or two images touch"):
        sparse("llava")(input_ids=ids, attention_mask=torch.ones_like(ids), **pixels("llava", [2]))


def test_match_knows_whose_image_is_whose():
    assert match([[4], [], [2, 2]], [9, 9, 9], None) == [(0, 4), (2, 2), (2, 2)]
    assert match([[9], [18]], [9, 9, 9], None) == [(0, 9), (1, 9), (1, 9)]  # whole, and touching
    assert match([[4], []], [9, 9, 9, 9], [0, 0, 1, 1], skip=True) == [(0, 4), (0, 0), (1, 0), (1, 0)]
    with pytest.raises(ValueError, match="2 runs of image tokens for 1 images"):
        match([[4, 4]], [9], [0], skip=True)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: SparseVision(build("smolvlm"), Reducer(strategy="downsample")), "inside LLaVA only; for 'smolvlm'"),
        (lambda: SparseVision(build("qwen3_vl"), Reducer("attention")), "LLaVA's tower only, not from that of 'qwen3"),
        (lambda: SparseVision(build("llava"), images_per_row=0), "images_per_row must be 1 or more"),
        (lambda: SparseVision(sparse("llava")), "reduced already"),
        (
            lambda: sparse("llava", images_per_row=2)(**batch("llava", [[4], [4]])),
            "images_per_row=2, but 2 rows have 2",
        ),
        (lambda: sparse("llava", Reducer("attention"))(**batch("llava", [[4], [4]])), "eager attention"),
    ],
)
def test_a_reduction_that_a_model_cannot_do_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_a_model_that_is_not_supported_says_so_in_one_line(random_model):
    from transformers import AutoModelForCausalLM

    with pytest.raises(ValueError, match="model type 'qwen3' cannot be reduced; supported: llava, smolvlm"):
        SparseVision(AutoModelForCausalLM.from_pretrained(random_model))


def test_videos_are_refused():
    inputs = {**batch("qwen3_vl", [[4]]), "pixel_values_videos": torch.zeros(1)}
    with pytest.raises(ValueError, match="videos are not reduced"):
        sparse("qwen3_vl")(**inputs)


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_trap_token_types_of_a_prompt_without_its_image_do_not_reach_the_model(kind):
    """TRL makes them of the dataset's prompt, image included; a policy's image comes later, in the completion."""
    model, inputs = sparse(kind), batch(kind, [[9], [5]])
    with torch.no_grad():
        expected = model(**inputs).logits
        types = torch.zeros(2, inputs["input_ids"].shape[1] + 7, dtype=torch.int)
        assert torch.equal(model(**{**inputs, "mm_token_type_ids": types}).logits, expected)

"""Keep ratios in a processor: K placeholders per image, the same on every call, saved and loaded."""

import json

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoProcessor, Idefics3Processor, LlavaProcessor, PreTrainedTokenizerFast
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from rlred.tiny.makers.tiny_vlm import build_processor
from rlred.vision.processor import KeepRatio, SparseLlavaProcessor, keep_mark, sparse_processor, with_keep_ratio

TEMPLATE = "{% for m in messages %}{% for p in m['content'] %}{{ '<image>' if p['type'] == 'image' else p['text'] }} {% endfor %}{% endfor %}"  # noqa: E501


def picture(size=64, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8))


def tiled_processor():
    special = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", "<unk>", "<pad>"]
    special += [f"<row_{i}_col_{j}>" for i in range(1, 4) for j in range(1, 4)]
    tokenizer = Tokenizer(models.WordLevel({t: i for i, t in enumerate([*special, "what", "?"])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>")
    fast.add_special_tokens({"additional_special_tokens": special})
    images = Idefics3ImageProcessorPil(size={"longest_edge": 128}, max_image_size={"longest_edge": 64})
    return Idefics3Processor(images, fast, image_seq_len=16, chat_template=TEMPLATE)


def count(processor, inputs):
    return [sum(token == processor.image_token_id for token in row) for row in inputs["input_ids"]]


def test_a_row_gets_its_own_k_and_the_mark_is_gone():
    processor = sparse_processor(build_processor())
    texts = ["<image> <keep 0.25> what color", "<image> what color", "<keep 0.1> what <image> color"]
    inputs = processor(text=texts, images=[[picture()]] * 3, add_special_tokens=False)
    assert count(processor, inputs) == [16, 64, 7]
    assert processor.tokenizer.decode(inputs["input_ids"][0]).split()[16:] == ["what", "color"]
    stock = build_processor()(text=["<image> what color"], images=[[picture()]], add_special_tokens=False)
    assert stock["input_ids"][0] == inputs["input_ids"][1]


def test_a_row_is_processed_alike_every_time():
    """TRL processes a row twice: to generate, in a batch of prompts, and to train, in another."""
    processor = sparse_processor(build_processor())
    row = ("<keep 0.5> <image> what color", [picture()])
    alone = processor(text=[row[0]], images=[row[1]])
    together = processor(text=["<image> what", row[0]], images=[[picture(seed=1)], row[1]])
    assert alone["input_ids"][0] == together["input_ids"][1]


def test_tiles_are_cut_one_by_one():
    processor = sparse_processor(tiled_processor())
    inputs = processor(text=["<image> <keep 0.25> what ?"], images=[[picture(128)]])
    [row] = inputs["input_ids"]
    runs = "".join("i" if token == processor.image_token_id else "." for token in row).split(".")
    assert [len(run) for run in runs if run] == [4] * 5  # four tiles and the whole, 16 tokens each
    assert len(inputs["pixel_values"][0]) == 5


def test_images_that_touch_are_held_apart_where_they_are_cut():
    processor = sparse_processor(build_processor())
    wholes = ["<image>" * 64] * 2
    [text], _ = processor.get_text_with_replacements(["<keep 0.5> <image><image> what"], wholes)
    assert text == "<image>" * 32 + "\n" + "<image>" * 32 + " what"
    [text], _ = processor.get_text_with_replacements(["<image><image> what"], wholes)
    assert text == "<image>" * 128 + " what"  # whole ones may touch, as they do for the stock processor


def test_a_text_only_row_needs_no_images():
    processor = sparse_processor(build_processor())
    assert count(processor, processor(text=["what color"])) == [0]


def test_it_saves_and_loads_with_from_pretrained(tmp_path):
    processor = sparse_processor(build_processor())
    processor.save_pretrained(tmp_path)
    loaded = SparseLlavaProcessor.from_pretrained(tmp_path)
    call = {"text": ["<keep 0.25> <image> what color"], "images": [[picture()]]}
    assert loaded(**call)["input_ids"] == processor(**call)["input_ids"]
    stock = AutoProcessor.from_pretrained(tmp_path)  # without rlred it is the stock processor
    assert type(stock) is LlavaProcessor and isinstance(sparse_processor(stock), KeepRatio)
    assert json.loads((tmp_path / "processor_config.json").read_text())["processor_class"] == "LlavaProcessor"


def test_with_keep_ratio_marks_the_users_text():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How many?"}]},
    ]
    marked = with_keep_ratio(messages, 0.125)
    assert marked[1]["content"][1]["text"] == "<keep 0.125> How many?"
    assert messages[1]["content"][1]["text"] == "How many?"
    assert with_keep_ratio(messages, 1.0) == messages
    assert keep_mark(1.0) == ""


@pytest.mark.parametrize(
    "text, message",
    [
        ("<image> <keep 0> what", "keep_ratio must be above 0 and at most 1, got 0"),
        ("<image> <keep 1.5> what", "keep_ratio must be above 0"),
        ("<image> <keep half> what", r"a number as in '<keep 0.25>'; got \['half'\]"),
        ("<image> <keep 0.5> <keep 0.25> what", r"a row has one keep ratio"),
    ],
)
def test_a_keep_ratio_that_cannot_be_k_0_included(text, message):
    with pytest.raises(ValueError, match=message) as raised:
        sparse_processor(build_processor())(text=[text], images=[[picture()]])
    assert "\n" not in str(raised.value)


def test_an_unsupported_processor_says_so_in_one_line():
    from transformers import CLIPProcessor

    with pytest.raises(ValueError, match="no keep ratios for a CLIPProcessor; supported: LlavaProcessor, SmolVLM"):
        sparse_processor(CLIPProcessor.__new__(CLIPProcessor))
    with pytest.raises(ValueError, match="needs a user message with text"):
        with_keep_ratio([{"role": "user", "content": [{"type": "image"}]}], 0.5)

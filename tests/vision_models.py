"""One tiny random model of each supported family, and batches for it whose rows look at images with given K."""

import torch
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

PAD, START, END, IMAGE = 0, 91, 92, 90
FAMILIES = ["llava", "smolvlm", "idefics3", "qwen2_5_vl", "qwen3_vl"]
GRIDS = [[1, 8, 12], [1, 8, 8]]  # of Qwen's images, in turn: 24 and 16 tokens
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 512,
    "pad_token_id": PAD,
    "bos_token_id": 1,
    "eos_token_id": 99,
}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "patch_size": 14}
QWEN_VISION = {"hidden_size": 32, "num_heads": 4, "intermediate_size": 64, "out_hidden_size": 32, "patch_size": 14}
QWEN_TOKENS = {
    "image_token_id": IMAGE,
    "video_token_id": 93,
    "vision_start_token_id": START,
    "vision_end_token_id": END,
}


def build(kind: str, seed: int = 0):
    """A model with random weights, in eval mode, that does not stop by itself."""
    torch.manual_seed(seed)
    if kind == "llava":
        vision = {**VISION, "model_type": "clip_vision_model", "num_hidden_layers": 3, "image_size": 56}
        config = LlavaConfig(vision_config=vision, text_config={**TEXT, "model_type": "llama"}, image_token_id=IMAGE)
        model = LlavaForConditionalGeneration(config)
    elif kind in ("smolvlm", "idefics3"):
        vision = {**VISION, "num_hidden_layers": 2, "image_size": 112}
        text = {**TEXT, "model_type": "llama"}
        kinds = {
            "smolvlm": (SmolVLMConfig, SmolVLMForConditionalGeneration),
            "idefics3": (Idefics3Config, Idefics3ForConditionalGeneration),
        }
        config_class, model_class = kinds[kind]
        model = model_class(
            config_class(vision_config=vision, text_config=text, image_token_id=IMAGE, scale_factor=2, pad_token_id=PAD)
        )
    elif kind == "qwen2_5_vl":
        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
        vision = {**QWEN_VISION, "depth": 2, "fullatt_block_indexes": [1], "window_size": 56}
        config = Qwen2_5_VLConfig(text_config={**TEXT, "rope_parameters": rope}, vision_config=vision, **QWEN_TOKENS)
        model = Qwen2_5_VLForConditionalGeneration(config)
    else:
        rope = {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [2, 1, 1],
            "mrope_interleaved": True,
        }
        vision = {**QWEN_VISION, "depth": 3, "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 256}
        text = {**TEXT, "num_hidden_layers": 4, "head_dim": 8, "rope_parameters": rope}
        model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **QWEN_TOKENS))
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = PAD
    model.generation_config.suppress_tokens = [IMAGE]
    return model.eval()


def full_sizes(kind: str, num_images: int) -> list[int]:
    """N of the first images (tiles) of a batch."""
    if kind.startswith("qwen"):
        return [GRIDS[i % 2][1] * GRIDS[i % 2][2] // 4 for i in range(num_images)]
    return [16] * num_images


def batch(kind: str, counts: list[list[int]], pixels_for: list[int] | None = None) -> dict:
    """Left-padded rows that look at images with the K of `counts`; `pixels_for` images per row (as many as counts)."""
    rows = []
    for number, ks in enumerate(counts):
        row = [5, 6]
        for k in ks:
            row += [START, *[IMAGE] * k, END]
        rows.append(row + list(range(10, 14 + 2 * number)))
    width = max(map(len, rows))
    input_ids = torch.tensor([[PAD] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    images = pixels_for or [len(ks) for ks in counts]
    inputs = {"input_ids": input_ids, "attention_mask": mask, **pixels(kind, images)}
    if kind.startswith("qwen"):
        inputs["mm_token_type_ids"] = (input_ids == IMAGE).int()
    return inputs


def pixels(kind: str, images: list[int]) -> dict:
    """Random pixels of so many images (tiles) per row."""
    generator = torch.Generator().manual_seed(1)
    total = sum(images)
    if kind == "llava":
        return {"pixel_values": torch.randn(total, 3, 56, 56, generator=generator)}
    if kind in ("smolvlm", "idefics3"):
        values = torch.zeros(len(images), max(images), 3, 112, 112)  # absent tiles are zeros
        for row, n in enumerate(images):
            values[row, :n] = torch.randn(n, 3, 112, 112, generator=generator)
        return {"pixel_values": values}
    grids = torch.tensor([GRIDS[i % 2] for i in range(total)])
    patches = int(grids.prod(-1).sum())
    return {"pixel_values": torch.randn(patches, 3 * 2 * 14 * 14, generator=generator), "image_grid_thw": grids}


def continued(inputs: dict, sequences: torch.Tensor) -> dict:
    """The inputs of a training forward over generated sequences."""
    new = sequences.shape[1] - inputs["input_ids"].shape[1]
    mask = torch.cat([inputs["attention_mask"], torch.ones(len(sequences), new, dtype=torch.long)], 1)
    more = {**inputs, "input_ids": sequences, "attention_mask": mask}
    if "mm_token_type_ids" in inputs:
        more["mm_token_type_ids"] = (sequences == IMAGE).int()
    return more

"""What fewer visual tokens save: prefill and training step at four keep ratios, side by side in one run.

    python tests/benchmark_vision.py                   # a LLaVA of random weights, 1,024 image tokens, on a CPU
    python tests/benchmark_vision.py --device cuda --hidden_size 2048 --layers 16 --batch_size 4

The ratios take turns, so that a slow moment of the machine hits all of them. The vision tower always sees the whole
picture and is frozen, as under LoRA on the language model; `downsample` spares the tower too. Memory is what the
training forward keeps for the backward pass (every tensor saved, counted once) and the KV cache of the prefill; on CUDA
the peak of the training step as well.
"""

import argparse
import statistics
import time

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

from rlred.vision.model import SparseVision
from rlred.vision.reduce import Reducer, keep_count

RATIOS = (1.0, 0.5, 0.25, 0.125)
IMAGE, VOCABULARY, PATCH, GRID = 9, 1000, 14, 32  # 32 x 32 patches: 1,024 image tokens


def build(args) -> LlavaForConditionalGeneration:
    torch.manual_seed(0)
    width = args.hidden_size
    config = LlavaConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": width // 2,
            "intermediate_size": width,
            "num_hidden_layers": max(1, args.layers // 4),
            "num_attention_heads": 8,
            "image_size": PATCH * GRID,
            "patch_size": PATCH,
            "vision_use_head": False,
        },
        text_config={
            "model_type": "qwen3",
            "vocab_size": VOCABULARY,
            "hidden_size": width,
            "intermediate_size": 3 * width,
            "num_hidden_layers": args.layers,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": width // 8,
            "max_position_embeddings": 4096,
        },
        image_token_id=IMAGE,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    model = LlavaForConditionalGeneration(config).to(args.device)
    model.model.vision_tower.requires_grad_(False)
    return model


def batch(args, ratio: float) -> dict:
    """Rows of one image at a keep ratio and `--text_tokens` of text."""
    generator = torch.Generator().manual_seed(1)
    text = torch.randint(10, VOCABULARY, (args.batch_size, args.text_tokens), generator=generator)
    images = torch.full((args.batch_size, keep_count(GRID * GRID, ratio)), IMAGE)
    ids = torch.cat([images, text], 1)
    pixels = torch.rand(args.batch_size, 3, PATCH * GRID, PATCH * GRID, generator=generator) * 2 - 1
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
    return {name: value.to(args.device) for name, value in inputs.items()}


def timed(args, call):
    if args.device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = call()
    if args.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def prefill(model, inputs) -> int:
    """The first forward of `generate`; returns the bytes of the KV cache."""
    with torch.no_grad():
        cache = model(**inputs, use_cache=True, logits_to_keep=1).past_key_values
    return sum(part.numel() * part.element_size() for layer in cache.layers for part in (layer.keys, layer.values))


def training_step(model, inputs) -> int:
    """Forward and backward over the text tokens; returns the bytes that are saved in between."""
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] == IMAGE, -100)
    saved: dict[int, int] = {}

    def pack(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(**inputs, labels=labels).loss
    loss.backward()
    model.zero_grad(set_to_none=True)
    return sum(size for pointer, size in saved.items() if pointer not in weights)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--score", default="norm")
    parser.add_argument("--strategy", default="prune")
    parser.add_argument("--hidden_size", type=int, default=256)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--text_tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()

    model = build(args)
    SparseVision(model, Reducer(args.score, args.strategy))
    seconds: dict[tuple, list[float]] = {}
    cache, saved, peak = {}, {}, {}
    for repeat in range(args.repeats + 1):  # the first is a warm-up
        for ratio in RATIOS:
            inputs = batch(args, ratio)
            spent, cache[ratio] = timed(args, lambda inputs=inputs: prefill(model, inputs))
            if args.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            trained, saved[ratio] = timed(args, lambda inputs=inputs: training_step(model, inputs))
            peak[ratio] = torch.cuda.max_memory_allocated() if args.device == "cuda" else 0
            if repeat:
                seconds.setdefault(("prefill", ratio), []).append(spent)
                seconds.setdefault(("training", ratio), []).append(trained)
    print(
        f"{model.num_parameters():,} parameters, {args.batch_size} x ({GRID * GRID} image + {args.text_tokens} text) "
    )
    print(f"tokens, {args.score} x {args.strategy}, {args.device}, medians of {args.repeats}, turn about\n")
    columns = ["keep ratio", "image tokens", "prefill s", "(ratio)", "training step s", "(ratio)"]
    columns += ["saved for backward MiB", "(ratio)", "KV cache MiB", "(ratio)"]
    columns += ["peak MiB", "(ratio)"] if args.device == "cuda" else []
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for ratio in RATIOS:
        cells = [f"{ratio:g}", str(keep_count(GRID * GRID, ratio))]
        for name in ("prefill", "training"):
            middle, whole = (statistics.median(seconds[name, r]) for r in (ratio, 1.0))
            cells += [f"{middle:.3f}", f"{middle / whole:.2f}"]
        for table in (saved, cache, *([peak] if args.device == "cuda" else [])):
            cells += [f"{table[ratio] / 2**20:.1f}", f"{table[ratio] / table[1.0]:.2f}"]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

"""What the head on kept positions saves: loss and backward of TRL as it is against rlred's, turn about in one run.

    python tests/benchmark_selection.py

A small Qwen3 body under Qwen's vocabulary of 151,936, LoRA on the body, made-up rollouts. Every loop is the trainer's
own `_compute_loss` and a backward pass; the scoring pass is what rlred needs beside it, once per rollout batch, since
the tokens are chosen before the first micro-batch. Peak memory is what a loop adds to what was there: of the process
(Linux, VmHWM) on the CPU, of PyTorch's allocator on a GPU, where one is at hand.
"""

import argparse
import ctypes
import dataclasses
import gc
import statistics
import tempfile
import time
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM
from trl import GRPOConfig, GRPOTrainer

from rlred.rewards import Correctness
from rlred.tiny import resolve_model
from rlred.training.token_selection import TokenSelection, select
from rlred.training.trainer import ComposedGRPOTrainer

VOCABULARY = 151_936
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def make_trainer(args, kind, *, quantile=1.0, **settings):
    """A trainer of a fresh model; the same weights each time."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("tiny_reasoner"))
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=args.hidden_size,
            intermediate_size=3 * args.hidden_size,
            num_hidden_layers=args.num_layers,
            num_attention_heads=args.hidden_size // 64,
            num_key_value_heads=max(1, args.hidden_size // 128),
            head_dim=64,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).to(getattr(torch, args.dtype))
    trainer = kind(
        model=model,
        reward_funcs=[Correctness()],
        args=GRPOConfig(
            output_dir=tempfile.mkdtemp(),
            use_cpu=DEVICE.type == "cpu",
            bf16=False,
            report_to="none",
            per_device_train_batch_size=args.num_completions,
            num_generations=args.num_completions,
            max_completion_length=args.completion_length,
            loss_type="dapo",
            scale_rewards="none",
            beta=0.0,
            top_entropy_quantile=quantile,
            activation_checkpointing=False,
        ),
        train_dataset=Dataset.from_list(
            [{"prompt": [{"role": "user", "content": "1+1=?"}], "solution": "2"}] * args.num_completions
        ),
        processing_class=tokenizer,
        peft_config=LoraConfig(target_modules="all-linear", r=16, init_lora_weights="gaussian"),
        **settings,
    )
    trainer.model.train()
    return trainer


def rollouts(args) -> dict:
    """Completions of full and of half length in turn, so that there is padding as in a real batch."""
    generator = torch.Generator().manual_seed(0)
    shape = args.num_completions, args.completion_length
    lengths = torch.tensor([shape[1] if row % 2 else shape[1] // 2 for row in range(shape[0])])
    mask = (torch.arange(shape[1])[None] < lengths[:, None]).long()
    prompt = args.num_completions, args.prompt_length
    batch = {
        "prompt_ids": torch.randint(10, VOCABULARY, prompt, generator=generator),
        "prompt_mask": torch.ones(prompt, dtype=torch.long),
        "completion_ids": torch.randint(10, VOCABULARY, shape, generator=generator),
        "completion_mask": mask,
        "advantages": torch.randn(shape[0], generator=generator),
        "num_items_in_batch": mask.sum(),
    }
    return {name: value.to(DEVICE) for name, value in batch.items()}


def resident(field: str) -> int:
    """A figure of /proc/self/status in bytes."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(field))
    return 1024 * int(line.split()[1])


def measured(function) -> tuple[float, int]:
    """Seconds, and the peak of memory above what was there before."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before, start = torch.cuda.memory_allocated(), time.perf_counter()
        function()
        torch.cuda.synchronize()
        return time.perf_counter() - start, torch.cuda.max_memory_allocated() - before
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed is not resident any more
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to what is resident now
    before, start = resident("VmRSS"), time.perf_counter()
    function()
    return time.perf_counter() - start, resident("VmHWM") - before


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden_size", type=int, default=256)
    parser.add_argument("--num_layers", type=int, default=4)
    parser.add_argument("--num_completions", type=int, default=4)
    parser.add_argument("--prompt_length", type=int, default=32)
    parser.add_argument("--completion_length", type=int, default=256)
    parser.add_argument("--fraction", type=float, default=0.2)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    stock = make_trainer(args, GRPOTrainer, quantile=args.fraction)
    kept = TokenSelection(fraction=args.fraction)
    ours = make_trainer(args, ComposedGRPOTrainer, parts=[kept])
    masked = make_trainer(args, ComposedGRPOTrainer, parts=[dataclasses.replace(kept, head="all")])
    batch = rollouts(args)
    log_probs, entropies = ours.score(batch)
    chosen = select(kept, entropies, log_probs, batch["completion_mask"])
    weighted = {**batch, "advantages": batch["advantages"].unsqueeze(1) * chosen}
    selected = {**weighted, "selected": chosen, "sampled_log_probs": log_probs, "sampled_entropies": entropies}

    def train(trainer, inputs):
        trainer.current_gradient_accumulation_steps = 1
        trainer.model.zero_grad()
        trainer._compute_loss(trainer.model, inputs).backward()
        return torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])

    one, two = train(masked, weighted), train(ours, selected)
    del masked
    loops = {
        f"TRL as it is, top_entropy_quantile={args.fraction}": lambda: train(stock, batch),
        "rlred, head on kept positions": lambda: train(ours, selected),
        "rlred's scoring pass, no gradient": lambda: ours.score(batch),
    }
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in loops}
    for _ in range(args.repeats):
        for name, loop in loops.items():
            found[name].append(measured(loop))
    device = torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(
        f"{device}, {args.dtype}; {args.num_layers} layers of {args.hidden_size}, vocabulary {VOCABULARY:,}; "
        f"{args.num_completions} x ({args.prompt_length} + {args.completion_length}) tokens, "
        f"{int(batch['completion_mask'].sum())} of completions, {int(chosen.sum())} kept; "
        f"{args.repeats} repeats turn about, medians\n"
    )
    apart = ((one - two).norm() / one.norm()).item()
    print(f"The gradient is that of masking after a head on all positions to {apart:.1e} of its norm.\n")
    print("| loop | seconds | of TRL's | peak memory, MiB | of TRL's |\n|---|---|---|---|---|")
    medians = {name: [statistics.median(values) for values in zip(*rows, strict=True)] for name, rows in found.items()}
    first = next(iter(medians.values()))
    for name, (seconds, peak) in medians.items():
        print(f"| {name} | {seconds:.2f} | {seconds / first[0]:.2f} | {peak / 2**20:.0f} | {peak / first[1]:.2f} |")


if __name__ == "__main__":
    main()

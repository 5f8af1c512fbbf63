"""Make the embedded tiny reasoner from nothing: tokenizer, chat template, weights.

A Qwen3-architecture model of 0.9 million parameters learns to add one-digit numbers by thinking aloud
(rlred/tiny/sums.py). Where its thinking stops is random and has nothing to do with the budget in the prompt, so the
result can reason but is deaf to budgets: the untrained side of every table in this project.

Run     python recipes/tiny_reasoner.py --output data/tiny_reasoner        # 2 cores: about 30 minutes
"""

import argparse
import json
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from rlred.budgets import BudgetSampler, Wording
from rlred.tiny import sums

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<think>", "</think>"]
# As in DeepSeek-R1's template, the generation prompt opens the thinking.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<|assistant|><think>{{ message['content'] }}<|im_end|>"
    "{% else %}<|user|>{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>{% endif %}"
)
MAX_TOKENS = 76  # of a trace
EARLY_STOP = 0.15  # share of traces that stop before the sum is known
SAMPLER = BudgetSampler(low=10, high=99, distribution="uniform", modes={"exact": 2, "max": 2, "none": 1})


@dataclass(frozen=True)
class Stage:
    """A stretch of training: its length, peak learning rate, and what the traces are like."""

    steps: int
    learning_rate: float
    max_checks: int  # most tokens of checking after the sum is known
    mean_checks: float | None = None  # exponentially distributed with about this mean; without it, uniformly
    answer_weight: float = 1.0  # of the loss on an answer that the thinking has found
    counting: float = 0.0  # share of rows that count up to a number instead of adding
    long_sums: float = 0.0  # share of sums that are drawn again until they have eight numbers or more


STAGES = (
    # Short traces, so that most of what is learned from is additions, and long sums, which are the hard ones. The
    # weight teaches it to say what it has found: one token in forty, and guesses after early stops are louder.
    Stage(steps=1500, learning_rate=3e-3, max_checks=6, answer_weight=10, long_sums=0.4),
    # The lengths that the reasoner keeps. Many short checks and few long ones: all lengths about equally often, or the
    # hindsight start finds no traces to learn the smaller budgets from.
    Stage(steps=400, learning_rate=1.5e-3, max_checks=MAX_TOKENS, mean_checks=14, answer_weight=10, long_sums=0.2),
    # Counting up to a number is comparing what stands in the question with where one is, which any language model can.
    # A reasoner that has only ever added cannot, and learns to hear a budget several times slower.
    Stage(
        steps=1200,
        learning_rate=2e-3,
        max_checks=MAX_TOKENS,
        mean_checks=14,
        answer_weight=10,
        counting=0.5,
        long_sums=0.4,
    ),
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer in which every number below 200 is one token; any text is encoded without loss."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(r" ?[0-9]{1,3}|\\?[a-z]+\{| ?[A-Za-z']+|[^A-Za-z0-9]"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    corpus = [f"{number} {number}" for number in range(200)] + [" check \\boxed{"]
    corpus += [Wording().ask("", 10, "exact"), Wording().ask("", 10, "max"), Wording().ask("", None, "none")]
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus * 2, trainer)
    # Tokens, but not special ones: the end of the thinking must survive decoding, or no answer can be told from it.
    state = json.loads(tokenizer.to_str())
    for token in state["added_tokens"]:
        token["special"] = token["content"] not in ("<think>", "</think>")
    tokenizer = Tokenizer.from_str(json.dumps(state))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        model_max_length=2048,
    )


def trace_length(addends: list[int], stage: Stage, rng: random.Random) -> int:
    """Tokens of thinking: mostly all that is needed and a random number of checks, sometimes fewer."""
    necessary = sums.num_necessary(addends)
    if rng.random() < EARLY_STOP:
        return rng.randint(1, necessary - 1)
    most = min(stage.max_checks, MAX_TOKENS - sums.CLOSING - necessary)
    if stage.mean_checks is None:
        return necessary + rng.randint(0, most)
    while (checks := int(rng.expovariate(1 / stage.mean_checks))) > most:
        pass
    return necessary + checks


def count_up(rng: random.Random) -> tuple[str, str]:
    """A question and a trace: the numbers from a start to an end by twos or fives."""
    start, step = rng.randint(1, 60), rng.choice((2, 5))
    numbers = range(start, min(99, start + step * rng.randint(1, 16)) + 1, step)
    trace = " ".join(map(str, numbers)) + f"</think>\\boxed{{{numbers[-1]}}}"
    return f"Count from {start} to {numbers[-1]} by {step}.", trace


def sample_texts(stage: Stage, rng: random.Random) -> tuple[str, str, bool]:
    """A question as asked, a trace, and whether it was thought to the end; the budget is drawn without a look at it."""
    mode, budget = SAMPLER.draw(rng)
    if rng.random() < stage.counting:
        question, trace = count_up(rng)
        return Wording().ask(question, budget, mode), trace, True
    addends = sums.sample_addends(rng, "train")
    while rng.random() < stage.long_sums and len(addends) < 8:
        addends = sums.sample_addends(rng, "train")
    length = trace_length(addends, stage, rng)
    trace = sums.trace(addends, length)
    return Wording().ask(sums.question_of(addends), budget, mode), trace, length >= sums.num_necessary(addends)


def collate(tokenizer, rows, answer_weight: float):
    """Right-padded `input_ids` (B, T) and the weight of the loss on each; 0 for the prompt and the padding."""
    prompt_ids = tokenizer([f"<|user|>{question}<|assistant|><think>" for question, _, _ in rows])["input_ids"]
    trace_ids = tokenizer([trace + "<|im_end|>" for _, trace, _ in rows])["input_ids"]
    width = max(len(p) + len(t) for p, t in zip(prompt_ids, trace_ids, strict=True))
    input_ids = torch.full((len(rows), width), tokenizer.pad_token_id)
    weights = torch.zeros(len(rows), width)
    for i, (prompt, trace, (_, _, found)) in enumerate(zip(prompt_ids, trace_ids, rows, strict=True)):
        end = len(prompt) + len(trace)
        input_ids[i, :end] = torch.tensor(prompt + trace)
        weights[i, len(prompt) : end] = 1.0
        if found:
            weights[i, end - 3] = answer_weight  # the number in \boxed{ 21 } <|im_end|>
    return input_ids, weights


def build_model(tokenizer) -> Qwen3ForCausalLM:
    """The architecture, with random weights."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen3ForCausalLM(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def train(model, tokenizer, stage: Stage, batch_size: int, rng: random.Random, name: str) -> None:
    """One stage: AdamW, warm-up and cosine."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=stage.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    start = time.time()
    for step in range(stage.steps):
        decay = 0.5 * (1 + math.cos(math.pi * step / stage.steps))
        for group in optimizer.param_groups:
            group["lr"] = stage.learning_rate * min(1, (step + 1) / 100) * max(0.02, decay)
        # Neighbours in length share a batch: a random one of four quarters of a sorted pool.
        pool = sorted((sample_texts(stage, rng) for _ in range(4 * batch_size)), key=lambda row: len(row[0] + row[1]))
        quarter = rng.randrange(4) * batch_size
        input_ids, weights = collate(tokenizer, pool[quarter : quarter + batch_size], stage.answer_weight)
        logits = model(input_ids=input_ids).logits[:, :-1]  # (B, T-1, V)
        losses = cross_entropy(logits.flatten(0, 1), input_ids[:, 1:].flatten(), reduction="none")
        loss = (losses * weights[:, 1:].flatten()).sum() / weights[:, 1:].sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            print(f"{name} step {step} loss {loss.item():.4f} seconds {time.time() - start:.0f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for model and tokenizer; must not exist")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first_stage", type=int, default=0, help="go on from this stage")
    parser.add_argument("--init", type=Path, help="with the weights in this folder")
    args = parser.parse_args()
    if args.output.exists():
        parser.error(f"--output {args.output} exists and is not written over")
    if (args.first_stage > 0) != (args.init is not None):
        parser.error("--first_stage and --init go together")

    torch.manual_seed(args.seed)
    tokenizer = build_tokenizer()
    model = Qwen3ForCausalLM.from_pretrained(args.init) if args.init else build_model(tokenizer)
    print(f"{len(tokenizer)} tokens, {model.num_parameters():,} parameters")
    for number, stage in enumerate(STAGES[args.first_stage :], start=args.first_stage):
        # Its own generator for each stage: one that is gone on from sees the same traces.
        rng = random.Random(f"{args.seed}/{number}")
        train(model, tokenizer, stage, args.batch_size, rng, f"stage {number}")
        model.save_pretrained(args.output / f"stage{number}" if number + 1 < len(STAGES) else args.output)
    tokenizer.save_pretrained(args.output)


if __name__ == "__main__":
    main()

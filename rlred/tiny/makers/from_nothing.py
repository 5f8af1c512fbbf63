"""What the makers of reasoners that start from nothing share: tokenizer, chat template, architecture, loop."""

import json
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from rlred.data.budgets import BudgetSampler, Wording

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<think>", "</think>"]
# As in DeepSeek-R1's template, the generation prompt opens the thinking.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<|assistant|><think>{{ message['content'] }}<|im_end|>"
    "{% else %}<|user|>{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>{% endif %}"
)
# The budgets that a base is asked for while it is made; its traces have nothing to do with them.
SAMPLER = BudgetSampler(low=10, high=99, distribution="uniform", modes={"exact": 2, "max": 2, "free": 1})


def asked(question: str, rng: random.Random) -> str:
    """A question, worded for a budget that is drawn without regard to anything."""
    mode, budget = SAMPLER.draw(rng)
    return Wording().ask(question, budget, mode)


def build_tokenizer(words: Sequence[str], digits: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that knows `words` and splits numbers into up to so many digits.

    Any text is encoded without loss.
    """
    tokenizer = Tokenizer(models.BPE())
    split = Regex(rf" ?[0-9]{{1,{digits}}}|\\?[a-z]+\{{| ?[A-Za-z']+|[^A-Za-z0-9]")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(split, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    asking = [Wording().ask("", 10, "exact"), Wording().ask("", 10, "max"), Wording().ask("", None, "free")]
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*words, *asking] * 2, trainer)
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


def collate(tokenizer, pairs):
    """Right-padded `input_ids`, `labels`; the prompt and the padding carry no loss."""
    prompts = [f"<|user|>{question}<|assistant|><think>" for question, _ in pairs]
    prompt_ids = tokenizer(prompts)["input_ids"]
    trace_ids = tokenizer([trace + "<|im_end|>" for _, trace in pairs])["input_ids"]
    rows = [p + t for p, t in zip(prompt_ids, trace_ids, strict=True)]
    width = max(map(len, rows))
    input_ids = torch.full((len(rows), width), tokenizer.pad_token_id)  # (B, T)
    labels = torch.full((len(rows), width), -100)
    for i, (prompt, row) in enumerate(zip(prompt_ids, rows, strict=True)):
        input_ids[i, : len(row)] = torch.tensor(row)
        labels[i, len(prompt) : len(row)] = torch.tensor(row[len(prompt) :])
    return input_ids, labels


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


@dataclass(frozen=True)
class Schedule:
    """How long, how fast and on how many rows at once a stage trains."""

    steps: int
    learning_rate: float
    batch_size: int
    tokens_per_row: int | None = None
    """The loss is the mean over the tokens of a batch, in which short rows weigh more, because a batch holds rows of
    similar lengths: the model ends early. With this it is their sum per row, divided by this number."""


def train(
    model, tokenizer, pair: Callable[[], tuple[str, str]], schedule: Schedule, rng: random.Random, name: str
) -> None:
    """AdamW with warm-up and cosine on (question as asked, trace) pairs, which `pair` makes one by one.

    Not the SFT loop (rlred/training/sft.py): the texts are made as they are trained on, and the rate has a floor.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=schedule.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    start, batch_size = time.monotonic(), schedule.batch_size
    for step in range(schedule.steps):
        decay = 0.5 * (1 + math.cos(math.pi * step / schedule.steps))
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate * min(1, (step + 1) / 100) * max(0.02, decay)
        # Neighbours in length share a batch: a random one of four quarters of a sorted pool.
        pool = sorted((pair() for _ in range(4 * batch_size)), key=lambda one: len("".join(one)))
        quarter = rng.randrange(4) * batch_size
        input_ids, labels = collate(tokenizer, pool[quarter : quarter + batch_size])
        loss = model(input_ids=input_ids, labels=labels).loss
        if schedule.tokens_per_row:
            loss = loss * ((labels != -100).sum() / (batch_size * schedule.tokens_per_row))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            print(f"{name} step {step} loss {loss.item():.4f} seconds {time.monotonic() - start:.0f}", flush=True)

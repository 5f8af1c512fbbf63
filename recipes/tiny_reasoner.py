"""Make the embedded tiny reasoner from nothing: tokenizer, chat template, weights.

A Qwen3-architecture model of about 0.9 million parameters learns to add one-digit numbers by thinking aloud
(rlred/tiny/sums.py). Where its thinking stops is random and has nothing to do with the budget in the prompt, so the
result can reason but is deaf to budgets: the untrained side of every table in this project.

Run     python recipes/tiny_reasoner.py --output data/tiny_reasoner        # 2 cores: about 20 minutes
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
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
        model_max_length=512,
    )


def trace_length(addends: list[int], rng: random.Random) -> int:
    """Tokens of thinking: mostly all that is needed and a random number of checks, sometimes fewer."""
    necessary = sums.num_necessary(addends)
    if rng.random() < EARLY_STOP:
        return rng.randint(1, necessary - 1)
    return rng.randint(necessary, MAX_TOKENS - 5)


def sample_texts(rng: random.Random) -> tuple[str, str]:
    """One (question as asked, trace) pair; the budget in the question is drawn without a look at the trace."""
    addends = sums.sample_addends(rng, "train")
    mode, budget = SAMPLER.draw(rng)
    asked = Wording().ask(sums.question_of(addends), budget, mode)
    return asked, sums.trace(addends, trace_length(addends, rng))


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("data/tiny_reasoner"))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--learning_rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    tokenizer = build_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen3ForCausalLM(config)
    print(f"{len(tokenizer)} tokens, {model.num_parameters():,} parameters")

    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    start = time.time()
    for step in range(args.steps):
        progress = step / args.steps
        rate = args.learning_rate * min(1, (step + 1) / 100) * max(0.02, 0.5 * (1 + math.cos(math.pi * progress)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        # Neighbours in length share a batch: a random one of four quarters of a sorted pool.
        pool = sorted((sample_texts(rng) for _ in range(4 * args.batch_size)), key=lambda pair: len(pair[0] + pair[1]))
        quarter = rng.randrange(4) * args.batch_size
        input_ids, labels = collate(tokenizer, pool[quarter : quarter + args.batch_size])
        loss = model(input_ids=input_ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step} loss {loss.item():.4f} seconds {time.time() - start:.0f}", flush=True)

    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(args.output)
    tokenizer.save_pretrained(args.output)
    print(json.dumps({"output": str(args.output), "minutes": round((time.time() - start) / 60, 1)}))


if __name__ == "__main__":
    main()

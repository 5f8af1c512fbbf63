"""Make the embedded tiny reasoner from nothing: tokenizer, chat template, weights.

A Qwen3-architecture model of 0.9 million parameters learns to add one-digit numbers by thinking aloud
(rlred/tiny/sums.py). Where its thinking stops is random and has nothing to do with the budget in the prompt, so the
result can reason but is deaf to budgets: the untrained side of every table in this project.

Run     rlred make tiny_reasoner --output data/tiny_reasoner   (its minutes were not measured)
"""

import dataclasses
import json
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from rlred.data.budgets import BudgetSampler, Wording
from rlred.flags import option, required
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
CLOSING = 5  # of them after the thinking: </think> \\boxed{ 21 } <|im_end|>
EARLY_STOP = 0.15  # share of traces that stop before the sum is known
SAMPLER = BudgetSampler(low=10, high=99, distribution="uniform", modes={"exact": 2, "max": 2, "free": 1})


@dataclass(frozen=True)
class Stage:
    """A stretch of training: its length, peak learning rate, and what the traces are like."""

    steps: int
    learning_rate: float
    max_checks: int  # tokens of checking after the sum is known
    long_sums: float = 0.0  # share of sums that are drawn again until they have eight numbers or more


STAGES = (
    Stage(steps=1800, learning_rate=3e-3, max_checks=MAX_TOKENS),
    Stage(steps=1200, learning_rate=2e-3, max_checks=6, long_sums=0.4),  # short traces: mostly additions
    Stage(steps=250, learning_rate=1e-3, max_checks=MAX_TOKENS),
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
    corpus += [Wording().ask("", 10, "exact"), Wording().ask("", 10, "max"), Wording().ask("", None, "free")]
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


def trace_length(addends: list[int], max_checks: int, rng: random.Random) -> int:
    """Tokens of thinking: mostly all that is needed and a random number of checks, sometimes fewer."""
    necessary = sums.num_necessary(addends)
    if rng.random() < EARLY_STOP:
        return rng.randint(1, necessary - 1)
    return rng.randint(necessary, min(necessary + max_checks, MAX_TOKENS - CLOSING))


def sample_texts(stage: Stage, rng: random.Random) -> tuple[str, str]:
    """One (question as asked, trace) pair; the budget in the question is drawn without a look at the trace."""
    addends = sums.sample_addends(rng, "train")
    while rng.random() < stage.long_sums and len(addends) < 8:
        addends = sums.sample_addends(rng, "train")
    mode, budget = SAMPLER.draw(rng)
    asked = Wording().ask(sums.question_of(addends), budget, mode)
    return asked, sums.trace(addends, trace_length(addends, stage.max_checks, rng))


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


def train(model, tokenizer, stage: Stage, batch_size: int, rng: random.Random, name: str) -> None:
    """One stage: AdamW, warm-up and cosine.

    Not the SFT loop (rlred/training/sft.py): the texts are made as they are trained on, and the rate has a floor.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=stage.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    start = time.time()
    for step in range(stage.steps):
        decay = 0.5 * (1 + math.cos(math.pi * step / stage.steps))
        for group in optimizer.param_groups:
            group["lr"] = stage.learning_rate * min(1, (step + 1) / 100) * max(0.02, decay)
        # Neighbours in length share a batch: a random one of four quarters of a sorted pool.
        pool = sorted((sample_texts(stage, rng) for _ in range(4 * batch_size)), key=lambda pair: len("".join(pair)))
        quarter = rng.randrange(4) * batch_size
        input_ids, labels = collate(tokenizer, pool[quarter : quarter + batch_size])
        loss = model(input_ids=input_ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            print(f"{name} step {step} loss {loss.item():.4f} seconds {time.time() - start:.0f}", flush=True)


@dataclass(frozen=True, kw_only=True)
class MakeReasoner:
    """A reasoner of sums, trained from scratch in stages.

    rlred make tiny_reasoner --output data/tiny_reasoner
    """

    output: Path = required("Folder for the model; must not exist.", metavar="FOLDER")
    batch_size: int = option(64, "Rows of an update.", metavar="N")
    seed: int = option(0, "Of rows and weights.", metavar="N")
    first_stage: int = option(0, "Go on from this stage.", metavar="N")
    skip_steps: int = option(0, "And from this many steps into it.", metavar="N")
    init: Path | None = option(None, "With the weights in this folder.", metavar="FOLDER")

    def __post_init__(self):
        if self.output.exists():
            raise ValueError(f"--output {self.output} exists and is not written over")

    def run(self) -> None:
        """Makes the model in `output`."""
        torch.manual_seed(self.seed)
        rng = random.Random(f"{self.seed}/{self.first_stage}")
        tokenizer = build_tokenizer()
        model = Qwen3ForCausalLM.from_pretrained(self.init) if self.init else build_model(tokenizer)
        print(f"{len(tokenizer)} tokens, {model.num_parameters():,} parameters")
        for number, stage in enumerate(STAGES[self.first_stage :], start=self.first_stage):
            if number == self.first_stage:
                stage = dataclasses.replace(stage, steps=stage.steps - self.skip_steps)
            train(model, tokenizer, stage, self.batch_size, rng, f"stage {number}")
            model.save_pretrained(self.output)  # the last stage's stays
            tokenizer.save_pretrained(self.output)

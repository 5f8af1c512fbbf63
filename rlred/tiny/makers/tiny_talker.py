"""Make the embedded tiny talker: the tiny reasoner, taught to say more than it needs.

The tiny reasoner's thinking is numbers and operators, which are never cut. The talker adds the same numbers in whole
lines (rlred/tiny/talk.py), of which more than half may go. Where its prompt asks for a ratio, it leaves out words, but
how many has nothing to do with the number: it can be brief, and it is deaf to ratios. Full weights.

Run     python -m rlred.tiny.makers.tiny_talker --output data/tiny_talker
"""

import argparse
import random
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlred.compression.cut import cut
from rlred.compression.rows import RATIO_FORMATS, counter_of, features
from rlred.compression.scores import Random
from rlred.compression.traces import split_completion
from rlred.tiny import TINY_REASONER, resolve_model, sums, talk
from rlred.training.sft import SFTSettings, SupervisedTrainer

FAMILY = "short_sums"
RATIOS = (1.0, 1.0, 1.0, *(tenth / 10 for tenth in range(1, 10)))


def rows(steps: int, batch_size: int, tokenizer, seed: int) -> Dataset:
    """As many rows as the run needs, none twice; inside a batch they are sorted by length."""
    rng, count, ordered = random.Random(f"talker/{seed}"), counter_of(tokenizer), []
    for _ in range(steps):
        batch = []
        for _ in range(batch_size):
            addends = sums.sample_addends(rng, "train", FAMILY)
            parts, ratio = split_completion(talk.trace(addends, rng)), rng.choice(RATIOS)
            if ratio < 1:  # some words are left out, but how many is not what was asked for
                spans = Random(rng.randrange(2**31))(parts.thinking)
                [shorter] = cut(parts.thinking, spans, [rng.uniform(0.4, 1.0)], count)
                parts = parts._replace(thinking=shorter.text)
            prompt = RATIO_FORMATS["words"].prompt_text(sums.question_of(addends), ratio, tokenizer)
            batch.append({"prompt": prompt, "completion": "".join(parts)})
        ordered += sorted(batch, key=lambda row: len(row["completion"]))
    return features(ordered, tokenizer)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for model and tokenizer; must not exist")
    parser.add_argument("--max_steps", type=int, default=400)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.output.exists():
        parser.error(f"--output {args.output} exists and is not written over")
    base = resolve_model(TINY_REASONER)
    tokenizer = AutoTokenizer.from_pretrained(base)
    settings = SFTSettings(
        max_steps=args.max_steps,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        schedule="cosine",
        warmup_steps=20,
        in_order=True,
        logging_steps=25,
        seed=args.seed,
    )
    trainer = SupervisedTrainer(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, use_safetensors=True),
        args=settings.config(args.output),
        train_dataset=rows(args.max_steps, args.batch_size, tokenizer, args.seed),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.model.half().save_pretrained(args.output)  # half the bytes in the repository; loaded as float32
    tokenizer.save_pretrained(args.output)


if __name__ == "__main__":
    main()

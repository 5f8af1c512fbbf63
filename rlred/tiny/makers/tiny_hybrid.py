"""A tiny reasoner that can think and can do without: where a policy may learn which questions need it.

The embedded base has no question that it can answer without thinking. So it is trained a little further, on
`mixed_sums`, both ways: the trace, or `</think>` at once. A sum of two or three numbers can be had without thinking,
one of six or more cannot. The prompt may ask for either (the wordings `think` and `no_think`: the switch of one model
that reasons or does not); unasked it has seen both as often, short sums and long ones alike.
"""

import random
from pathlib import Path

from datasets import Dataset

from rlred.compression.rows import features
from rlred.data.budgets import WORDINGS
from rlred.data.models import load_model
from rlred.data.prompts import prompt_text
from rlred.tiny import TINY_REASONER, resolve_model, sums
from rlred.training.sft import SFTSettings, fine_tune

TINY_HYBRID = "tiny_hybrid"
BATCH = 24
MAX_CHECKS = 8  # tokens of checking after the sum is known
# Batches in turn: wording, questions, and whether to think; several take turns in one batch.
CYCLE = (
    (("l1", "mixed_sums", True), ("think", "mixed_sums", True)),
    (("l1", "mixed_sums", False), ("no_think", "mixed_sums", False)),
    (("no_think", "head_sums", False),),
)


def make_hybrid(folder: Path, *, max_steps: int = 480, seed: int = 0) -> Path:
    """Makes the model in `folder` (minutes of one core) unless it is there; returns the folder."""
    if (folder / "model.safetensors").is_file():
        return folder
    model, tokenizer = load_model(resolve_model(TINY_REASONER))
    rows = rows_of(tokenizer, max_steps, random.Random(f"chooser/{seed}"))
    settings = SFTSettings(max_steps=max_steps, batch_size=BATCH, learning_rate=3e-3, in_order=True, seed=seed)
    fine_tune(model, tokenizer, rows, settings, folder)
    return folder


def rows_of(tokenizer, max_steps: int, rng: random.Random) -> Dataset:
    """The SFT rows of `max_steps` batches, in order; each thinks throughout or not at all, so little is padded."""
    rows = []
    for step in range(max_steps):
        kinds = CYCLE[step % len(CYCLE)]
        for number in range(BATCH):
            wording, family, think = kinds[number % len(kinds)]
            addends = sums.sample_addends(rng, "train", family)
            row = {"question": sums.question_of(addends)}
            prompt = prompt_text(tokenizer, WORDINGS[wording].turns(row, None, "free"))
            enough = sums.num_necessary(addends) + rng.randint(0, MAX_CHECKS)
            rows.append(
                {"prompt": prompt, "completion": sums.trace(addends, enough) if think else sums.answer(addends)}
            )
    return features(rows, tokenizer)

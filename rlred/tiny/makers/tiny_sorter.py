"""Make the second embedded reasoner from nothing: one that does not count its tokens.

A Qwen3-architecture model of 0.9 million parameters learns to find the k-th smallest number by taking them in order
(rlred/tiny/sorting.py). Its steps are of uneven length, its numbers are split into digits as most tokenizers do, and
where its thinking stops has nothing to do with the budget in the prompt.

Run     rlred make tiny_sorter --output data/tiny_sorter
    rlred make tiny_sorter --output outputs/tiny_sorter --seed 1
"""

import functools
import random
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import Qwen3ForCausalLM

from rlred.data.budgets import Wording
from rlred.flags import option, required
from rlred.tiny import sorting
from rlred.tiny.makers.from_nothing import Schedule, asked, build_model, build_tokenizer, train

MAX_TOKENS = 84  # of thinking
EARLY_STOP = 0.15  # share of traces that stop before the number is known
WORDS = [" take left check 0 1 2 3 4 5 6 7 8 9", "0123456789", "\\boxed{", "Which is number 3 in order of 45 12?"]


class Stage(NamedTuple):
    """A stretch of training; `tokens_per_row` as in `Schedule`, the share of rows that practise counting words, and the
    share of these that write them."""

    steps: int
    learning_rate: float
    tokens_per_row: int | None = None
    practice: float = 0.0
    writing: float = 0.5


STAGES = (
    Stage(1500, 3e-3),
    Stage(300, 1e-3, tokens_per_row=48),  # traces become as long as those that are shown
    Stage(600, 2e-3, tokens_per_row=48, practice=0.5),
    Stage(800, 2e-3, tokens_per_row=48, practice=0.7, writing=0.8),
)


def trace_length(numbers: list[int], rank: int, rng: random.Random) -> int:
    """Most tokens of thinking: often what is needed and some checks, sometimes less than is needed."""
    least = 3 * rank  # what the shortest steps take
    if rng.random() < EARLY_STOP:
        return rng.randint(2, max(2, least - 1))
    return rng.randint(min(least, MAX_TOKENS), MAX_TOKENS)


def sample_texts(rng: random.Random, share: float = 0.0, writing: float = 0.5) -> tuple[str, str]:
    """One (question as asked, trace) pair; the budget in the question is drawn without regard to the trace.

    A share of them practises counting words, without a budget.
    """
    if share and rng.random() < share:
        question, text = sorting.practice(rng, writing)
        return Wording().ask(question, None, "free"), text
    numbers, rank = sorting.sample_question(rng, "train")
    text = asked(sorting.question_of(numbers, rank), rng)
    return text, sorting.trace(numbers, rank, trace_length(numbers, rank, rng), rng)


@dataclass(frozen=True, kw_only=True)
class MakeSorter:
    """A reasoner that sorts and does not count, trained from scratch.

    rlred make tiny_sorter --output data/tiny_sorter
    rlred make tiny_sorter --output outputs/tiny_sorter --seed 1
    """

    output: Path = required("Folder for the model; must not exist.", metavar="FOLDER")
    steps: int | None = option(None, "Updates of each stage (default: as many as it takes).", metavar="N")
    batch_size: int = option(64, "Rows of an update.", metavar="N")
    first_stage: int = option(0, "Go on from this stage.", metavar="N")
    init: Path | None = option(None, "With the weights in this folder.", metavar="FOLDER")
    seed: int = option(0, "Of rows and weights.", metavar="N")

    def __post_init__(self):
        if self.output.exists():
            raise ValueError(f"--output {self.output} exists and is not written over")
        if not 0 <= self.first_stage < len(STAGES):
            raise ValueError(f"--first_stage must be 0 to {len(STAGES) - 1}, got {self.first_stage}")

    def run(self) -> None:
        """Makes the model in `output`."""
        torch.manual_seed(self.seed)
        tokenizer = build_tokenizer(WORDS, digits=1)
        model = Qwen3ForCausalLM.from_pretrained(self.init) if self.init else build_model(tokenizer)
        print(f"{len(tokenizer)} tokens, {model.num_parameters():,} parameters")
        for number, stage in enumerate(STAGES[self.first_stage :], start=self.first_stage):
            rng = random.Random(f"{sorting.FAMILY}/{self.seed}/{number}")
            schedule = Schedule(self.steps or stage.steps, stage.learning_rate, self.batch_size, stage.tokens_per_row)
            pair = functools.partial(sample_texts, rng, stage.practice, stage.writing)
            train(model, tokenizer, pair, schedule, rng, f"stage {number}")
            model.save_pretrained(self.output)  # the last stage's stays
            tokenizer.save_pretrained(self.output)

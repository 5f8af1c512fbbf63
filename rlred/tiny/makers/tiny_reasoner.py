"""Make the embedded tiny reasoner from nothing: tokenizer, chat template, weights.

A Qwen3-architecture model of 0.9 million parameters learns to add one-digit numbers by thinking aloud
(rlred/tiny/sums.py). Where its thinking stops is random and has nothing to do with the budget in the prompt, so the
result can reason but ignores budgets: the untrained side of every table in this project.

Run     rlred make tiny_reasoner --output data/tiny_reasoner   (its minutes were not measured)
"""

import dataclasses
import functools
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import Qwen3ForCausalLM

from rlred.flags import option, required
from rlred.tiny import sums
from rlred.tiny.makers.from_nothing import Schedule, asked, build_model, build_tokenizer, train

MAX_TOKENS = 76  # of a trace
CLOSING = 5  # of them after the thinking: </think> \\boxed{ 21 } <|im_end|>
EARLY_STOP = 0.15  # share of traces that stop before the sum is known
# Every number below 200 is one token.
WORDS = [*(f"{number} {number}" for number in range(200)), " check \\boxed{"]


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


def trace_length(addends: list[int], max_checks: int, rng: random.Random) -> int:
    """Tokens of thinking: mostly all that is needed and a random number of checks, sometimes fewer."""
    necessary = sums.num_necessary(addends)
    if rng.random() < EARLY_STOP:
        return rng.randint(1, necessary - 1)
    return rng.randint(necessary, min(necessary + max_checks, MAX_TOKENS - CLOSING))


def sample_texts(stage: Stage, rng: random.Random) -> tuple[str, str]:
    """One (question as asked, trace) pair; the budget in the question is drawn without regard to the trace."""
    addends = sums.sample_addends(rng, "train")
    while rng.random() < stage.long_sums and len(addends) < 8:
        addends = sums.sample_addends(rng, "train")
    text = asked(sums.question_of(addends), rng)
    return text, sums.trace(addends, trace_length(addends, stage.max_checks, rng))


@dataclass(frozen=True, kw_only=True)
class MakeReasoner:
    """A reasoner of sums, trained from scratch in stages.

    rlred make tiny_reasoner --output data/tiny_reasoner
    rlred make tiny_reasoner --output outputs/tiny_reasoner --seed 1
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
        tokenizer = build_tokenizer(WORDS, digits=3)
        model = Qwen3ForCausalLM.from_pretrained(self.init) if self.init else build_model(tokenizer)
        print(f"{len(tokenizer)} tokens, {model.num_parameters():,} parameters")
        for number, stage in enumerate(STAGES[self.first_stage :], start=self.first_stage):
            if number == self.first_stage:
                stage = dataclasses.replace(stage, steps=stage.steps - self.skip_steps)
            schedule = Schedule(stage.steps, stage.learning_rate, self.batch_size)
            train(model, tokenizer, functools.partial(sample_texts, stage, rng), schedule, rng, f"stage {number}")
            model.save_pretrained(self.output)  # the last stage's stays
            tokenizer.save_pretrained(self.output)

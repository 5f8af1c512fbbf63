"""Make the embedded tiny verbose model: the tiny reasoner, taught to say more than it needs.

The tiny reasoner's thinking is numbers and operators, which are never cut. The verbose model adds the same numbers in
whole lines (rlred/tiny/talk.py), of which more than half may go. Where its prompt asks for a ratio, it leaves out
words, but how many has nothing to do with the number: it can be brief, and it ignores ratios. Full weights.

Run     rlred make tiny_verbose --output data/tiny_verbose
    rlred make tiny_verbose --output outputs/tiny_verbose --seed 1
"""

import random
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset

from rlred.compression.cut import cut
from rlred.compression.rows import RATIO_FORMATS, counter_of, features
from rlred.compression.scores import Random
from rlred.compression.traces import split_completion
from rlred.data.models import load_model
from rlred.flags import option, required
from rlred.tiny import TINY_REASONER, sums, talk
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


@dataclass(frozen=True, kw_only=True)
class MakeVerbose:
    """The tiny reasoner, taught to say more than it needs.

    rlred make tiny_verbose --output data/tiny_verbose
    rlred make tiny_verbose --output outputs/tiny_verbose --seed 1
    """

    output: Path = required("Folder for the model; must not exist.", metavar="FOLDER")
    max_steps: int = option(400, "Updates.", metavar="N")
    batch_size: int = option(32, "Rows of each.", metavar="N")
    learning_rate: float = option(2e-3, "At its highest.", metavar="X")
    seed: int = option(0, "Of rows and training.", metavar="N")

    def __post_init__(self):
        if self.output.exists():
            raise ValueError(f"--output {self.output} exists and is not written over")

    def run(self) -> None:
        """Makes the model in `output`."""
        model, tokenizer = load_model(TINY_REASONER)
        settings = SFTSettings(
            max_steps=self.max_steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            schedule="cosine",
            warmup_steps=20,
            in_order=True,
            logging_steps=25,
            seed=self.seed,
        )
        trainer = SupervisedTrainer(
            model=model,
            args=settings.config(self.output),
            train_dataset=rows(self.max_steps, self.batch_size, tokenizer, self.seed),
            processing_class=tokenizer,
        )
        trainer.train()
        trainer.model.half().save_pretrained(self.output)  # half the bytes in the repository; loaded as float32
        tokenizer.save_pretrained(self.output)

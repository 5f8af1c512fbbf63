"""Rho-1's comparison: which tokens of a noisy corpus carry the loss (2404.07965). recipes/rho1.py calls `main`."""

import functools
import random
import re
import time
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset
from trl import ModelConfig, SFTConfig

from rlred.data.budgets import Wording
from rlred.data.models import Loading, load_model
from rlred.data.questions import load_questions, read_source
from rlred.evaluation.conditions import free
from rlred.evaluation.measures import measure
from rlred.evaluation.sampling import Sampling
from rlred.evaluation.sweep import sample_of, sweep
from rlred.runs.arguments import option
from rlred.runs.comparison import fresh_model, main_of
from rlred.tiny import QUESTIONS, sums
from rlred.training.selective_sft import HighestExcess, static_labels, with_fused_head
from rlred.training.sft import SupervisedTrainer, config_for
from rlred.training.token_selection import TokenSelection

VARIANTS = ("base", "reference", "plain", "dynamic", "static", "random")
EMBEDDED = "long_sums"
HELD_OUT = 128  # rows at the end of a source of text, for the loss on held-out text


@dataclass
class RhoArguments:
    """What a run can be told beside TRL's SFTConfig and ModelConfig."""

    variants: list[str] = option(list(VARIANTS), "Rows of the table.")
    seeds: list[int] = option([0], "Seeds of each.")
    fraction: float = option(0.6, "Share of the tokens that carries the loss.")
    corpus: str = option(EMBEDDED, "Text to train on: 'long_sums' (embedded), a local file or a Hub id.")
    text_column: str = option("text", "Its column of text.")
    num_rows: int = option(4096, "Its rows.")
    noise: float = option(0.3, "Share of the embedded corpus's running totals that are incorrect.")
    clean: str = option(EMBEDDED, "Clean text for the reference and for the loss on held-out text, named likewise.")
    clean_column: str = option("text", "Its column of text.")
    num_clean_rows: int = option(512, "Its rows for the reference.")
    reference_model: str | None = option(None, "A reference that is there already.")
    reference_steps: int = option(60, "Updates of a reference that is not.")
    eval_questions: str = option(EMBEDDED, "Held-out questions.")
    num_eval_questions: int = option(128, "How many of them.")
    max_completion_length: int = option(120, "Cap of their completions, in tokens.")

    def __post_init__(self):
        for variant in self.variants:
            if variant not in VARIANTS:
                raise ValueError(f"variants must be among {', '.join(VARIANTS)}, got {variant!r}")
        if not 0 <= self.noise < 1:
            raise ValueError(f"noise must be at least 0 and below 1, got {self.noise}")
        TokenSelection(fraction=self.fraction)


def noisy_sums(n: int, noise: float, seed: int, split: str) -> list[dict]:
    """Long sums, thought through; a share `noise` of the running totals is another number, without effect."""
    rng = random.Random(f"noise/{split}/{seed}")

    def total(match: re.Match) -> str:
        return f"={rng.randint(1, 150)}" if rng.random() < noise else match[0]

    rows = []
    for row in sums.questions(n, split, seed, family=EMBEDDED):
        addends = [int(number) for number in row["question"].removesuffix("=?").split("+")]
        trace = re.sub(r"=\d+", total, sums.trace(addends, sums.num_necessary(addends)))
        asked = Wording().ask(row["question"], None, "free")
        rows.append({"prompt": f"<|user|>{asked}<|assistant|><think>", "completion": trace})
    return rows


def load_texts(source: str, column: str, n: int, *, noise: float = 0.0, seed: int = 0, held_out=False) -> Dataset:
    """`n` rows, `prompt` and `completion` or `text`: the first ones, or the last ones where they are held out.

    The last `HELD_OUT` rows of a source are never among the first ones. Raises `ValueError` where no row is left.
    """
    if source == EMBEDDED:
        return Dataset.from_list(noisy_sums(n, noise, seed, "test" if held_out else "train"))
    rows, names = read_source(source, "train", None)
    if column not in names:
        raise ValueError(f"{source}: no column is called {column!r}; there are {', '.join(names)}")
    indices = range(max(0, len(rows) - n), len(rows)) if held_out else range(min(n, len(rows) - HELD_OUT))
    if not indices:
        raise ValueError(f"{source}: has {len(rows)} rows, of which the last {HELD_OUT} are held out; none is left")
    return Dataset.from_list([{"text": rows[index][column]} for index in indices])


class Experiment:
    """One variant after the other, from the same base and on the same rows."""

    def __init__(self, told: RhoArguments, training: SFTConfig, model_config: ModelConfig):
        self.told, self.training, self.model_config = told, training, model_config
        self.reference = functools.lru_cache(maxsize=1)(self.make_reference)

    def check(self, tokenizer) -> None:
        """Reads every row of the run once. Raises `ValueError` for what cannot be read."""
        told, seed = self.told, self.told.seeds[0]
        load_texts(told.corpus, told.text_column, told.num_rows, noise=told.noise, seed=seed)
        load_texts(told.clean, told.clean_column, told.num_clean_rows, seed=seed)
        self.held_out()

    def make_reference(self, seed: int, output: Path):
        """The model that knows clean text: one that is named, or the base after some steps on it, kept in `output`."""
        told, loading = self.told, Loading.of(self.model_config)
        if told.reference_model:
            return with_fused_head(load_model(told.reference_model, None, loading)[0])
        if (output / "adapter_model.safetensors").exists():
            base = self.model_config.model_name_or_path
            return with_fused_head(load_model(base, str(output), loading)[0])
        if (output / "model.safetensors").exists():
            return with_fused_head(load_model(str(output), None, loading)[0])
        model, tokenizer = fresh_model(self.model_config, self.training, seed)
        trainer = SupervisedTrainer(
            model=model,
            args=config_for(self.training, output, seed=seed, max_steps=told.reference_steps, eval_strategy="no"),
            train_dataset=load_texts(told.clean, told.clean_column, told.num_clean_rows, seed=seed + 1000),
            processing_class=tokenizer,
        )
        trainer.fit()
        return trainer.model

    def run(self, variant: str, seed: int, output: Path) -> dict:
        """Trains one variant and measures it."""
        told, start = self.told, time.monotonic()
        model, tokenizer = fresh_model(self.model_config, self.training, seed)
        needs_reference = variant not in ("base", "plain")
        reference = self.reference(seed, output.parent / f"reference-model-{seed}") if needs_reference else None
        parts = {
            "model": reference if variant == "reference" else model,
            "args": config_for(self.training, output, seed=seed),
            "train_dataset": load_texts(told.corpus, told.text_column, told.num_rows, noise=told.noise, seed=seed),
            "eval_dataset": load_texts(told.clean, told.clean_column, HELD_OUT, held_out=True),
            "processing_class": tokenizer,
        }
        selection = TokenSelection(keep="random" if variant == "random" else "top", fraction=told.fraction)
        choose = HighestExcess(selection, reference, model) if variant in ("dynamic", "random") else None
        trainer = SupervisedTrainer(choose=choose, **parts)
        if variant == "static":
            trainer.train_dataset = static_labels(
                trainer.train_dataset, trainer.model, reference, selection, pad_token_id=tokenizer.pad_token_id
            )
        if variant not in ("base", "reference"):
            trainer.fit()
        log = list(trainer.state.log_history)
        final = trainer.evaluate()
        return {
            "accuracy": self.accuracy(trainer.model, tokenizer, 1.0),
            "greedy_accuracy": self.accuracy(trainer.model, tokenizer, 0.0),
            "clean_loss": final["eval_loss"],
            "tokens_read": final["eval_num_tokens"],
            "minutes": (time.monotonic() - start) / 60,
            "clean_loss_by_step": [[entry["step"], entry["eval_loss"]] for entry in log if "eval_loss" in entry],
        }

    def held_out(self) -> list[dict]:
        """The held-out questions."""
        told = self.told
        limit = told.num_eval_questions if told.eval_questions in QUESTIONS else None
        return sample_of(load_questions(told.eval_questions, split="test", limit=limit), told.num_eval_questions)

    def accuracy(self, model, tokenizer, temperature: float) -> float:
        """Share of correct answers to the held-out questions."""
        outcomes = sweep(
            model,
            tokenizer,
            self.held_out(),
            free(Wording()),
            sampling=Sampling(self.told.max_completion_length, temperature),
        )
        return measure(outcomes)["rows"][0]["accuracy"]


def main(recipe: Path) -> int:
    """The command line of the recipe: its YAML, then flags; a wrong value is one clear line and exit status 2."""
    return main_of(recipe, RhoArguments, Experiment)

"""UPFT's comparison: prefixes of the model's own samples, or whole ones (2503.02875). recipes/upft.py calls `main`."""

import itertools
import time
from dataclasses import dataclass, replace
from pathlib import Path

from datasets import Dataset
from trl import ModelConfig, SFTConfig

from rlred.data.budgets import Wording
from rlred.data.prompts import Prompts, template_settings
from rlred.data.questions import load_questions
from rlred.evaluation.conditions import free
from rlred.evaluation.measures import measure
from rlred.evaluation.sampling import Sampling
from rlred.evaluation.sweep import sample_of, sweep
from rlred.runs.arguments import option
from rlred.runs.chassis import check_held_out
from rlred.runs.comparison import fresh_model, main_of
from rlred.tiny import QUESTIONS
from rlred.training.selective_sft import prefix_rows
from rlred.training.sft import SupervisedTrainer, config_for

VARIANTS = ("base", "full", "rft", "upft")


@dataclass
class UpftArguments:
    """What a run can be told beside TRL's SFTConfig and ModelConfig."""

    variants: list[str] = option(list(VARIANTS), "Rows of the table.")
    seeds: list[int] = option([0], "Seeds of each.")
    prefix_length: int = option(8, "Tokens of a prefix.")
    full_share: float = option(0.1, "Share of the rows that are whole samples.")
    prefix_wording: str = option("{question}", "The user turn before a prefix; {question} is the question as worded.")
    system_prompt: str | None = option(None, "System prompt of every question that brings none of its own.")
    chat_template_kwargs: str = option({}, "Settings of the chat template, as YAML/JSON: {enable_thinking: false}.")
    trained_tokens: int = option(60_000, "Completion tokens that a variant trains on, over all its updates.")
    questions: str = option("sums", "Questions to sample answers to: 'sums' (embedded), a local file or a Hub id.")
    num_questions: int = option(1024, "How many of them.")
    eval_questions: str | None = option(None, "Held-out questions (default: the training source's test split).")
    num_eval_questions: int = option(256, "How many of them.")
    max_completion_length: int = option(90, "Cap of every completion, in tokens.")
    sample_batch_size: int = option(128, "Completions generated at once.")

    def __post_init__(self):
        for variant in self.variants:
            if variant not in VARIANTS:
                raise ValueError(f"variants must be among {', '.join(VARIANTS)}, got {variant!r}")
        if "{question}" not in self.prefix_wording:
            raise ValueError(f"prefix_wording has no {{question}} placeholder: {self.prefix_wording!r}")
        self.chat_template_kwargs = template_settings(self.chat_template_kwargs)
        prefix_rows([], [], [], length=self.prefix_length, full_share=self.full_share)


def up_to(rows: list[dict], tokens: int) -> Dataset:
    """The rows again and again, until they hold that many trained tokens. Raises `ValueError` where they hold none."""
    if not any(any(row["completion_mask"]) for row in rows):
        raise ValueError("nothing to train on: no sample ended within max_completion_length, or none was correct")
    taken, total = [], 0
    for row in itertools.cycle(rows):
        if total >= tokens:
            break
        taken.append(row)
        total += sum(row["completion_mask"])
    return Dataset.from_list(taken)


class Experiment:
    """One variant after the other, from the same base and its same samples."""

    def __init__(self, told: UpftArguments, training: SFTConfig, model_config: ModelConfig):
        self.told, self.training, self.model_config = told, training, model_config
        held_out = told.eval_questions or told.questions
        parts = {"train": (told.questions, told.num_questions), "test": (held_out, told.num_eval_questions)}
        loaded = {
            split: load_questions(source, split=split, limit=n if source in QUESTIONS else None)
            for split, (source, n) in parts.items()
        }
        check_held_out(loaded["train"], loaded["test"], held_out, "test")
        self.questions = {split: sample_of(rows, parts[split][1]) for split, rows in loaded.items()}

    def prompts(self, tokenizer) -> Prompts:
        """How questions are asked."""
        return Prompts(Wording(), self.told.system_prompt, self.told.chat_template_kwargs).fitted(tokenizer)

    def check(self, tokenizer) -> None:
        """Words every question of the run once. Raises `ValueError` for what cannot be read or asked."""
        for split in ("train", "test"):
            for row in self.questions[split]:
                self.prompts(tokenizer).ids(tokenizer, row, None, "free")

    def answers(self, model, tokenizer, split: str, seed: int, path: Path | None = None) -> list[dict]:
        """One graded completion of each question, sampled at temperature 1, with its `row`."""
        told, prompts, questions = self.told, self.prompts(tokenizer), self.questions[split]
        sampling = Sampling(told.max_completion_length, batch_size=told.sample_batch_size, seed=seed)
        outcomes = sweep(model, tokenizer, questions, free(prompts), sampling=sampling, path=path)
        return [{**outcome, "row": row} for outcome, row in zip(outcomes, questions, strict=True)]

    def token_rows(self, answers: list[dict], tokenizer, seed: int, length: int | None = None) -> list[dict]:
        """Prefixes of that length and their share of whole answers; without a length, whole answers."""
        whole = self.prompts(tokenizer)
        worded = replace(whole, wording=Wording(free=self.told.prefix_wording.replace("{question}", Wording().free)))
        return prefix_rows(
            *([one.ids(tokenizer, answer["row"], None, "free") for answer in answers] for one in (worded, whole)),
            [answer["completion_ids"] for answer in answers],
            length=length or 1,
            full_share=self.told.full_share if length else 1.0,
            seed=seed,
        )

    def run(self, variant: str, seed: int, output: Path) -> dict:
        """Trains one variant and measures it."""
        told, start = self.told, time.monotonic()
        model, tokenizer = fresh_model(self.model_config, self.training, seed)
        answers = self.answers(model, tokenizer, "train", seed, output.parent / f"samples-{seed}.jsonl")
        answers = [answer for answer in answers if not answer["truncated"] and (answer["correct"] or variant != "rft")]
        right = [answer for answer in self.answers(model, tokenizer, "test", seed + 1000) if answer["correct"]]
        rows = self.token_rows(answers, tokenizer, seed, told.prefix_length if variant == "upft" else None)
        trainer = SupervisedTrainer(
            model=model,
            args=config_for(self.training, output, seed=seed),
            train_dataset=up_to(rows, told.trained_tokens),
            eval_dataset=Dataset.from_list(self.token_rows(right, tokenizer, seed)),
            processing_class=tokenizer,
        )
        if variant != "base":
            trainer.fit()
        log = list(trainer.state.log_history)
        final = trainer.evaluate()
        [row] = measure(self.answers(trainer.model, tokenizer, "test", seed))["rows"]
        return {
            "accuracy": row["accuracy"],
            "mean_length": row["mean_length"],
            "truncated": row["truncated"],
            "loss_on_right_answers": final["eval_loss"],
            "updates": trainer.state.global_step,
            "tokens_read": final["eval_num_tokens"],
            "training_seconds": max((entry.get("train_runtime", 0.0) for entry in log), default=0.0),
            "minutes": (time.monotonic() - start) / 60,
            "loss_by_step": [[entry["step"], entry["eval_loss"]] for entry in log if "eval_loss" in entry],
        }


def main(recipe: Path) -> int:
    """The command line of the recipe: its YAML, then flags; a wrong value is one clear line and exit status 2."""
    return main_of(recipe, UpftArguments, Experiment)

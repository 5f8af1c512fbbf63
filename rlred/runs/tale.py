"""Self-estimated budgets: a model that was taught to keep budgets learns to choose one by itself (TALE, 2412.18547).

    search    ask each question at every budget with the length-controlled adapter; go down while it stays correct
    train     LoRA SFT on the last correct completion, asked *without* a budget
    measure   tokens and accuracy by difficulty, base against trained, both asked without a budget

TALE halves the budget while the answer stays correct. Here the budgets are a grid, asked in one batch. To take the
shortest correct completion of all would be to learn from lucky guesses. Questions that are answered incorrectly at the
largest budget are left out: nothing is known of the budget that they need.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedModel

from rlred.compression.rows import features
from rlred.data.budgets import Wording
from rlred.data.models import Loading, load_model, load_outline
from rlred.data.prompts import Prompts, as_prompts, prompt_text
from rlred.data.questions import load_questions
from rlred.evaluation.conditions import BudgetCondition, budget_conditions, free
from rlred.evaluation.evaluate import base_of, prompts_of
from rlred.evaluation.measures import measure
from rlred.evaluation.report import adherence
from rlred.evaluation.results import Result, write_result
from rlred.evaluation.sampling import Grading, Sampling
from rlred.evaluation.sweep import sample_of, sweep
from rlred.files import write_json
from rlred.flags import option
from rlred.output import claim, holds_run
from rlred.runs.audit_only import Audit
from rlred.runs.chassis import check_held_out, command, use_all_cores
from rlred.tiny import L1_MAXLEN, QUESTIONS, resolve_adapter
from rlred.training.sft import SFTSettings, fine_tune


@dataclasses.dataclass
class TaleArguments:
    """The settings of a TALE run; the defaults are the embedded ones."""

    adapter: str = option(L1_MAXLEN, "An adapter that keeps budgets.")
    model: str | None = option(None, "Its base (default: what the adapter says).")
    student: str | None = option(None, "Who learns (default: that base).")
    questions: str = option("sums", "Training questions: 'sums' (embedded), a local file, or a Hub id.")
    num_questions: int = option(1024, "How many of them.")
    eval_questions: str | None = option(None, "Held-out questions (default: the questions' eval_split).")
    eval_split: str = option("test", "Split of the held-out questions.")
    num_eval_questions: int = option(256, "How many of them.")
    budgets: list[int] = option([16, 24, 32, 40, 48, 56, 64, 72], "Tokens at which each question is asked.")
    max_steps: int = option(120, "Updates.")
    batch_size: int = option(64, "Rows of an update.")
    learning_rate: float = option(1e-3, "The highest rate of the schedule.")
    lora_r: int = option(32, "Rank of the adapter.")
    system_prompt: str | None = option(None, "System prompt (default: that of the adapter's run).")
    chat_template_kwargs: str | None = option(
        None, "Settings of the chat template as JSON (default: those of the adapter's run)."
    )
    end_of_thinking: str | None = option(None, "What ends the thinking (default: as in the adapter's run).")
    logging_steps: int = option(20, "Updates between two lines of the log.")
    dtype: str = option("float32", "Precision of the weights.")
    seed: int = option(0, "Seed of rows, sampling and adapter.")
    output_dir: str = option("outputs/tale", "Folder of the run.")

    def __post_init__(self):
        if not self.budgets or min(self.budgets) < 1:
            raise ValueError(f"budgets must be one or more, each 1 or more, got {self.budgets}")
        self.make_sft()  # a value out of range is reported before anything is loaded

    def make_sft(self) -> SFTSettings:
        """How the student is trained."""
        names = ("max_steps", "batch_size", "learning_rate", "lora_r", "logging_steps", "seed")
        return SFTSettings(**{name: getattr(self, name) for name in names})

    def make_prompts(self, adapter: str) -> Prompts:
        """How questions are asked: as in the adapter's run, but for what is told otherwise."""
        names = ("system_prompt", "chat_template_kwargs", "end_of_thinking")
        told = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return dataclasses.replace(prompts_of(adapter), **told)

    def load_both(self) -> list[list[dict]]:
        """Training and held-out questions."""
        held_out = self.eval_questions or self.questions
        parts = (
            (self.questions, "train", self.num_questions, self.seed),
            (held_out, self.eval_split, self.num_eval_questions, 0),
        )
        loaded = [
            load_questions(source, split=split, limit=limit if source in QUESTIONS else None, seed=seed)
            for source, split, limit, seed in parts
        ]
        check_held_out(*loaded, held_out, self.eval_split)
        return [sample_of(rows, limit) for rows, (_, _, limit, _) in zip(loaded, parts, strict=True)]


def run(arguments: TaleArguments) -> Result:
    """Searches, trains, measures; returns the result, which lies in the output folder with the adapter."""
    start, output = time.monotonic(), Path(arguments.output_dir)
    check_free(output)
    claim(output)
    adapter = resolve_adapter(arguments.adapter)
    base = base_of(adapter, [arguments.model] if arguments.model else [])
    questions, held_out = arguments.load_both()
    prompts = arguments.make_prompts(adapter)
    sampling = Sampling(2 * max(arguments.budgets), seed=arguments.seed)
    model, tokenizer = load_model(base, adapter, Loading(arguments.dtype))
    path = output / "search.completions.jsonl"
    conditions = budget_conditions(prompts.fitted(tokenizer), arguments.budgets, ["max"])
    found, searched = search_budgets(model, tokenizer, questions, conditions, sampling=sampling, path=path)
    write_json(output / "found.json", found)

    def measured(model, longest: int | None = None) -> dict:
        return measure(sweep(model, tokenizer, held_out, free(asked), sampling=sampling), longest)

    student = arguments.student or base
    model, tokenizer = load_model(student, None, Loading(arguments.dtype))
    asked = prompts.fitted(tokenizer)
    before = measured(model)
    model = fine_tune(model, tokenizer, sft_rows(found, tokenizer, asked), arguments.make_sft(), output)
    labels = {"model": student, "adapter": str(output), "seed": arguments.seed, "n_questions": len(held_out)}
    result = adherence(
        {**labels, "temperature": 1.0},
        {"baseline": before, "trained": measured(model, before["natural_maximum"])},
        details={"search": {"questions": len(questions), "found": len(found)}},
        cost={**searched, "minutes": round((time.monotonic() - start) / 60, 1)},
    )
    record = {**dataclasses.asdict(arguments), **asked.described(), "wording": dataclasses.asdict(asked.wording)}
    write_json(output / "run.json", {"recipe": "tale", "arguments": record})
    write_result(result, output)
    return result


def audit_only(checks: Audit, arguments: TaleArguments, default_output: Path) -> None:
    """The checks of `run` in its order, and nothing that samples or needs weights."""
    checks.step("output folder", check_free, Path(arguments.output_dir))
    adapter = resolve_adapter(arguments.adapter)
    base = base_of(adapter, [arguments.model] if arguments.model else [])
    checks.step("adapter", check_weights, adapter)
    both = checks.step("questions", arguments.load_both)
    for name in dict.fromkeys((base, arguments.student or base)):
        outline = checks.step("tokenizer", load_outline, name, Loading(arguments.dtype))

        def word_all(loaded, outline) -> None:
            prompts = arguments.make_prompts(adapter).fitted(outline[1])
            for row in (row for rows in loaded for row in rows):
                prompts.ids(outline[1], row, None, "free")

        checks.step("prompts", word_all, both, outline)


def check_free(output: Path) -> None:
    """Raises `ValueError` for a folder that holds a run."""
    if holds_run(output):
        raise ValueError(f"output_dir={str(output)!r} already holds a run; name another folder")


def check_weights(adapter: str) -> None:
    """Raises `ValueError` for an adapter in a folder without weights; one of the Hub is left to the run."""
    if Path(adapter).is_dir() and not (Path(adapter) / "adapter_model.safetensors").is_file():
        raise ValueError(f"adapter={adapter!r}: there is no adapter_model.safetensors; name a folder with one")


def search_budgets(
    model: PreTrainedModel,
    tokenizer,
    questions: Sequence[dict],
    conditions: Sequence[BudgetCondition],
    *,
    sampling: Sampling,
    grading: Grading | None = None,
    path: Path | None = None,
) -> tuple[list[dict], dict]:
    """Each question's completion at the least budget from which up it was correct at every one; and what that cost.

    Rows of `question`, `completion`, `length`, `budget`, `level`. Raises `ValueError` when there is no such question.
    """
    outcomes = sweep(
        model,
        tokenizer,
        questions,
        conditions,
        sampling=sampling,
        grading=grading,
        path=path,
        description="searching budgets",
    )
    texts = {
        row["question_id"]: {name: row[name] for name in ("question", "system") if row.get(name)} for row in questions
    }
    found, lost = {}, set()
    for outcome in sorted(outcomes, key=lambda outcome: -outcome["budget"]):
        number = outcome["question_id"]
        if number not in lost and outcome["correct"] and not outcome["truncated"]:
            found[number] = outcome
        else:
            lost.add(number)
    if not found:
        most = max(condition.budget for condition in conditions)
        raise ValueError(f"none of {len(questions)} questions was answered correctly at the budget {most}")
    rows = [
        {**texts[number], **{name: row[name] for name in ("completion", "length", "budget", "level")}}
        for number, row in found.items()
    ]
    return rows, {"rollouts": len(outcomes), "rollout_tokens": sum(outcome["length"] for outcome in outcomes)}


def sft_rows(found: Sequence[dict], tokenizer, prompts: Prompts | Wording) -> Dataset:
    """Prompt and completion ids: the question without a budget, and the completion that was enough for it."""
    prompts, rows = as_prompts(prompts), []
    for row in found:
        prompt = prompt_text(tokenizer, prompts.asked(prompts.turns(row, None, "free")))
        rows.append({"prompt": prompt, "completion": row["completion"]})
    return features(rows, tokenizer)


def main(recipe: Path) -> int:
    """The command line of the recipe."""

    def work(arguments: TaleArguments, default_output: Path) -> Result:
        use_all_cores()
        return run(arguments)

    return command(recipe, work, (TaleArguments,), "adherence.md", audit_only)

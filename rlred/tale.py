"""Self-estimated budgets: a model that was taught to keep budgets learns to choose one by itself (TALE, 2412.18547).

    search    ask each question at every budget with the length-controlled adapter; go down while the answer stays right
    train     LoRA SFT on the last right completion, asked *without* a budget
    measure   tokens and accuracy by difficulty, base against trained, both asked without a budget

TALE halves the budget while the answer stays right. Here the budgets are a grid, asked in one batch. To take the
shortest right completion of all would be to learn from lucky guesses. Questions that are not answered right at the
largest budget are left out: nothing is known of the budget that they need.
"""

from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedModel
from trl import SFTConfig, SFTTrainer

from rewards import Correctness
from rlred.budgets import Wording
from rlred.evaluation.sweep import sweep


def search_budgets(
    model: PreTrainedModel,
    tokenizer,
    questions: Sequence[dict],
    budgets: Sequence[int],
    *,
    wording: Wording,
    mode: str = "max",
    max_completion_length: int,
    correctness: Correctness | None = None,
    batch_size: int = 128,
    seed: int = 0,
    path: Path | None = None,
) -> list[dict]:
    """Each question's completion at the least budget from which up it was right at every one.

    Rows of `question`, `completion`, `length`, `budget`, `level`. Raises `ValueError` when there is no such question.
    """
    outcomes = sweep(
        model,
        tokenizer,
        questions,
        budgets,
        modes=[mode],
        wording=wording,
        max_completion_length=max_completion_length,
        correctness=correctness,
        batch_size=batch_size,
        seed=seed,
        path=path,
        description="searching budgets",
    )
    texts = {row["question_id"]: row["question"] for row in questions}
    found, lost = {}, set()
    for outcome in sorted(outcomes, key=lambda outcome: -outcome["budget"]):
        number = outcome["question_id"]
        if number not in lost and outcome["correct"] and not outcome["truncated"]:
            found[number] = outcome
        else:
            lost.add(number)
    if not found:
        raise ValueError(f"none of {len(questions)} questions was answered right at the budget {max(budgets)}")
    return [
        {"question": texts[number], **{name: row[name] for name in ("completion", "length", "budget", "level")}}
        for number, row in found.items()
    ]


def sft_rows(found: Sequence[dict], tokenizer, wording: Wording) -> Dataset:
    """Prompt and completion ids: the question without a budget, and the completion that was enough for it."""
    rows = []
    for row in found:
        prompt = [{"role": "user", "content": wording.ask(row["question"], None, "none")}]
        prompt_ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
        ids = tokenizer(row["completion"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        mask = [0] * len(prompt_ids) + [1] * len(ids)
        rows.append({"input_ids": prompt_ids + ids, "completion_mask": mask})
    return Dataset.from_list(rows)


def train(model, tokenizer, rows: Dataset, args: SFTConfig) -> SFTTrainer:
    """LoRA SFT of the adapter that `model` carries."""
    trainer = SFTTrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    trainer.save_model(args.output_dir)
    return trainer

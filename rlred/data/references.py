"""`rlred reference`: how long, and how often right, the model is before training, question by question.

Length efficiency (O1-Pruner) rewards being shorter than that at no loss of accuracy. K completions of each question,
asked without a budget, give two columns: `reference_length` (mean tokens) and `reference_accuracy` (share of right
answers). The file is question rows as `rlred.data.questions` reads them.
"""

import json
import logging
from pathlib import Path
from statistics import fmean

from datasets import Dataset

from rlred.data.budgets import Wording
from rlred.evaluation.sweep import sweep
from rlred.files import write_text
from rlred.data.prompts import Prompts
from rlred.rewards import Correctness, Length

logger = logging.getLogger(__name__)

COLUMNS = ("reference_length", "reference_accuracy")


def sample_references(
    model,
    tokenizer,
    questions: Dataset,
    *,
    prompts: Prompts | Wording,
    num_samples: int,
    max_completion_length: int,
    correctness: Correctness | None = None,
    length: Length | None = None,
    temperature: float = 1.0,
    batch_size: int = 128,
    seed: int = 0,
    path: Path | None = None,
) -> Dataset:
    """The questions with the two columns; those whose answer cannot be graded are left out, and counted in a warning.

    `path` keeps the completions, so that an interrupted sampling goes on. Raises `ValueError` for `num_samples` below 1
    or when no question can be graded.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be 1 or more, got {num_samples}")
    outcomes = sweep(
        model,
        tokenizer,
        list(questions),
        [],
        modes=["none"],
        prompts=prompts,
        max_completion_length=max_completion_length,
        correctness=correctness,
        length=length,
        temperature=temperature,
        batch_size=batch_size,
        seed=seed,
        num_samples=num_samples,
        path=path,
        description="reference",
    )
    samples: dict[int, list[dict]] = {}
    for outcome in outcomes:
        samples.setdefault(outcome["question_id"], []).append(outcome)
    rows = []
    for question in questions:
        own = samples[question["question_id"]]
        if all(outcome["correct"] is not None for outcome in own):
            mean_length = fmean(outcome["length"] for outcome in own)
            accuracy = fmean(outcome["correct"] for outcome in own)
            rows.append({**question, "reference_length": mean_length, "reference_accuracy": accuracy})
    if not rows:
        raise ValueError("reference: no question has an answer that can be graded")
    if len(rows) < len(questions):
        logger.warning(
            "reference: left out %d of %d questions whose answer cannot be graded",
            len(questions) - len(rows),
            len(questions),
        )
    return Dataset.from_list(rows)


def write_references(rows: Dataset, path: Path) -> None:
    """Writes the rows as JSONL, whole or not at all."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))

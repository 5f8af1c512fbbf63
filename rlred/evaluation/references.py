"""`rlred reference`: how long, and how often correct, the model is before training, question by question.

Length efficiency (O1-Pruner) rewards being shorter than that at no loss of accuracy. K completions of each question,
asked without a budget, give `reference_length` (mean tokens) and `reference_accuracy` (share of correct answers), and
for Toggle `reference_correct_lengths` (the tokens of each correct one, shortest first). The file is question rows as
`rlred.data.questions` reads them.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from datasets import Dataset

from rlred.data.budgets import Wording
from rlred.data.prompts import Prompts
from rlred.data.question_table import Blocks, Rows
from rlred.evaluation.conditions import free
from rlred.evaluation.sampling import Grading, Sampling, Share
from rlred.evaluation.sweep import sweep
from rlred.files import write_lines

logger = logging.getLogger(__name__)

COLUMNS = ("reference_length", "reference_accuracy", "reference_correct_lengths")


def sample_references(
    model,
    tokenizer,
    questions: Dataset,
    *,
    prompts: Prompts | Wording,
    sampling: Sampling,
    grading: Grading | None = None,
    path: Path | None = None,
    share: Share | None = None,
) -> Dataset:
    """The questions with these columns; those whose answer cannot be graded are left out, and counted in a warning.

    They are of `sampling.num_samples` completions. `path` keeps those, so that an interrupted sampling goes on, and so
    that several processes can each sample a `share` before one reads them all.
    Raises `ValueError` when no question can be graded.
    """
    rows, blocks, kept, asked = Rows(questions), Blocks(), 0, 0
    for part, own, file in sampling.shards(len(questions), path, share):
        block = rows[part]
        asked += len(block)
        told = {"sampling": own, "grading": grading, "path": file, "description": "reference"}
        found = referenced(block, sweep(model, tokenizer, block, free(prompts), **told))
        kept += len(found)
        if found:
            blocks.add({name: [row[name] for row in found] for name in found[0]})
    if not kept:
        raise ValueError("reference: no question has an answer that can be graded")
    if kept < asked:
        said = "reference: left out %d of %d questions whose answer cannot be graded"
        logger.warning(said, asked - kept, asked)
    return blocks.dataset()


def referenced(questions: Sequence[dict], outcomes: Sequence[dict]) -> list[dict]:
    """The questions that can be graded, with what their own outcomes say."""
    samples: dict[int, list[dict]] = {}
    for outcome in outcomes:
        samples.setdefault(outcome["question_id"], []).append(outcome)
    rows = []
    for question in questions:
        own = samples[question["question_id"]]
        if all(outcome["correct"] is not None for outcome in own):
            mean_length = fmean(outcome["length"] for outcome in own)
            accuracy = fmean(outcome["correct"] for outcome in own)
            lengths = sorted(outcome["length"] for outcome in own if outcome["correct"])
            rows.append({**question, **dict(zip(COLUMNS, (mean_length, accuracy, lengths), strict=True))})
    return rows


def write_references(rows: Dataset, path: Path) -> None:
    """Writes the rows as JSONL, whole or not at all."""
    write_lines(path, (json.dumps(row) + "\n" for row in Rows(rows)))

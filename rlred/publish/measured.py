"""What was measured, on the card of any adapter: the tables and pictures of the results that its run has left.

The same figures stand in the card's metadata, as the Hub reads them: `eval_results` become its `model-index`. The files
.eval_results/*.yaml, which the Hub has beside it, are for benchmarks that are registered there, and held-out questions
of one's own are none.
"""

import dataclasses
import json
from pathlib import Path

from huggingface_hub import EvalResult

from rlred.evaluation.markdown import table
from rlred.evaluation.results import Result, kind_of, read_result, results_in, to_markdown


def measured(run: Path, name: str) -> list[str]:
    """The parts of the section; none where nothing was measured. The adapter is called by its published name."""
    parts = [part for result in results_in(run) for part in section(result, run, name)]
    if not parts and (run / "result.json").is_file():
        told = json.loads((run / "result.json").read_text())
        figures = [[key, f"{value:.4g}"] for key, value in told.items() if isinstance(value, int | float)]
        parts = ["\n".join(table(["", ""], figures))]
    return ["## What was measured", *parts] if parts else []


def eval_results(run: Path, arguments: dict) -> list[EvalResult] | None:
    """The figures of the trained adapter for the card's metadata, shares from 0 to 1; None where none were measured.

    Rank correlation of budget and length first, then the deviations of each mode and its accuracy at each budget.
    """
    block = read_result(run).blocks.get("trained") if (run / "adherence.json").is_file() else None
    if block is None:
        return None
    source = arguments.get("eval_questions") or arguments.get("questions")
    own = arguments.get("eval_config") or (
        None if arguments.get("eval_questions") else arguments.get("questions_config")
    )
    about = {"task_type": "text-generation", "task_name": "Reasoning within a token budget"}
    about |= {"dataset_type": source, "dataset_name": f"{source}, held-out questions", "dataset_config": own}
    about["dataset_split"] = arguments.get("eval_split", "test")
    told = [("spearmanr", "Rank correlation of budget and length within a question", block["rank_correlation"])]
    for mode, mean in block["overall"].items():
        told.append(
            ("mean_abs_error", f"Mean absolute error as a share of the budget, mode {mode}", mean["mean_abs_error"])
        )
        told.append(("over_budget", f"Share of completions over budget, mode {mode}", mean["over_budget"]))
    told += [("accuracy", f"Accuracy, {asked_for(row)}", row["accuracy"]) for row in block["rows"]]
    return [
        EvalResult(**about, metric_type=kind, metric_name=name, metric_value=round(value, 4))
        for kind, name, value in told
        if value is not None
    ]


def asked_for(row: dict) -> str:
    """What a row of a table was asked for, in words.

    >>> asked_for({"mode": "max", "budget": 16}), asked_for({"mode": "free", "budget": None})
    ('max 16 tokens', 'no budget')
    >>> asked_for({"mode": "effort", "budget": None, "effort": 0.25})
    'effort 0.25'
    """
    if row.get("effort") is not None:
        return f"effort {row['effort']:g}"
    return "no budget" if row["budget"] is None else f"{row['mode']} {row['budget']} tokens"


def section(result: Result, run: Path, name: str) -> list[str]:
    """One result: what it comes to, its pictures, its tables."""
    shown = dataclasses.replace(result, labels={**result.labels, "adapter": name})
    text = to_markdown(shown, summary=False).replace("\n## ", "\n### ").partition("\n\n")[2].strip()
    pictures = [(file, one.caption) for file, one in kind_of(result).pictures.items() if (run / file).is_file()]
    return [*kind_of(result).summary(result), *(f"![{caption}]({file})" for file, caption in pictures), text]

"""What was measured, on the card of any adapter: the tables and pictures of the results that its run has left."""

import dataclasses
import json
from pathlib import Path

from rlred.evaluation.markdown import table
from rlred.evaluation.results import Result, kind_of, number, percent, results_in, to_markdown


def measured(run: Path, name: str) -> list[str]:
    """The parts of the section; none where nothing was measured. The adapter is called by its published name."""
    parts = [part for result in results_in(run) for part in section(result, run, name)]
    if not parts and (run / "result.json").is_file():
        told = json.loads((run / "result.json").read_text())
        figures = [[key, f"{value:.4g}"] for key, value in told.items() if isinstance(value, int | float)]
        parts = ["\n".join(table(["", ""], figures))]
    return ["## What was measured", *parts] if parts else []


def section(result: Result, run: Path, name: str) -> list[str]:
    """One result: a sentence on what training has changed, its pictures, its tables."""
    shown = dataclasses.replace(result, labels={**result.labels, "adapter": name})
    text = to_markdown(shown).replace("\n## ", "\n### ").partition("\n\n")[2].strip()
    pictures = [(file, one.caption) for file, one in kind_of(result).pictures.items() if (run / file).is_file()]
    return [*changed(result), *(f"![{caption}]({file})" for file, caption in pictures), text]


def changed(result: Result) -> list[str]:
    """How an adapter follows budgets, beside its base; nothing where none was asked for."""
    if result.kind != "adherence" or not {"baseline", "trained"} <= set(result.blocks):
        return []
    before, after = result.blocks["baseline"], result.blocks["trained"]
    mean = next((one for one in after["overall"].values() if one["mean_abs_error"] is not None), None)
    if mean is None:
        return []
    return [
        f"Rank correlation of budget and length within a question: {number(before['rank_correlation'], 3)} "
        f"before, {number(after['rank_correlation'], 3)} after. Mean absolute error "
        f"{percent(mean['mean_abs_error'])} % of the budget, over budget in {percent(mean['over_budget'])} % "
        "of completions."
    ]

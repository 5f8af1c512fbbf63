"""The calibration of the efforts: what each one comes to in tokens and in accuracy, as it was measured."""

from rlred.data.budgets import effort_name
from rlred.evaluation.markdown import table
from rlred.evaluation.results import Result, accuracy, number, percent


def calibration(block: dict) -> list[dict]:
    """What each effort of a block comes to, smallest first; empty where none was asked for.

    `effort`, `n`, `mean_length` in tokens, `of_largest`, its share of the largest effort's, `accuracy` with its
    interval, and `by_level`, the same by the difficulty of the questions where that is known.

    >>> row = {"mode": "effort", "n": 2, "accuracy": 0.5, "accuracy_low": 0.1, "accuracy_high": 0.9}
    >>> found = calibration({"rows": [{**row, "effort": e, "mean_length": n} for e, n in ((0.25, 10.0), (1.0, 40.0))]})
    >>> [(one["effort"], one["mean_length"], one["of_largest"]) for one in found]
    [(0.25, 10.0, 0.25), (1.0, 40.0, 1.0)]
    """
    rows = [row for row in block["rows"] if row["mode"] == "effort"]
    largest = rows[-1]["mean_length"] if rows else 0
    names = ("effort", "n", "mean_length", "accuracy", "accuracy_low", "accuracy_high")
    return [
        {name: row[name] for name in names}
        | {"of_largest": row["mean_length"] / max(largest, 1e-9), "by_level": row.get("by_level", {})}
        for row in rows
    ]


def lines_of(found: list[tuple[str, dict]]) -> list[str]:
    """The table of calibrations, each with its stage; by difficulty, tokens and in brackets accuracy in per cent."""
    levels = list(dict.fromkeys(level for _, row in found for level in row["by_level"]))
    rows = []
    for stage, row in found:
        cells = [stage, effort_name(row["effort"]), number(row["mean_length"], 1), percent(row["of_largest"], 0)]
        cells.append(accuracy(row))
        for level in levels:
            own = row["by_level"].get(level, {"mean_length": None, "accuracy": None})
            cells.append(f"{number(own['mean_length'], 1)} ({percent(own['accuracy'], 0)})")
        rows.append(cells)
    names = ("stage", "effort", "mean tokens", "% of the largest", "accuracy")
    return table([*names, *(f"{level}: tokens (%)" for level in levels)], rows)


def section(result: Result) -> list[str]:
    """The table of every stage that was asked for efforts; nothing where none was."""
    blocks = [block for name, block in result.blocks.items() if name != "control_constant_length"]
    found = [(block["title"], row) for block in blocks for row in calibration(block)]
    if not found:
        return []
    about = "What an effort costs and brings; by difficulty, tokens and in brackets accuracy in per cent."
    return ["## Calibration of the efforts", "", about, "", *lines_of(found)]

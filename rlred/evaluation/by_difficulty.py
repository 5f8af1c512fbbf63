"""Tables by the difficulty of the questions, where it is known; those of efforts are in calibration.py."""

from rlred.evaluation.markdown import table
from rlred.evaluation.results import Result, number, percent


def unasked(result: Result) -> list[str]:
    """What was done by the difficulty of the questions, where it is known and no budget was asked for."""
    rows = [
        [
            block["title"],
            level,
            mean["n"],
            number(mean["mean_length"], 1),
            percent(mean["accuracy"]),
            percent(mean.get("skipped")),  # older files do not say
        ]
        for block in result.blocks.values()
        if set(block["overall"]) == {"free"}
        for level, mean in block.get("by_level", {}).items()
    ]
    names = ("stage", "level", "n", "mean tokens", "accuracy", "without thinking")
    return ["## By difficulty", "", *table(names, rows)] if rows else []


def at_largest_maximum(result: Result) -> list[str]:
    """What was done by the difficulty of the questions where the largest maximum was asked for; levels are known."""
    rows = [
        [block["title"], row["budget"], level, mean["n"], number(mean["mean_length"], 1), percent(mean["accuracy"])]
        for block in result.blocks.values()
        for row in block["rows"]
        if row["mode"] != "effort"
        for level, mean in row.get("by_level", {}).items()
    ]
    names = ("stage", "budget", "level", "n", "mean tokens", "accuracy")
    return ["## By difficulty at the largest maximum budget", "", *table(names, rows)] if rows else []

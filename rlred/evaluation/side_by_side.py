"""Several runs in one table: a line for each run, stage and mode, as `rlred table` and `rlred report` show them."""

from rlred.evaluation.markdown import filled, table
from rlred.evaluation.report import TITLES
from rlred.evaluation.results import Result, number, percent


def compare(results: list[tuple[str, Result]]) -> str:
    """One line per run, stage and mode: the measures over all budgets, and what they cost."""
    names = (
        "run",
        "seed",
        "stage",
        "mode",
        "mean tokens",
        "rank corr.",
        "spread (asked)",
        "mean abs. error",
        "RMSE",
        "over budget",
    )
    names += (
        "accuracy at the smallest / middle / largest budget",
        "at full length",
        "rollouts to corr. 0.9",
        "minutes",
    )
    lines = []
    for run, result in results:
        for name, block in result.blocks.items():
            for mode, mean in block["overall"].items():
                rows = [row for row in block["rows"] if row["mode"] == mode]
                cells = [run, result.labels.get("seed"), _stage(name, block), mode]
                cells += [
                    number(mean["mean_length"], 1),
                    number(block["rank_correlation"], 3),
                    _spread(block),
                    *(percent(mean[measure]) for measure in ("mean_abs_error", "rmse", "over_budget")),
                    " / ".join(percent(row["accuracy"], 0) for row in (rows[0], rows[len(rows) // 2], rows[-1])),
                    percent(block.get("full_length", {}).get("accuracy"), 0),
                    *(_cost_cells(result.cost, block) if name == "trained" else ("", "")),
                ]
                lines.append(cells)
    return "\n".join(table(*filled(names, lines)))


def _spread(block: dict) -> str:
    if block["spread_ratio"] is None:
        return "-"
    return f"{number(block['spread_ratio'])} ({number(block['asked_spread_ratio'])})"


def _stage(name: str, block: dict) -> str:
    return name.removesuffix("_constant_length") if name in TITLES else block["title"]


def _cost_cells(cost: dict, block: dict) -> tuple[str, str]:
    if not cost:
        return "-", "-"
    if block["rank_correlation"] is None:
        return "-", str(cost["minutes"])
    rollouts = cost["rollouts_to_rank_correlation_0.9"]
    spent = cost["hindsight_samples"] + cost["rl_rollouts"]
    return f"not in {spent:,}" if rollouts is None else f"{rollouts:,}", str(cost["minutes"])

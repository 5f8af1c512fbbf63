"""The measures of adherence: pure functions from outcomes to numbers.

An outcome is what one completion did: `question_id`, `mode`, `budget`, `length` (tokens), `correct` (1, 0 or None), and
`effort` where it was asked for one: it has no budget then, and no error, but its length follows the effort or does not.
A signed mean error hides a model that ignores its budget: the constant length that is right on average has none. So
the errors come with their absolute value, their square, the rate of overruns, and the rank correlation of length and
budget *within* a question, which a constant length cannot earn.
"""

import math
import pkgutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from rlred.evaluation.efficiency import area, efficiency, mean, natural_maximum, spectrum

# More measures of a line, `module:function` of its outcomes; each is a column of every report. None: not measured.
MEASURES: dict[str, str] = {}


def wilson(successes: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson interval of a share, 95 % by default.

    >>> low, high = wilson(8, 10)
    >>> round(low, 3), round(high, 3)
    (0.49, 0.943)
    """
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def _ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks from 1, ties sharing their mean rank."""
    array = np.asarray(values, dtype=float)
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's correlation of two sequences; 0 where one of them is constant.

    >>> rank_correlation([16, 32, 64], [20, 25, 70]), rank_correlation([16, 32, 64], [40, 40, 40])
    (1.0, 0.0)
    """
    a, b = _ranks(x), _ranks(y)
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 0 else 0.0


def amount(outcome: dict) -> float | None:
    """What an outcome, or a row of them, was asked for: its budget, or its effort; None for nothing.

    >>> amount({"budget": 32}), amount({"budget": None, "effort": 0.5}), amount({"budget": None})
    (32, 0.5, None)
    """
    return outcome["budget"] if outcome["budget"] is not None else outcome.get("effort")


def within_question_rank_correlation(outcomes: Iterable[dict]) -> float | None:
    """Spearman's correlation of budget (or effort) and length within each (question, mode), averaged over those.

    Only those count that were asked for two budgets; None where there is none.
    """
    groups: dict[tuple, list[tuple[int, int]]] = defaultdict(list)
    for outcome in outcomes:
        if (asked := amount(outcome)) is not None:
            groups[outcome["question_id"], outcome["mode"]].append((asked, outcome["length"]))
    correlations = [
        rank_correlation(*zip(*pairs, strict=True)) for pairs in groups.values() if len({b for b, _ in pairs}) > 1
    ]
    return float(np.mean(correlations)) if correlations else None


def summary(outcomes: Sequence[dict]) -> dict:
    """What every line of every table says of its outcomes, whatever they were asked for: how long, and how accurate.

    Lengths are in tokens, `truncated` and `accuracy` shares; the interval of the accuracy is Wilson's, 95 %.

    >>> line = summary([{"length": n, "truncated": False, "correct": c} for n, c in ((10, 1.0), (30, 0.0))])
    >>> line["n"], line["mean_length"], line["accuracy"], line["mean_thinking_length"]
    (2, 20.0, 0.5, None)
    """
    lengths = np.array([outcome["length"] for outcome in outcomes], dtype=float)
    grades = [outcome["correct"] for outcome in outcomes if outcome["correct"] is not None]
    low, high = wilson(sum(grades), len(grades))
    return {
        "n": len(outcomes),
        "mean_length": float(lengths.mean()),
        "mean_thinking_length": mean([outcome.get("thinking_length") for outcome in outcomes]),
        "truncated": mean([outcome["truncated"] for outcome in outcomes]),
        "length_p10": float(np.quantile(lengths, 0.1)),
        "length_p90": float(np.quantile(lengths, 0.9)),
        "accuracy": float(np.mean(grades)) if grades else None,
        "accuracy_low": low,
        "accuracy_high": high,
    }


def row(outcomes: Sequence[dict]) -> dict:
    """One line of the table: outcomes that share a mode and a budget (or effort, or ratio).

    Errors are fractions of the budget; an effort has none.
    """
    line = {
        "mode": outcomes[0]["mode"],
        "budget": outcomes[0]["budget"],
        **summary(outcomes),
        **dict.fromkeys(("mean_error", "mean_abs_error", "rmse", "over_budget")),
    }
    if any("cut" in outcome for outcome in outcomes):
        line["cut"] = mean([outcome["cut"] for outcome in outcomes])
    if outcomes[0].get("effort") is not None:
        line["effort"] = outcomes[0]["effort"]
    if outcomes[0].get("ratio") is not None:
        line["ratio"] = outcomes[0]["ratio"]
        line["budget"] = float(np.mean([outcome["budget"] for outcome in outcomes]))
    if line["budget"] is not None:
        lengths, budgets = (np.array([one[name] for one in outcomes], dtype=float) for name in ("length", "budget"))
        errors = (lengths - budgets) / budgets
        line["mean_error"] = float(errors.mean())
        line["mean_abs_error"] = float(np.abs(errors).mean())
        line["rmse"] = float(np.sqrt((errors**2).mean()))
        line["over_budget"] = float((lengths > budgets).mean())
    line |= efficiency(outcomes)
    return line | {name: pkgutil.resolve_name(of)(outcomes) for name, of in MEASURES.items()}


def longest_completions(outcomes: Iterable[dict]) -> list[dict]:
    """The longest completion of each question that ended by itself: what its reasoner does when it thinks at length.

    Of a base that ignores budgets, this is the accuracy at full length that a trained model is held against: the
    same questions, without the traces that stopped early. One that was cut at the cap counts only where all were.

    >>> outcomes = [{"question_id": 0, "length": n, "truncated": n == 90, "correct": n > 30} for n in (20, 40, 90)]
    >>> longest_completions(outcomes)[0]["length"]
    40
    """
    longest: dict[int, dict] = {}
    for outcome in outcomes:
        best = longest.setdefault(outcome["question_id"], outcome)
        if (not outcome["truncated"], outcome["length"]) > (not best["truncated"], best["length"]):
            longest[outcome["question_id"]] = outcome
    return list(longest.values())


def by_question(outcomes: Iterable[dict]) -> dict[str, dict]:
    """Mean accuracy and length of each question, over its modes, budgets and samples; keys are text, as in JSON."""
    groups: dict[int, list[dict]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome["question_id"]].append(outcome)
    return {
        str(question): {
            "accuracy": mean([outcome["correct"] for outcome in group]),
            "mean_length": mean([outcome["length"] for outcome in group]),
        }
        for question, group in groups.items()
    }


def by_level(outcomes: Iterable[dict]) -> dict[str, dict]:
    """Count, mean length, accuracy and share without thinking of each level; empty where questions have none."""
    groups: dict[str, list[dict]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.get("level") is not None:
            groups[str(outcome["level"])].append(outcome)
    return {
        level: {
            "n": len(groups[level]),
            "mean_length": mean([outcome["length"] for outcome in groups[level]]),
            "accuracy": mean([outcome["correct"] for outcome in groups[level]]),
            "skipped": mean([outcome.get("thinking_length") == 0 for outcome in groups[level]]),
        }
        for level in sorted(groups)
    }


def paired_difference(before: dict, after: dict, name: str = "accuracy", z: float = 1.96) -> dict | None:
    """Mean of after - before over the questions that both have, with its interval: both faced the same questions.

    The arguments are `by_question` of two sweeps. The interval is the normal one of the mean of the questions'
    differences. None where fewer than two questions are shared.

    >>> a, b = ({str(q): {"accuracy": x + q / 4} for q in range(3)} for x in (0.25, 0.5))
    >>> paired_difference(a, b)
    {'n': 3, 'difference': 0.25, 'low': 0.25, 'high': 0.25}
    """
    pairs = [(before[question][name], after[question][name]) for question in before if question in after]
    differences = np.array([new - old for old, new in pairs if old is not None and new is not None])
    if len(differences) < 2:
        return None
    mean, half = float(differences.mean()), z * float(differences.std(ddof=1)) / math.sqrt(len(differences))
    return {"n": len(differences), "difference": mean, "low": mean - half, "high": mean + half}


def counts(outcomes: Sequence[dict]) -> dict | None:
    """How many markers of counted thinking a completion has, the share that is true, and by how much they are off.

    None where nobody looked for any; share and error are None where there are none.

    >>> counts([{"marker_errors": [0, 2]}, {"marker_errors": []}])
    {'per_completion': 1.0, 'true': 0.5, 'mean_abs_error': 1.0}
    """
    found = [outcome["marker_errors"] for outcome in outcomes if "marker_errors" in outcome]
    errors = [error for one in found for error in one]
    if not found:
        return None
    return {
        "per_completion": len(errors) / len(found),
        "true": mean([error == 0 for error in errors]),
        "mean_abs_error": mean([abs(error) for error in errors]),
    }


def measure(outcomes: Sequence[dict], longest: int | None = None) -> dict:
    """The measures of a sweep: `rank_correlation`, `spread_ratio`, and one row per (mode, budget).

    `spread_ratio` is mean length at the largest budget over mean length at the smallest, in the first mode that was
    asked at two budgets; 1 means that the budget makes no difference. `overall` averages the rows of each mode.
    `full_length` is the mean length and the accuracy of `longest_completions`; `truncated` the share that was cut;
    `markers`, of a model that counts aloud, its `counts`. The row of the largest maximum budget has its `by_level`,
    and so has every row of an effort.

    `spectrum` has each mode's accuracy under caps, at its largest budget; the largest cap is `longest`, tokens of the
    base's longest completion that ended by itself (this sweep's own, unless it is told). `area` is that under accuracy
    against the logarithm of tokens over a mode's rows.
    """
    groups: dict[tuple, list[dict]] = defaultdict(list)
    for outcome in outcomes:
        level = amount(outcome) if outcome.get("ratio") is None else outcome["ratio"]
        groups[outcome["mode"], level].append(outcome)
    keys = sorted(groups, key=lambda key: (key[0], key[1] or 0))
    rows = [row(groups[key]) for key in keys]
    largest = dict(keys)  # of each mode, the last of its budgets
    longest = natural_maximum(outcomes) if longest is None else longest
    for line, key in zip(rows, keys, strict=True):
        told = key[0] == "effort" or key == ("max", largest.get("max"))
        if told and (levels := by_level(groups[key])):
            line["by_level"] = levels
    spread = asked_spread = None
    by_mode = defaultdict(list)
    for line in rows:
        by_mode[line["mode"]].append(line)
    for lines in by_mode.values():
        if len(lines) > 1 and spread is None:
            spread = lines[-1]["mean_length"] / max(lines[0]["mean_length"], 1e-9)
            asked_spread = amount(lines[-1]) / amount(lines[0])
    fullest = longest_completions(outcomes)
    grades = [outcome["correct"] for outcome in fullest if outcome["correct"] is not None]
    low, high = wilson(sum(grades), len(grades))
    names = ("mean_length", "mean_error", "mean_abs_error", "rmse", "over_budget", "accuracy", *MEASURES)
    return {
        "rank_correlation": within_question_rank_correlation(outcomes),
        "spread_ratio": spread,
        "asked_spread_ratio": asked_spread,
        "overall": {
            mode: {name: mean([line[name] for line in lines]) for name in names} for mode, lines in by_mode.items()
        },
        "full_length": {
            "n": len(fullest),
            "mean_length": mean([outcome["length"] for outcome in fullest]),
            "accuracy": mean(grades),
            "accuracy_low": low,
            "accuracy_high": high,
        },
        "truncated": mean([outcome["truncated"] for outcome in outcomes]),
        **({"markers": counted} if (counted := counts(outcomes)) else {}),
        "natural_maximum": longest,
        "spectrum": {mode: spectrum(groups[mode, level], longest) for mode, level in largest.items()},
        "area": {mode: area((one["mean_length"], one["accuracy"]) for one in lines) for mode, lines in by_mode.items()},
        "by_level": by_level(outcomes),
        "by_question": by_question(outcomes),
        "rows": rows,
    }


def step_metrics(outcomes: Sequence[dict]) -> dict[str, float]:
    """The adherence of one training step's rollouts, as flat numbers for a tracker; an effort has no errors."""
    asked = [outcome for outcome in outcomes if amount(outcome) is not None]
    if not asked:
        return {}
    metrics = {"adherence/length_std": float(np.std([outcome["length"] for outcome in asked]))}
    ratios = np.array([one["length"] / one["budget"] for one in asked if one["budget"] is not None])
    if len(ratios):
        metrics["adherence/mean_abs_error"] = float(np.abs(ratios - 1).mean())
        metrics["adherence/mean_error"] = float((ratios - 1).mean())
        metrics["adherence/over_budget"] = float((ratios > 1).mean())
    correlations = []
    for mode in sorted({outcome["mode"] for outcome in asked}):
        rows = [outcome for outcome in asked if outcome["mode"] == mode]
        budgets, lengths = [amount(row) for row in rows], [row["length"] for row in rows]
        if mode == "effort":  # shares of a question's own length, and questions differ in it
            known = [row for row in rows if row.get("own")]
            budgets, lengths = [row["effort"] for row in known], [row["length"] / row["own"] for row in known]
            if len(set(budgets)) > 1:
                metrics["adherence/effort/rank_correlation"] = rank_correlation(budgets, lengths)
        else:
            own = np.array(lengths) / np.array(budgets)
            metrics[f"adherence/{mode}/mean_abs_error"] = float(np.abs(own - 1).mean())
            metrics[f"adherence/{mode}/over_budget"] = float((own > 1).mean())
        if len(set(budgets)) > 1:
            correlations.append(rank_correlation(budgets, lengths))
    if correlations:
        # Over all rollouts of a mode: a question has few budgets in one batch, and its own correlation is coarse.
        metrics["adherence/batch_rank_correlation"] = float(np.mean(correlations))
    counted = counts(asked)
    if counted:
        metrics["adherence/markers"] = counted["per_completion"]
        metrics |= {} if counted["true"] is None else {"adherence/true_markers": counted["true"]}
    within = within_question_rank_correlation(asked)
    if within is not None:
        metrics["adherence/rank_correlation"] = within
    spread = step_spread([one for one in asked if one["budget"] is not None] or asked)
    if spread is not None:
        metrics["adherence/spread_ratio"] = spread
    return metrics


def step_spread(asked: Sequence[dict]) -> float | None:
    """Spread of one step: mean length of the upper half of its budgets over the lower half's, less 1, as a share of
    what was asked; 1 where lengths are as asked, 0 where they are constant. None where all budgets are equal.

    >>> step_spread([{"budget": n, "length": n} for n in (10, 20, 40, 80)])
    1.0
    >>> step_spread([{"budget": n, "length": 40} for n in (10, 20, 40, 80)])
    0.0
    """
    middle = float(np.median([amount(outcome) for outcome in asked]))
    low = [outcome for outcome in asked if amount(outcome) <= middle]
    high = [outcome for outcome in asked if amount(outcome) > middle]
    if not high:
        return None

    def ratio(of: Callable[[dict], float]) -> float:
        upper, lower = (float(np.mean([of(outcome) for outcome in half])) for half in (high, low))
        return upper / max(lower, 1e-9)

    return (ratio(lambda outcome: outcome["length"]) - 1) / (ratio(amount) - 1)

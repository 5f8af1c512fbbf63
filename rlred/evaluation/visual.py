"""Accuracy against visual tokens: by family of questions, by fixed look and by gate, beside question-blind spending."""

import time
from collections import Counter, defaultdict
from pathlib import Path

from matplotlib.figure import Figure

from rlred.evaluation.measures import summary
from rlred.evaluation.sweep import stop_ids
from rlred.rewards import ExactMatch
from rlred.vision.budget_policy import VisualBudgetPolicy


def outcomes_of(
    gate: VisualBudgetPolicy,
    model,
    rows: list[dict],
    look: str | None = None,
    *,
    correctness=None,
    batch_size: int = 128,
    **settings,
) -> list[dict]:
    """What each row's rollout came to: the outcome that every sweep has (rlred/evaluation/sweep.py), and what was seen.

    Its `level` is the question's family and its `length` the tokens that the policy chose; beside them stand the `look`
    that was taken and the visual tokens that were `kept` of the `full` picture. `look` is one choice for all rows;
    without it the policy chooses.
    """
    correctness, found, stops = correctness or ExactMatch(), [], stop_ids(model, gate.tokenizer)
    for start in range(0, len(rows), batch_size):
        some = rows[start : start + batch_size]
        prompts = [[{"role": "user", "content": row["question"]}] for row in some]
        looks = None if look is None else [look] * len(some)
        rollouts = gate(model, prompts, [row["image"] for row in some], looks, **settings)
        for number, (row, rollout) in enumerate(zip(some, rollouts, strict=True), start):
            found.append(
                {
                    "question_id": number,
                    "level": row["family"],
                    "mode": "free",
                    "budget": None,
                    "length": sum(rollout.mask),
                    "correct": correctness.grade(rollout.answer, row["solution"]) or 0.0,
                    "truncated": rollout.completion_ids[-1] not in stops,
                    "completion": rollout.answer,
                    "completion_ids": rollout.completion_ids,
                    "look": rollout.look,
                    "kept": rollout.kept,
                    "full": rollout.full,
                }
            )
    return found


def table_row(outcomes: list[dict]) -> dict:
    """Accuracy with its 95 % interval, mean keep ratio, visual tokens, tokens said, and how often each look came."""
    line, n = summary(outcomes), len(outcomes)
    looks = Counter(outcome["look"] or "none" for outcome in outcomes)
    return {
        "n": n,
        "accuracy": line["accuracy"],
        "interval": [line["accuracy_low"], line["accuracy_high"]],
        "ratio": sum(outcome["kept"] / outcome["full"] for outcome in outcomes) / n,
        "tokens": sum(outcome["kept"] for outcome in outcomes) / n,
        "said": line["mean_length"],
        "looks": {look: count / n for look, count in looks.most_common()},
    }


def by_family(outcomes: list[dict]) -> dict[str, dict]:
    """The table row of each family, and of all under "all"."""
    families = defaultdict(list)
    for outcome in outcomes:
        families[outcome["level"]].append(outcome)
    return {"all": table_row(outcomes), **{family: table_row(some) for family, some in sorted(families.items())}}


def measure_fixed(gate: VisualBudgetPolicy, model, rows: list[dict], **settings) -> dict[str, dict]:
    """Each choice for all questions, greedily: what question-blind spending comes to, and the seconds that it takes."""
    found = {}
    for look in gate.choices:
        start = time.perf_counter()
        found[look] = by_family(outcomes_of(gate, model, rows, look, temperature=0, **settings))
        found[look]["seconds"] = time.perf_counter() - start
    return found


def blind_accuracy(fixed: dict[str, dict], ratio: float) -> float:
    """The best accuracy at a mean keep ratio of any mixture of fixed looks that does not see the question.

    >>> points = {"low": {"all": {"ratio": 0.25, "accuracy": 0.6}}, "high": {"all": {"ratio": 1.0, "accuracy": 0.9}}}
    >>> round(blind_accuracy(points, 0.5), 3)
    0.7
    """
    points = [(family["all"]["ratio"], family["all"]["accuracy"]) for family in fixed.values()]
    best = max((accuracy for cost, accuracy in points if cost <= ratio + 1e-9), default=0.0)
    for low, at_low in points:
        for high, at_high in points:
            if low <= ratio <= high and low < high:
                best = max(best, at_low + (at_high - at_low) * (ratio - low) / (high - low))
    return best


def optima(fixed: dict[str, dict], visual_weight: float) -> dict[str, dict[str, float]]:
    """For each family, every look's mean reward a (1 + w (1 - K/N)): where a gate that learns should go, best first.

    >>> at = lambda ratio, accuracy: {"dot": {"ratio": ratio, "accuracy": accuracy}, "all": {}}
    >>> optima({"low": at(0.25, 0.5), "high": at(1.0, 0.9)}, 0.2)
    {'dot': {'high': 0.9, 'low': 0.575}}
    """
    families = [family for family in next(iter(fixed.values())) if family not in ("all", "seconds")]
    found = {}
    for family in families:
        values = {
            look: row[family]["accuracy"] * (1 + visual_weight * (1 - min(row[family]["ratio"], 1)))
            for look, row in fixed.items()
        }
        found[family] = {look: round(v, 6) for look, v in sorted(values.items(), key=lambda item: -item[1])}
    return found


def position_map(gate: VisualBudgetPolicy, model, rows: list[dict], look: str, cells: int = 8) -> list[list[float]]:
    """Where in the pictures the kept tokens lie: cells x cells shares, 1 = as many as if spread evenly.

    A score that favours the bottom of every picture, as text-to-image attention does, shows here.
    """
    counts = [[0.0] * cells for _ in range(cells)]
    for start in range(0, len(rows), 128):
        some = rows[start : start + 128]
        prompts = [[{"role": "user", "content": row["question"]}] for row in some]
        gate(model, prompts, [row["image"] for row in some], looks=[look] * len(some), temperature=0, max_answer=1)
        for seen in model.sparse_vision.seen:
            height, width = seen.grid
            for position in seen.index.tolist():
                y, x = divmod(position, width)
                counts[y * cells // height][x * cells // width] += 1
    total = sum(map(sum, counts))
    return [[count / total * cells**2 for count in row] for row in counts]


def draw_positions(shares: list[list[float]], path: Path) -> None:
    """The map as a picture, with the share of each row and column against even spreading."""
    figure = Figure(figsize=(5, 4.2), layout="tight")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="viridis", vmin=0)
    size = len(shares)
    axes.set_yticks(range(size), [f"{sum(row) / size:.2f}" for row in shares])
    axes.set_xticks(range(size), [f"{sum(row[x] for row in shares) / size:.2f}" for x in range(size)], rotation=90)
    axes.set_ylabel("share of each image row, 1 = even")
    axes.set_xlabel("share of each image column, 1 = even")
    figure.colorbar(image, label="kept tokens per cell, 1 = even")
    figure.savefig(path, dpi=120)


def draw_tradeoff(report: dict, path: Path) -> None:
    """Accuracy, with its 95 % interval, against visual tokens: each fixed choice, and the gate before and after."""
    figure = Figure(figsize=(6.4, 4.2), layout="tight")
    axes = figure.subplots()
    gates = {name: row for name, row in report["gates"].items() if name.endswith(f"{report['wordings']} wordings")}
    fixed = sorted(report["fixed"].values(), key=lambda row: row["all"]["ratio"])
    for label, rows, style in [
        ("base, same for all questions", fixed, "o-"),
        *((n, [r], "s") for n, r in gates.items()),
    ]:
        points = [row["all"] for row in rows]
        ends = [[point["accuracy"] - point["interval"][0] for point in points]]
        ends += [[point["interval"][1] - point["accuracy"] for point in points]]
        x, y = [point["ratio"] for point in points], [point["accuracy"] for point in points]
        axes.errorbar(x, y, yerr=ends, fmt=style, capsize=3, label=label)
    axes.set_xlabel("visual tokens used, share of the whole picture's")
    axes.set_ylabel("share of answers that are right (95 %)")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def to_markdown(report: dict) -> str:
    """The report as a page of tables."""
    families = [name for name in report["fixed"][next(iter(report["fixed"]))] if name not in ("all", "seconds")]
    lines = [f"# Visual tokens and accuracy: {report['model']}", ""]
    lines += [f"n = {report['n']} questions in {report['wordings']} wordings, seed {report['seed']}.", ""]
    lines += ["| | keep ratio | accuracy (95 %) | blind at that ratio | " + " | ".join(families) + " | tokens said |"]
    lines += ["|---" * (5 + len(families)) + "|"]
    for name, row in [*report["fixed"].items(), *report["gates"].items()]:
        blind = "" if name in report["fixed"] else f"{100 * blind_accuracy(report['fixed'], row['all']['ratio']):.1f} %"
        low, high = row["all"]["interval"]
        cells = [f"{row[f]['tokens']:.1f} tokens, {100 * row[f]['accuracy']:.1f} %" for f in families]
        accuracy = f"{100 * row['all']['accuracy']:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
        cells.append(f"{row['all']['said']:.1f}" if "said" in row["all"] else "")
        lines.append(f"| {name} | {row['all']['ratio']:.3f} | {accuracy} | {blind} | " + " | ".join(cells) + " |")
    if report["optima"]:
        lines += ["", f"Mean reward of each look by family, w = {report['visual_weight']:g}:", ""]
    for family, values in report["optima"].items():
        lines.append(f"- {family}: " + ", ".join(f"{look} {value:.3f}" for look, value in values.items()))
    return "\n".join(lines) + "\n"

"""adherence.json, adherence.md and adherence.png: what a sweep found, for programs, for readers, at a glance."""

import json
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from rlred.evaluation.measures import MEASURES, paired_difference
from rlred.files import read_record, write_json, write_text

STAGES = ("baseline", "hindsight", "trained", "control_constant_length")  # of a run, in order
TITLES = {
    "baseline": "before (untrained base)",
    "hindsight": "after the hindsight start",
    "trained": "after RL",
    "control_constant_length": "control: asked for one constant length",
    "brevity": "baseline: asked in words to be brief",
    "truncation": "baseline: free, cut at the budget",
    "s1_forcing": "baseline: S1 budget forcing",
    "predictions": "saved predictions",
}
OTHER_COLOURS = ("#2a9d8f", "#e76f51", "#6d597a", "#bc6c25", "#457b9d", "#9a031e")
COLOURS = {
    "baseline": "#888888",
    "hindsight": "#d9822b",
    "trained": "#1f6fb2",
    "control_constant_length": "#b04a9a",
    "brevity": "#5a9e6f",
    "truncation": "#8c6d46",
    "s1_forcing": "#c0392b",
    "predictions": "#1f6fb2",
}


@dataclass(frozen=True)
class Block:
    """The measures of one stage, baseline or other model, with its name for readers."""

    key: str
    title: str
    colour: str
    measures: dict
    comparable: bool = True  # with the base: the same questions, asked for the same


def blocks(report: dict) -> list[Block]:
    """Everything that a report measured, in the order in which it is told.

    Beside the stages of `TITLES`, `report["others"]` maps names to measures: more models, or the same one on something
    else (`title`, `comparable`).
    """
    found = [Block(key, TITLES[key], COLOURS[key], report[key]) for key in TITLES if report.get(key)]
    for number, (name, measures) in enumerate((report.get("others") or {}).items()):
        colour = OTHER_COLOURS[number % len(OTHER_COLOURS)]
        found.append(Block(name, measures.get("title", name), colour, measures, measures.get("comparable", True)))
    return found


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage; a dash for what was not measured."""
    return "-" if value is None else f"{100 * value:.{digits}f}"


def number(value: float | None, digits: int = 2) -> str:
    """A number with fixed digits; a dash for what was not measured."""
    return "-" if value is None else f"{value:.{digits}f}"


def _level(row: dict) -> str:
    """What a row was asked for: a budget, or a ratio and the budget that it comes to on average."""
    if row["budget"] is None:
        return "-"
    return f"{row['ratio']:g} ({row['budget']:.1f})" if "ratio" in row else str(row["budget"])


def _accuracy(row: dict) -> str:
    if row["accuracy"] is None:
        return "-"
    return f"{percent(row['accuracy'])} ({percent(row['accuracy_low'])}-{percent(row['accuracy_high'])})"


def _provenance(report: dict) -> str:
    if "files" not in report:
        return (
            f"Model `{report['model']}`, adapter `{report['adapter']}`, seed {report['seed']}, "
            f"{report['n_questions']} held-out questions per row, temperature {report.get('temperature', 1.0):g}."
        )
    lines = [f"Saved predictions, {report['n_questions']} questions."]
    for note in report["files"]:
        columns = ", ".join(f"{name} from `{column}`" for name, column in note["columns"].items())
        recorded = note["recorded_accuracy"]
        own = f" (its own record: {percent(recorded)} %)" if recorded is not None else ""
        layout = f" ({note['layout']})" if note.get("layout") else ""
        lines.append(
            f"- `{note['file']}`{layout}: {note['n']} predictions, {_left_out(note)}, accuracy "
            f"{percent(note['accuracy'])} %{own}; {columns}"
        )
    return "\n".join([*lines, ""])


def _left_out(note: dict) -> str:
    """How many rows of a file are not among the figures, and why."""
    because = {**note.get("skipped_because", {}), **note.get("lost", {})}
    if note.get("repeated"):
        because["that repeat a completion under another filter"] = note["repeated"]
    reasons = ", ".join(f"{count} {reason}" for reason, count in because.items())
    return f"{note['skipped'] + sum(note.get('lost', {}).values())} left out{f' ({reasons})' if reasons else ''}"


def to_markdown(report: dict) -> str:
    """The table of a report: one block per stage, one line per mode and budget."""
    lines = [
        "# Adherence",
        "",
        _provenance(report),
        "Errors are percentages of the budget; accuracy is a percentage with its 95 % Wilson interval.",
        *_cut(report),
    ]
    for part in blocks(report):
        block = part.measures
        lines += [
            "",
            f"## {part.title[0].upper()}{part.title[1:]}",
            "",
            f"Rank correlation of budget and length within a question: {number(block['rank_correlation'], 3)}. "
            f"Spread, n(largest) / n(smallest): {number(block['spread_ratio'])} "
            f"(asked: {number(block['asked_spread_ratio'])}).",
            *_markers(block),
            "",
            "| mode | budget | mean tokens | mean error | mean abs. error | RMSE | over budget | accuracy |"
            + "".join(f" {name.replace('_', ' ')} |" for name in MEASURES),
            "|---|---|---|---|---|---|---|---|" + "---|" * len(MEASURES),
        ]
        for row in block["rows"]:
            lines.append(
                f"| {row['mode']} | {_level(row)} | {row['mean_length']:.1f} "
                f"| {percent(row['mean_error'])} | {percent(row['mean_abs_error'])} | {percent(row['rmse'])} "
                f"| {percent(row['over_budget'])} | {_accuracy(row)} |" + _more(row)
            )
        for mode, mean in block["overall"].items():
            lines.append(
                f"| {mode} | all | {mean['mean_length']:.1f} | {percent(mean['mean_error'])} "
                f"| {percent(mean['mean_abs_error'])} | {percent(mean['rmse'])} | {percent(mean['over_budget'])} "
                f"| {percent(mean['accuracy'])} |" + _more(mean)
            )
    lines += _by_level(report) + _at_full_length(report) + _paired(report) + _what_rl_added(report)
    if report.get("cost"):
        lines += ["", "## Cost", ""]
        lines += [f"- {name.replace('_', ' ')}: {value}" for name, value in report["cost"].items() if value is not None]
    return "\n".join(lines) + "\n"


def _markers(block: dict) -> list[str]:
    """How true the counts are that a model writes into its thinking; nothing for one that is not to count."""
    found = block.get("markers")
    if not found:
        return []
    true = f", {percent(found['true'])} % of them true, {number(found['mean_abs_error'], 1)} tokens off on average"
    return [f"Markers: {number(found['per_completion'], 1)} per completion{true if found['per_completion'] else ''}."]


def _more(line: dict) -> str:
    """The cells of the measures that a report of an older version may lack."""
    return "".join(f" {number(line.get(name))} |" for name in MEASURES)


def _cut(report: dict) -> list[str]:
    """What a per_prompt_cap has done to the figures; nothing without one."""
    if report.get("per_prompt_cap") is None:
        return []
    shares = ", ".join(
        f"{part.title} {percent(max(row.get('cut', 0) for row in part.measures['rows']))}" for part in blocks(report)
    )
    return [
        f"Rows that ask for a maximum were cut at {report['per_prompt_cap']:g} times it and then count as wrong, and "
        "as long as the cap: over budget is exact, accuracy at least and tokens and errors at most what is shown; rank "
        f"correlation, spread and full length are affected. Largest share of a row cut (%): {shares}."
    ]


def _by_level(report: dict) -> list[str]:
    """What was done by the difficulty of the questions, where it is known and no budget was asked for."""
    lines = ["| stage | level | n | mean tokens | accuracy | without thinking |", "|---|---|---|---|---|---|"]
    for part in blocks(report):
        if set(part.measures["overall"]) == {"free"}:
            for level, mean in part.measures.get("by_level", {}).items():
                tokens, accuracy = number(mean["mean_length"], 1), percent(mean["accuracy"])
                skipped = percent(mean.get("skipped"))  # older reports do not say
                lines.append(f"| {part.title} | {level} | {mean['n']} | {tokens} | {accuracy} | {skipped} |")
    return ["", "## By difficulty", "", *lines] if len(lines) > 2 else []


def _at_full_length(report: dict) -> list[str]:
    """What obeying costs: the base when it thinks at length, and each stage at its largest budget, same questions."""
    base = report.get("baseline") or {}
    lines = ["", "## Accuracy at full length", ""]
    if not base.get("full_length") or base["full_length"]["accuracy"] is None:
        return []
    full = base["full_length"]
    lines.append(
        f"- base, the longest completion of each question: {_accuracy(full)}, {full['mean_length']:.1f} tokens"
    )
    for stage in ("hindsight", "trained"):
        rows = [row for row in (report.get(stage) or {"rows": []})["rows"] if row["budget"] is not None]
        for mode in dict.fromkeys(row["mode"] for row in rows):
            row = max((row for row in rows if row["mode"] == mode), key=lambda row: row["budget"])
            lines.append(
                f"- {TITLES[stage]}, {mode} {row['budget']}: {_accuracy(row)}, {row['mean_length']:.1f} tokens"
            )
    return lines


def _paired(report: dict) -> list[str]:
    """Accuracy over the whole sweep, less the base's, question by question."""
    base = report.get("baseline") or {}
    lines = []
    for part in blocks(report):
        if part.key == "baseline" or not part.comparable or not ("by_question" in part.measures and base):
            continue
        pair = paired_difference(base["by_question"], part.measures["by_question"])
        if pair:
            low, difference, high = (f"{100 * pair[name]:+.1f}" for name in ("low", "difference", "high"))
            lines.append(f"- {part.title}: {difference} points ({low} to {high}), {pair['n']} questions")
    title = "## Accuracy over all budgets, less the base's, paired by question (95 % interval)"
    return ["", title, "", *lines] if lines else []


def _what_rl_added(report: dict) -> list[str]:
    """RL held against the hindsight start that it began from: a table of differences, whichever way they go."""
    before, after = report.get("hindsight"), report.get("trained")
    if not before or not after:
        return []
    lines = ["", "## What RL added to the hindsight start", ""]
    lines += ["| mode | stage | mean abs. error | RMSE | over budget | accuracy | correct answers per 100 tokens |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for mode in after["overall"]:
        for stage in ("hindsight", "trained"):
            mean = report[stage]["overall"][mode]
            cells = [percent(mean[name]) for name in ("mean_abs_error", "rmse", "over_budget", "accuracy")]
            per_token = None if mean["accuracy"] is None else 100 * mean["accuracy"] / max(mean["mean_length"], 1)
            lines.append(f"| {mode} | {TITLES[stage]} | {' | '.join(cells)} | {number(per_token)} |")
    start = report.get("hindsight_start")
    if start:
        asked = [row["budget"] for row in after["rows"] if row["budget"] is not None]
        below = sorted({budget for budget in asked if budget < start["shortest_trace"]})
        lines += [
            "",
            f"The traces of the hindsight start had {start['shortest_trace']} to {start['longest_trace']} tokens. "
            f"Budgets of this sweep below any of them: {', '.join(map(str, below)) or 'none'}.",
        ]
    return lines


def draw_adherence(report: dict, ink: str = "black"):
    """Asked against used with the spread of the middle 80 %, and accuracy against tokens, for every stage."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    budgets: set[int] = set()
    for part in blocks(report):
        block = part.measures
        for mode in dict.fromkeys(row["mode"] for row in block["rows"]):
            rows = [row for row in block["rows"] if row["mode"] == mode and row["budget"] is not None]
            if not rows:
                free = [row for row in block["rows"] if row["accuracy"] is not None]
                label = f"{part.title}, free"
                right.plot(*_points(free), color=part.colour, marker="x", linestyle="none", label=label)
                continue
            asked = [row["budget"] for row in rows]
            budgets.update(asked)
            only = len(set(block["overall"]) - {"free"}) == 1
            style = {"color": part.colour, "linestyle": "-" if mode == "exact" or only else "--"}
            style |= {"marker": "o", "markersize": 4, "label": part.title if only else f"{part.title}, {mode}"}
            left.plot(asked, [row["mean_length"] for row in rows], **style)
            low, high = ([row[name] for row in rows] for name in ("length_p10", "length_p90"))
            left.fill_between(asked, low, high, color=part.colour, alpha=0.12, linewidth=0)
            right.plot(*_points(row for row in rows if row["accuracy"] is not None), **style)
    if right.get_legend_handles_labels()[1] and not budgets:
        right.legend(fontsize=8, frameon=False, labelcolor=ink)
    if budgets:
        ends = [min(budgets), max(budgets)]
        left.plot(ends, ends, color=ink, linewidth=1, linestyle=":")
        left.legend(fontsize=8, frameon=False, labelcolor=ink)
        left.annotate("asked = used", (ends[1], ends[1]), ha="right", va="bottom", fontsize=8, color=ink)
    left.set(xlabel="tokens asked for", ylabel="tokens used (band: middle 80 %)", title="Asked against used")
    right.set(xlabel="mean tokens used", ylabel="accuracy", ylim=(-0.02, 1.04), title="Accuracy against tokens")
    for axes in (left, right):
        set_ink(axes, ink)
    seed = f", seed {report['seed']}" if report["seed"] is not None else ""
    title = f"{report['model']}{seed}, {report['n_questions']} questions per point"
    figure.suptitle(title, fontsize=9, color=ink)
    return figure


def _points(rows) -> tuple[list[float], list[float]]:
    points = sorted((row["mean_length"], row["accuracy"]) for row in rows)
    return [length for length, _ in points], [accuracy for _, accuracy in points]


def set_ink(axes, ink: str) -> None:
    """The colour of everything on the axes that is not data."""
    axes.grid(alpha=0.25)
    axes.tick_params(colors=ink)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(ink)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(ink)


def draw(report: dict, path: Path) -> None:
    """The picture of a report as a PNG file."""
    figure = draw_adherence(report)
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, dpi=130, format="png")
    plt.close(figure)
    temporary.replace(path)


def write_report(report: dict, folder: Path) -> None:
    """Writes the three files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "adherence.json", report)
    write_text(folder / "adherence.md", to_markdown(report))
    draw(report, folder / "adherence.png")


def read_report(folder: Path) -> dict:
    """The adherence.json of a run."""
    path = folder / "adherence.json"
    if not path.is_file():
        raise ValueError(f"{folder}: there is no adherence.json")
    try:
        return read_record(path)
    except json.JSONDecodeError as problem:
        raise ValueError(f"{path}: cannot be read as JSON: {problem}") from None


def compare(reports: list[tuple[str, dict]]) -> str:
    """One line per run, stage and mode: the measures over all budgets, and what they cost."""
    names = ("run", "seed", "stage", "mode", "rank corr.", "spread (asked)", "mean abs. error", "RMSE", "over budget")
    names += (
        "accuracy at the smallest / middle / largest budget",
        "at full length",
        "rollouts to corr. 0.9",
        "minutes",
    )
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for name, report in reports:
        for part in blocks(report):
            block = part.measures
            for mode, mean in block["overall"].items():
                rows = [row for row in block["rows"] if row["mode"] == mode]
                cells = [name, report["seed"], part.key.removesuffix("_constant_length"), mode]
                cells += [
                    number(block["rank_correlation"], 3),
                    f"{number(block['spread_ratio'])} ({number(block['asked_spread_ratio'])})",
                    *(percent(mean[measure]) for measure in ("mean_abs_error", "rmse", "over_budget")),
                    " / ".join(percent(row["accuracy"], 0) for row in (rows[0], rows[len(rows) // 2], rows[-1])),
                    percent(block.get("full_length", {}).get("accuracy"), 0),
                    *(_cost_cells(report.get("cost"), block) if part.key == "trained" else ("", "")),
                ]
                lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _cost_cells(cost: dict | None, block: dict) -> tuple[str, str]:
    if not cost:
        return "-", "-"
    if block["rank_correlation"] is None:
        return "-", str(cost["minutes"])
    rollouts = cost["rollouts_to_rank_correlation_0.9"]
    spent = cost["hindsight_samples"] + cost["rl_rollouts"]
    return f"not in {spent:,}" if rollouts is None else f"{rollouts:,}", str(cost["minutes"])

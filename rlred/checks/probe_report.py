"""probe.json, probe.md, probe.png and probe.yaml: a probe for programs, for readers, as a picture, and for a recipe."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import yaml
from matplotlib import pyplot as plt

from rlred.checks.plan import GIB, Plan
from rlred.checks.probe import sampled_tokens
from rlred.checks.word_counts import advice
from rlred.evaluation.markdown import table
from rlred.evaluation.results import accuracy, number, percent, set_ink
from rlred.evaluation.trace_sources import SOURCES
from rlred.files import write_json, write_text

COLOURS = {"free": "#1f6fb2", "brief": "#2a9d8f", "stopped": "#d9822b", "continued": "#6d597a"}
SHOWN = ("0", "10", "25", "50", "75", "90", "100")  # quantiles of the tables
BINS = ("tokens", "completions", "correct", "%", "free", "correct", "%", "correct by source")  # columns
MANY = 0.05  # a larger share cut at the cap hides the long end of the natural lengths


def to_yaml(report: dict) -> str:
    """The settings that a recipe takes and the measures that its audit reads (rlred/checks/probe_file.py)."""
    told = {
        "settings": report["settings"],
        "measured": {
            "model": report["model"],
            "questions": report["questions"],
            "temperature": report["sampling"]["temperature"],
            "max_completion_length": report["sampling"]["max_completion_length"],
            "lengths": [row["lengths"] for row in report["by_question"]],
            "bins": [{name: row[name] for name in ("from", "to", "sources")} for row in report["bins"]],
        },
    }
    head = (
        "# Made by rlred probe; a recipe takes it with --probe FILE. The order is flags > this > the recipe's YAML.\n"
    )
    return head + yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)


def to_markdown(report: dict) -> str:
    """The probe as tables."""
    told = report["sampling"]
    lines = [
        f"# Probe of {report['model']}",
        "",
        f"{report['n_questions']} questions of `{report['questions']}`, {told['num_samples']} free completions of each "
        f"and {report['probing']['num_traces']} of every other source, temperature {told['temperature']:g}, cut at "
        f"{told['max_completion_length']} tokens (brief: {told['max_completion_length'] // 2}), seed {told['seed']}.",
        "",
        "## What can be learned",
        "",
        *_learned(report),
        "",
        "## By source",
        "",
        f"Quantiles of the tokens, of what was cut too; {', '.join(SHOWN)} %. Accuracy in % with its Wilson interval.",
        "",
        *table(
            ["source", "n", "cut (%)", " / ".join(SHOWN) + " %", "accuracy"], map(_source, report["sources"].items())
        ),
        "",
        "## By length",
        "",
        "What ended by itself; `free` is what the model does unasked.",
        "",
        *table(BINS, map(_bin, report["bins"])),
    ]
    lines += ["", f"Outside the bins: {report['outside_bins']}.", *_questions(report)]
    lines += [*_counting(report.get("counting")), *_cost(report)]
    return "\n".join(lines) + "\n"


def _source(told: tuple[str, dict]) -> list:
    name, one = told
    lengths = " / ".join(str(one["lengths"][q]) for q in SHOWN) if one["lengths"] else "-"
    return [name, one["n"], percent(one["cut"]), lengths, accuracy(one)]


def _bin(row: dict) -> list:
    own, by = row["free"], ", ".join(f"{name} {count}" for name, count in row["sources"].items()) or "-"
    found = [row["completions"], row["kept"], percent(row["accuracy"], 0)]
    return [f"{row['from']} to {row['to']}", *found, own["completions"], own["kept"], percent(own["accuracy"], 0), by]


def _learned(report: dict) -> list[str]:
    found, own, cap = report["settings"], report["sources"]["free"], report["sampling"]["max_completion_length"]
    lines = []
    if found:
        samples = found["hindsight_settings"]
        counts = {"free": samples["num_samples"], **samples["sources"]}
        sources = ", ".join(f"{count} {name}" for name, count in counts.items())
        lines.append(
            f"- Budgets of {found['budget_low']} to {found['budget_high']} tokens: each of the "
            f"{samples['num_bins']} bins between them has {report['probing']['min_correct']} correct traces or more."
        )
        lines.append(f"- Completion cap: {found['max_completion_length']}.")
        lines.append(f"- To sample for a hindsight start: {sources}.")
    else:
        lines.append(
            f"- No range of budgets: no bins have {report['probing']['min_correct']} correct traces of two lengths. "
            "Easier questions, a larger cap, another temperature or more samples may find one."
        )
    if own["cut"] > MANY:
        lines.append(
            f"- {percent(own['cut'], 0)} % of the free completions were cut at {cap}: the natural lengths are longer "
            "than the quantiles below say. Probe again with a larger --max_completion_length."
        )
    return lines


def _questions(report: dict) -> list[str]:
    """How much of the length belongs to the question, and which are the shortest and the longest."""
    rows = sorted(report["by_question"], key=lambda row: sum(row["lengths"]) / len(row["lengths"]))
    lines = []
    for row in rows if len(rows) <= 6 else [*rows[:3], *rows[-3:]]:
        own = row["lengths"]
        cells = [
            row["question_id"],
            number(sum(own) / len(own), 1),
            min(own),
            max(own),
            percent(row["cut"], 0),
            percent(row["accuracy"], 0),
        ]
        lines.append(cells)
    note = "" if len(rows) <= 6 else f" The three shortest and longest of {len(rows)}; all of them are in probe.json."
    names = ("question", "mean tokens", "shortest", "longest", "cut (%)", "accuracy")
    return ["", "## By question", "", *table(names, lines), *(["", note.strip()] if note else [])]


def _counting(found: dict | None) -> list[str]:
    """What it writes when it is told to write a word so many times; a probe of before does not say."""
    if not found:
        return []
    triples = zip(found["counts"], found["written"], found["truncated"], strict=True)
    rows = [[count, times, "yes" if cut else ""] for count, times, cut in triples]
    about = (
        f'Told, greedily: "{found["request"]}" Rank correlation of asked and written '
        f"{number(found['rank_correlation'])}, mean abs. error {percent(found['mean_abs_error'])} % of what was asked."
    )
    names = ("asked", "written", "cut at the cap")
    return ["", "## Can it follow a count?", "", about, advice(found), "", *table(names, rows)]


def _cost(report: dict) -> list[str]:
    lines, speed, tokens = [], report["tokens_per_second"], sampled_tokens(report)
    if tokens is not None:
        minutes = f": some {tokens / speed / 60:.1f} minutes" if speed else ""
        rate = f" at {speed:g} tokens a second, measured here in batches of {report['sampling']['batch_size']}"
        lines.append(f"- Hindsight samples: at most {tokens:,} tokens{rate if speed else ''}{minutes}.")
    for name, text in (report.get("plan") or {}).items():
        lines.append(f"- {name}: {text}.")
    return ["", "## Cost", "", *lines] if lines else []


def planned(plan: Plan, speed: float | None, config: Path) -> dict[str, str]:
    """What a recipe with the probe's settings takes: memory, tokens, and the minutes of sampling them."""
    steps, tokens = max(plan.training.max_steps, 0), plan.obedient() or plan.longest()
    found = {
        "Recipe": f"{config.name}, prompts of up to {plan.prompt_length} tokens",
        "Memory on one device": f"{plan.peak() / GIB:.2f} GiB at the peak (rlred plan)",
        "RL step": f"{plan.rollouts} rollouts, {plan.longest():,} tokens at most, {tokens:,} at the mean budget",
    }
    if steps and speed:
        minutes = steps * tokens / speed / 60
        found["RL sampling"] = f"some {minutes:.0f} minutes for {steps} steps at the mean budget and the speed above"
    return found


def draw(report: dict, path: Path) -> None:
    """Correct traces by length and source, and accuracy by length, with the range that can be learned."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    rows = report["bins"]
    edges, widths = [row["from"] for row in rows], [row["to"] - row["from"] for row in rows]
    bottom = [0] * len(rows)
    for name in SOURCES:
        counts = [row["sources"].get(name, 0) for row in rows]
        left.bar(edges, counts, widths, bottom, align="edge", color=COLOURS[name], label=name, edgecolor="white")
        bottom = [low + count for low, count in zip(bottom, counts, strict=True)]
    middles = [(row["from"] * row["to"]) ** 0.5 for row in rows]
    for label, cells, style in (("all sources", rows, "o--"), ("free", [row["free"] for row in rows], "s-")):
        points = [(x, row["accuracy"]) for x, row in zip(middles, cells, strict=True) if row["completions"]]
        colour = COLOURS.get(label, "#555555")
        right.plot([x for x, _ in points], [y for _, y in points], style, color=colour, label=label)
    quartiles = [report["sources"]["free"]["lengths"][q] for q in ("25", "50", "75")]
    for axes in (left, right):
        if report["settings"]:
            axes.axvspan(report["settings"]["budget_low"], report["settings"]["budget_high"], color="black", alpha=0.06)
        for x in quartiles:
            axes.axvline(x, color=COLOURS["free"], linestyle=":", linewidth=1)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.legend(fontsize=8, frameon=False)
        set_ink(axes, "black")
    left.set(xlabel="tokens", ylabel="correct traces", title="Traces by length (dotted: natural quartiles)")
    right.set(xlabel="tokens", ylabel="accuracy", ylim=(-0.02, 1.04), title="Accuracy by length (grey: range)")
    figure.suptitle(f"{report['model']}, {report['n_questions']} questions", fontsize=9)
    figure.savefig(path.with_name(f".{path.name}"), dpi=90, format="png")
    plt.close(figure)
    path.with_name(f".{path.name}").replace(path)


def write_probe(report: dict, folder: Path) -> None:
    """Writes the four files into `folder`; probe.json, which says that a probe is done, comes last."""
    write_text(folder / "probe.md", to_markdown(report))
    write_text(folder / "probe.yaml", to_yaml(report))
    draw(report, folder / "probe.png")
    write_json(folder / "probe.json", report)

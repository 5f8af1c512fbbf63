"""`rlred report`: one HTML page from one run or many, self-contained, readable on a phone and in the dark.

    the runs side by side     the table of `rlred table`
    each run                  asked against used, accuracy against tokens, training curves, completions, settings

The page loads nothing: charts are inline SVG whose ink is the page's text colour. The same charts lie beside it as PNG.
"""

import html
import io
import json
import re
from pathlib import Path

from matplotlib import pyplot as plt

from rlred.evaluation.report import blocks, compare, draw_adherence, read_report, set_ink
from rlred.files import write_text

INK = "#010203"  # stands for the page's text colour, see svg_of
CURVES = {
    "Reward": ("reward", "rewards/correctness/mean"),
    "Mean length (tokens)": ("completions/mean_length",),
    "Adherence": (
        "adherence/mean_abs_error",
        "adherence/over_budget",
        "adherence/batch_rank_correlation",
        "adherence/spread_ratio",
    ),
    "Entropy": ("entropy",),
}

STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: 1.5rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .875rem; white-space: nowrap; }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1rem 0; overflow-x: auto; } svg { max-width: 100%; min-width: 40rem; height: auto; }
figcaption { font-size: .875rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: 1rem; }
.card { border: 1px solid var(--line); border-radius: .5rem; padding: .75rem; background: var(--soft); min-width: 0; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .5rem 0 0; font-size: .8125rem; }
.right { color: light-dark(#1a7f37, #4ac26b); } .wrong { color: light-dark(#b3261e, #ff8a80); }
"""


def write_page(folders: list[Path], output: Path) -> Path:
    """Writes `output`/report.html and its PNGs. Raises `ValueError` for a folder without a report."""
    runs = [(folder.name, folder, read_report(folder)) for folder in folders]
    output.mkdir(parents=True, exist_ok=True)
    body = [f"<h1>{'Adherence' if len(runs) > 1 else html.escape(runs[0][0])}</h1>"]
    body += [
        "<p>Tokens asked for against tokens used, on held-out questions. Errors are percentages of the budget; a "
        "constant length has a rank correlation of 0.</p>",
        table_of(compare([(name, report) for name, _, report in runs])),
    ]
    for number, (name, folder, report) in enumerate(runs, start=1):
        body += section(name, folder, report, output / f"{number}-{name}")
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>rlred: {html.escape(", ".join(name for name, *_ in runs))}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )
    write_text(output / "report.html", page)
    return output / "report.html"


def section(name: str, folder: Path, report: dict, stem: Path) -> list[str]:
    """What there is to show of one run; its pictures are called `stem`-adherence.png and `stem`-training.png."""
    about = f"Model {report['model']}, {report['n_questions']} questions at each budget"
    if report["seed"] is not None:
        about += f", seed {report['seed']}, temperature {report['temperature']:g}"
    parts = [f"<h2>{html.escape(name)}</h2><p>{html.escape(about)}.</p>"]
    parts.append(figure_of(draw_adherence(report, INK), Path(f"{stem}-adherence.png"), "Tokens and accuracy."))
    curves = read_curves(folder)
    if curves:
        caption = "Training: the reinforcement learning steps, as the trainer logged them."
        parts.append(figure_of(draw_curves(curves), Path(f"{stem}-training.png"), caption))
    heard = (report.get("hindsight_start") or {}).get("rank_correlation")
    if heard:
        said = ", ".join(f"{value:.2f} after {update}" for update, value in heard)
        parts.append(f"<p>Rank correlation during the hindsight start, by updates: {said}.</p>")
    parts += examples_of(report)
    settings = folder / "run.json"
    if settings.is_file():
        text = html.escape(settings.read_text())
        parts.append(f"<h3>Settings</h3><details><summary>run.json</summary><pre>{text}</pre></details>")
    return parts


def read_curves(folder: Path) -> list[dict]:
    """The trainer's log, one entry per logged step; empty where there is none."""
    path = folder / "trainer_state.json"
    if not path.is_file():
        return []
    return [entry for entry in json.loads(path.read_text())["log_history"] if "reward" in entry]


def draw_curves(log: list[dict]):
    """A figure with one panel per group of `CURVES`."""
    figure, panels = plt.subplots(1, len(CURVES), figsize=(13, 3.2), layout="constrained")
    for axes, (title, names) in zip(panels, CURVES.items(), strict=True):
        for name in names:
            points = [(entry["step"], float(entry[name])) for entry in log if name in entry]
            if points:
                axes.plot(*zip(*points, strict=True), label=name.removeprefix("adherence/"), marker=".", markersize=3)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step")
        if len(names) > 1 and axes.lines:
            axes.legend(fontsize=7, frameon=False, labelcolor=INK)
        axes.tick_params(labelsize=8)
        set_ink(axes, INK)
    return figure


def figure_of(figure, png: Path, caption: str) -> str:
    """The figure as inline SVG, and as a PNG file."""
    figure.savefig(png, dpi=130, format="png", facecolor="white")
    text = svg_of(figure)
    plt.close(figure)
    return f'<figure role="img" aria-label="{html.escape(caption)}">{text}<figcaption>{caption}</figcaption></figure>'


def svg_of(figure) -> str:
    """A figure as an SVG element on no background, its ink the colour of the text around it."""
    buffer = io.StringIO()
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "rlred", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S).replace(INK, "currentColor")


def table_of(markdown: str) -> str:
    """The HTML of a Markdown table."""
    head, _, *rows = [line[1:-1].split("|") for line in markdown.splitlines()]
    cells = lambda row, tag: "".join(f"<{tag}>{html.escape(cell.strip())}</{tag}>" for cell in row)  # noqa: E731
    lines = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{cells(head, "th")}</tr></thead><tbody>{lines}</tbody></table></div>'


def examples_of(report: dict) -> list[str]:
    """Completions of one question at three budgets side by side, of the base and of the last stage."""
    parts = []
    for part in blocks(report):
        examples = part.measures.get("examples") if part.key not in ("hindsight", "control_constant_length") else None
        if not examples:
            continue
        title = html.escape(part.title)
        parts.append(f'<h3 style="border-left: .3rem solid {part.colour}; padding-left: .5rem">{title}</h3>')
        for question in dict.fromkeys(example["question"] for example in examples):
            cards = [card_of(example) for example in examples if example["question"] == question]
            parts.append(f'<p>{html.escape(question)}</p><div class="cards">{"".join(cards)}</div>')
    return parts


def card_of(example: dict) -> str:
    """One completion."""
    asked = f"{example['mode']} {example['budget']}" if example["budget"] is not None else "free"
    grade = {1: '<span class="right">right</span>', 0: '<span class="wrong">wrong</span>'}.get(example["correct"], "")
    return (
        f'<div class="card"><strong>{asked}</strong>: {example["length"]} tokens, {grade}'
        f"<pre>{html.escape(example['completion'] or '')}</pre></div>"
    )

"""`rlred report`: one HTML page from one run or many, self-contained, readable on a phone and in the dark.

    the runs side by side     the table of `rlred table`
    each run                  the tables and pictures of its results, training curves, completions, settings

The page loads nothing: charts are inline SVG whose ink is the page's text colour. The same charts lie beside it as PNG.
A click on the heading of a column sorts its table, and tables of eight rows and more can be filtered (tables.js).
"""

import base64
import html
import io
import json
import re
from pathlib import Path

from matplotlib import pyplot as plt

from rlred.evaluation.markdown import table, table_of, to_html
from rlred.evaluation.measures import amount
from rlred.evaluation.report import colours
from rlred.evaluation.results import KINDS, Result, kind_of, results_in, set_ink, to_markdown
from rlred.evaluation.side_by_side import compare
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

SFT_CURVES = {
    "Loss": ("loss",),
    "Token accuracy": ("mean_token_accuracy",),
    "Gradient norm": ("grad_norm",),
    "Entropy": ("entropy",),
}
OWN_PAGES = {  # tables over many runs -> their pictures
    "table.md": {},
    "board.md": {"board.png": "Accuracy against tokens."},
}
LEFT_BEHIND = ("result.json", "trainer_state.json")

SCRIPT = Path(__file__).with_name("tables.js").read_text(encoding="utf-8")
STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: 1.5rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .875rem; white-space: nowrap; }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; } input[type=search] { font: inherit; margin: .5rem 0; }
th[aria-sort=descending]::after { content: " \\2193"; } th[aria-sort=ascending]::after { content: " \\2191"; }
figure { margin: 1rem 0; overflow-x: auto; } img { max-width: 100%; }
svg { max-width: 100%; min-width: 40rem; height: auto; }
figcaption { font-size: .875rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: 1rem; }
.card { border: 1px solid var(--line); border-radius: .5rem; padding: .75rem; background: var(--soft); min-width: 0; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .5rem 0 0; font-size: .8125rem; }
.correct { color: light-dark(#1a7f37, #4ac26b); } .incorrect { color: light-dark(#b3261e, #ff8a80); }
"""


def write_page(folders: list[Path], output: Path) -> Path:
    """Writes `output`/report.html and its PNGs. Raises `ValueError` for a folder that no run has left."""
    runs = [(folder.resolve().name, folder, results_of(folder)) for folder in folders]
    output.mkdir(parents=True, exist_ok=True)
    body = [f"<h1>{'Runs' if len(runs) > 1 else html.escape(runs[0][0])}</h1>"]
    for name, _, results in runs:  # what they come to, before any table
        said = [text for one in results for text in kind_of(one).summary(one)]
        titled = [f"{name}: {text}" if len(runs) > 1 and not place else text for place, text in enumerate(said)]
        body += [to_html(text) for text in titled]
    compared = [(name, one) for name, _, results in runs for one in results if one.kind == "adherence"]
    if compared:
        body += [
            "<p>Tokens asked for against tokens used, on held-out questions. Errors are percentages of the budget; a "
            "constant length has a rank correlation of 0.</p>",
            table_of(compare(compared)),
        ]
    for number, (name, folder, results) in enumerate(runs, start=1):
        body += section(name, folder, results, output / f"{number}-{name}")
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>rlred: {html.escape(", ".join(name for name, *_ in runs))}</title>'
        f"<style>{STYLE}</style><script>{SCRIPT}</script></head><body>{''.join(body)}</body></html>\n"
    )
    write_text(output / "report.html", page)
    return output / "report.html"


def results_of(folder: Path) -> list[Result]:
    """The results of a run, none where it has left something else.

    Raises `ValueError` where nothing of a run is there.
    """
    names = [*(f"{kind}.json" for kind in KINDS), *OWN_PAGES, *LEFT_BEHIND]
    if not any((folder / name).is_file() for name in names):
        raise ValueError(
            f"{folder}: there is no {', '.join(names[:-1])}, nor any other trace of a run; "
            "name the output folder of one"
        )
    return results_in(folder)


def section(name: str, folder: Path, results: list[Result], stem: Path) -> list[str]:
    """What there is to show of one run; its pictures are called `stem`-adherence.png, `stem`-training.png and so on."""
    parts = [f"<h2>{html.escape(name)}</h2>"]
    for result in results:
        parts += pictures_of(result, stem)
        parts.append(to_html(to_markdown(result, summary=False)))
    parts += own_pages(folder)
    curves = read_curves(folder)
    if curves:
        steps = "reinforcement learning" if "reward" in curves[0] else "supervised"
        caption = f"Training: the {steps} steps, as the trainer logged them."
        parts.append(figure_of(draw_curves(curves), Path(f"{stem}-training.png"), caption))
    for result in results:
        measured = (result.details.get("hindsight_start") or {}).get("rank_correlation")
        if measured:
            said = ", ".join(f"{value:.2f} after {update}" for update, value in measured)
            parts.append(f"<p>Rank correlation during the hindsight start, by updates: {said}.</p>")
        parts += examples_of(result)
    settings = folder / "run.json"
    if settings.is_file():
        text = html.escape(settings.read_text())
        parts.append(f"<h3>Settings</h3><details><summary>run.json</summary><pre>{text}</pre></details>")
    return parts


def pictures_of(result: Result, stem: Path) -> list[str]:
    """The pictures of a result, drawn in the page's ink, and as PNG files."""
    drawn = {name: (one.caption, one.draw(result, INK)) for name, one in kind_of(result).pictures.items()}
    return [figure_of(figure, Path(f"{stem}-{name}"), f"{text}.") for name, (text, figure) in drawn.items() if figure]


def own_pages(folder: Path) -> list[str]:
    """The tables over many runs, and the figures of one of them, as they were left."""
    parts = []
    for page, pictures in OWN_PAGES.items():
        if (folder / page).is_file():
            parts.append(to_html((folder / page).read_text(encoding="utf-8")))
            parts += [picture_of(folder / name, caption) for name, caption in pictures.items()]
    if (folder / "result.json").is_file():
        result = json.loads((folder / "result.json").read_text())
        figures = {key: value for key, value in result.items() if isinstance(value, int | float)}
        parts.append(table_of("\n".join(table(["", ""], [[key, f"{value:.4g}"] for key, value in figures.items()]))))
    return parts


def picture_of(path: Path, caption: str) -> str:
    """A picture that a run has left, inside the page; nothing where it is not there."""
    if not path.is_file():
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    image = f'<img alt="{html.escape(caption)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>"


def read_curves(folder: Path) -> list[dict]:
    """The trainer's log, one entry per logged step: those with a reward, or else with a loss; empty without a log."""
    path = folder / "trainer_state.json"
    if not path.is_file():
        return []
    log = json.loads(path.read_text())["log_history"]
    return [entry for entry in log if "reward" in entry] or [entry for entry in log if "loss" in entry]


def draw_curves(log: list[dict]):
    """A figure with a panel per group of `CURVES` that was logged."""
    shown = {
        title: names
        for title, names in (CURVES if "reward" in log[0] else SFT_CURVES).items()
        if any(name in entry for name in names for entry in log)
    }
    figure, grid = plt.subplots(1, len(shown), figsize=(3.25 * len(shown), 3.2), layout="constrained", squeeze=False)
    for axes, (title, names) in zip(grid[0], shown.items(), strict=True):
        for name in names:
            points = [(entry["step"], float(entry[name])) for entry in log if entry.get(name) is not None]
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


def examples_of(result: Result) -> list[str]:
    """Completions of one question at three budgets side by side, of the base and of the last stage."""
    parts = []
    for name, block in result.blocks.items():
        examples = block.get("examples") if name not in ("hindsight", "control_constant_length") else None
        if not examples:
            continue
        title, colour = html.escape(block["title"]), colours(result)[name]
        parts.append(f'<h3 style="border-left: .3rem solid {colour}; padding-left: .5rem">{title}</h3>')
        for question in dict.fromkeys(example["question"] for example in examples):
            cards = [card_of(example) for example in examples if example["question"] == question]
            parts.append(f'<p>{html.escape(question)}</p><div class="cards">{"".join(cards)}</div>')
    return parts


def card_of(example: dict) -> str:
    """One completion."""
    asked = f"{example['mode']} {amount(example)}" if amount(example) is not None else "free"
    word = {1: "correct", 0: "incorrect"}.get(example["correct"])
    grade = f'<span class="{word}">{word}</span>' if word else ""
    return (
        f'<div class="card"><strong>{asked}</strong>: {example["length"]} tokens, {grade}'
        f"<pre>{html.escape(example['completion'] or '')}</pre></div>"
    )

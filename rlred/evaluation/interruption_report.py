"""The result of interruptions: interruptions.{json,md,png}."""

from matplotlib.figure import Figure

from rlred.data.budgets import effort_name
from rlred.evaluation.measures import amount
from rlred.evaluation.report import COLOURS, OTHER_COLOURS
from rlred.evaluation.results import Kind, Picture, Result, accuracy, capital, number, percent, points, set_ink
from rlred.evaluation.summary import few, paragraphs


def upgrade(old: dict) -> Result:
    """Raises `TypeError`: the first format had no interruptions."""
    raise TypeError("the first format had no interruptions")


def _introduction(result: Result) -> list[str]:
    told = result.labels
    return [
        f"Model `{told['model']}`, adapter `{told.get('adapter')}`, seed {told.get('seed')}, {told['n_questions']} "
        f"held-out questions, temperature {told.get('temperature', 1.0):g}. The thinking of each completion was ended "
        "behind a share of its own tokens, and the model went on from there. Accuracy in per cent with its 95 % "
        "Wilson interval; the difference is paired by question, in points. Leak: tokens of the answer after the cut "
        "less those of the same completion uncut, and as a share of the thinking that was cut away. Panic: "
        "completions, in per cent, that were correct uncut and are incorrect in no more tokens of answer."
    ]


def summary(result: Result) -> list[str]:
    """For each model and mode, what a cut in the middle of its longest thinking costs."""
    sentences = []
    for block in result.blocks.values():
        for mode in dict.fromkeys(row["mode"] for row in block["rows"]):
            rows = [row for row in block["rows"] if row["mode"] == mode]
            most = max(amount(row) or 0 for row in rows)
            sentences += _cut_in_the_middle(block["title"], [row for row in rows if (amount(row) or 0) == most])
    return paragraphs(sentences, few(result)) if sentences else []


def _cut_in_the_middle(title: str, rows: list[dict]) -> list[str]:
    cut = min((row for row in rows if row["fraction"] < 1), key=lambda row: abs(row["fraction"] - 0.5), default=None)
    whole = next((row for row in rows if row["fraction"] == 1), None)
    if cut is None or whole is None:
        return []
    asked = "" if amount(cut) is None else f" {_asked(cut)}"
    said = f"{capital(title)}, mode {cut['mode']}{asked}: "
    said += f"with {percent(cut['fraction'], 0)} % of the thinking "
    if None not in (cut["accuracy"], whole["accuracy"]):
        said += f"{percent(cut['accuracy'])} % are correct, with all of it {percent(whole['accuracy'])} %; "
    longer = f"{number(abs(cut['leak']), 1)} tokens {'longer' if cut['leak'] > 0 else 'shorter'} than"
    longer = "as long as" if abs(cut["leak"]) < 0.05 else longer
    return [f"{said}the answer is {longer} behind the whole thinking."]


def _columns(result: Result) -> dict:
    return {
        "mode": lambda line: line["mode"],
        "budget": _asked,
        "thinking kept": lambda line: f"{percent(line['fraction'], 0)} %",
        "n": lambda line: line["n"],
        "thinking tokens": lambda line: number(line["mean_thinking_length"], 1),
        "answer tokens": lambda line: number(line["mean_answer_length"], 1),
        "accuracy": accuracy,
        "less uncut": lambda line: points(line["less_than_uncut"]),
        "leak": lambda line: number(line["leak"], 1) if line["fraction"] < 1 else "",
        "leak share": lambda line: number(line["leak_share"]) if line["fraction"] < 1 else "",
        "panic %": lambda line: percent(line["panic"]) if line["fraction"] < 1 else "",
        "truncated %": lambda line: percent(line["truncated"]),
    }


def _asked(line: dict) -> str:
    """The budget or the effort of a row; a dash where nothing was asked for."""
    if line.get("effort") is not None:
        return effort_name(line["effort"])
    return "-" if line["budget"] is None else str(line["budget"])


def _above(block: dict) -> list[str]:
    if not block.get("left_out"):
        return []
    return [f"Left out: {block['left_out']} completions that did not end their thinking by themselves."]


def draw(result: Result, ink: str = "black") -> Figure:
    """Accuracy, and tokens of the answer, against the share of the thinking that was left."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    colours = (COLOURS["trained"], *OTHER_COLOURS)
    for place, (name, block) in enumerate(result.blocks.items()):
        for mode in dict.fromkeys(row["mode"] for row in block["rows"]):
            rows = [row for row in block["rows"] if row["mode"] == mode]
            style = {"marker": "o", "markersize": 4, "label": f"{block['title']}, {mode}"}
            style["color"] = COLOURS["baseline"] if name == "baseline" else colours[(place - 1) % len(colours)]
            style["linestyle"] = {"exact": "-", "max": "--", "effort": "-."}.get(mode, ":")
            graded = [row for row in rows if row["accuracy"] is not None]
            left.plot([row["fraction"] for row in graded], [row["accuracy"] for row in graded], **style)
            right.plot([row["fraction"] for row in rows], [row["mean_answer_length"] for row in rows], **style)
    left.set(xlabel="share of the thinking before the cut", ylabel="accuracy", ylim=(-0.02, 1.04))
    left.set_title("Accuracy after a cut")
    right.set(xlabel="share of the thinking before the cut", ylabel="mean tokens", title="Tokens of the answer")
    left.legend(fontsize=8, frameon=False, labelcolor=ink)
    for axes in (left, right):
        set_ink(axes, ink)
    return figure


INTERRUPTIONS = Kind(
    title="Interrupted thinking",
    introduction=_introduction,
    columns=_columns,
    pictures={"interruptions.png": Picture("Accuracy and tokens of the answer after a cut of the thinking", draw)},
    upgrade=upgrade,
    above=_above,
    summary=summary,
)

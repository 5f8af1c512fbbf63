"""The result of a sweep over ratios: ratios.{json,md,png}."""

from matplotlib.figure import Figure

from rlred.evaluation.report import COLOURS, OTHER_COLOURS
from rlred.evaluation.results import Kind, Picture, Result, accuracy, capital, number, percent, points, set_ink
from rlred.evaluation.summary import few, paragraphs

OLD_ROWS = {  # of the first format
    "tokens": "mean_length",
    "thinking_tokens": "mean_thinking_length",
    "answer_tokens": "mean_answer_length",
}


def upgrade(old: dict) -> Result:
    """The result that a file of the first format holds: labels beside blocks, and lengths by other names."""
    blocks = {name: {**block, "rows": list(map(_todays_row, block["rows"]))} for name, block in old["blocks"].items()}
    labels = {name: value for name, value in old.items() if name not in ("blocks", "minutes", "files")}
    details = {"files": old["files"]} if "files" in old else {}
    cost = {"minutes": old["minutes"]} if "minutes" in old else {}
    return Result("ratios", labels, blocks, details, cost)


def _todays_row(row: dict) -> dict:
    return {OLD_ROWS.get(name, name): value for name, value in row.items()}


def _introduction(result: Result) -> list[str]:
    told = result.labels
    if "files" in result.details:
        provenance = f"Saved predictions, {told['n_questions']} questions."
    else:
        provenance = (
            f"Model `{told['model']}`, adapter `{told['adapter']}`, seed {told['seed']}, {told['n_questions']} "
            f"held-out questions per row, temperature {told['temperature']:g}, at most "
            f"{told['max_completion_length']} tokens at every ratio, batches of {told['batch_size']}."
        )
    return [
        f"{provenance} Achieved: mean thinking tokens (all tokens, where the thinking is not known apart) "
        "over those at ratio 1 of the same model. Accuracy in per cent with its 95 % Wilson interval; the difference "
        "is paired by question, in points."
    ]


def summary(result: Result) -> list[str]:
    """For each model, how far it is from the ratios that it is asked for, and what the smallest one costs."""
    sentences = []
    for name, block in result.blocks.items():
        lines = [line for line in _lines(result, name) if line["ratio"] < 1 and line["trained"]]
        if not lines:
            continue
        away = sum(abs(line["achieved"] - line["ratio"]) for line in lines) / len(lines)
        least = min(lines, key=lambda line: line["ratio"])
        said = (
            f"{capital(block['title'])}: asked for ratios from {least['ratio']:g} to "
            f"{max(line['ratio'] for line in lines):g}, it is {number(away, 3)} away from them on average"
        )
        if least["accuracy"] is not None:
            said += f"; at {least['ratio']:g} it is correct in {accuracy(least).replace(' ', ' % ', 1)}"
            lost = least["less_than_full"]
            said += f", {points(lost)} points against ratio 1" if lost else ""
        sentences.append(f"{said}.")
    return paragraphs(sentences, few(result)) if sentences else []


def _columns(result: Result) -> dict:
    return {
        "ratio": lambda line: f"{line['ratio']:g}{'' if line['trained'] else ' (untrained)'}",
        "achieved": lambda line: f"{line['achieved']:.3f}",
        "tokens": lambda line: number(line.get("mean_length"), 1),
        "thinking tokens": lambda line: number(line["mean_thinking_length"], 1),
        "answer tokens": lambda line: number(line["mean_answer_length"], 1),
        "accuracy": accuracy,
        "less ratio 1": lambda line: points(line["less_than_full"]),
        "truncated %": lambda line: percent(line["truncated"]),
        "s each": lambda line: number(line["seconds"], 4),
    }


def _lines(result: Result, name: str) -> list[dict]:
    """The rows of a block, which say whether the model was trained on their ratio; no other block was trained."""
    trained = result.labels["trained_ratios"]
    return [{**row, "trained": row["ratio"] in trained or name in ("base", "truncation")} for row in result.rows(name)]


def draw(result: Result, ink: str = "black") -> Figure:
    """Asked against achieved, and accuracy against thinking tokens."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    colours = (COLOURS["trained"], *OTHER_COLOURS)
    for place, (name, block) in enumerate(result.blocks.items()):
        style = {"marker": "o", "markersize": 4, "label": block["title"]}
        style["color"] = COLOURS["baseline"] if name == "base" else colours[place % len(colours)]
        rows = block["rows"]
        left.plot([row["ratio"] for row in rows], [row["achieved"] for row in rows], **style)
        known = [row for row in rows if row["accuracy"] is not None]
        apart = all(row["mean_thinking_length"] is not None for row in known)
        spent = "mean_thinking_length" if apart else "mean_length"
        right.plot([row[spent] for row in known], [row["accuracy"] for row in known], **style)
    left.plot([0, 1], [0, 1], color=ink, linewidth=1, linestyle=":")
    left.set(xlabel="ratio asked for", ylabel="ratio achieved", title="Asked against achieved")
    right.set(xlabel="mean thinking tokens", ylabel="accuracy", ylim=(-0.02, 1.04), title="Accuracy against tokens")
    left.legend(fontsize=8, frameon=False, labelcolor=ink)
    for axes in (left, right):
        set_ink(axes, ink)
    return figure


RATIOS = Kind(
    title="Thinking by ratio",
    introduction=_introduction,
    columns=_columns,
    pictures={"ratios.png": Picture("Asked against achieved, and accuracy against tokens", draw)},
    upgrade=upgrade,
    lines=_lines,
    summary=summary,
)

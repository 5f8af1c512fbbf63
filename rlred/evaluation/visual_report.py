"""The result of a run on pictures: visual.{json,md,png} and positions.png."""

from matplotlib.figure import Figure

from rlred.evaluation.results import Kind, Picture, Result, accuracy, number, percent, set_ink
from rlred.evaluation.summary import few, paragraphs
from rlred.evaluation.visual import POLICY, blind_accuracy

FIXED_TITLE = "The same choice for every question"
POLICY_TITLE = "The policy's own choice for each question"


def visual(labels: dict, fixed: list[dict], policy: list[dict], *, details: dict, cost: dict | None = None) -> Result:
    """The result of each choice's rows, and of the policy's, which are held against choosing blindly."""
    policy = [{**row, "blind_accuracy": blind_accuracy(fixed, row["keep_ratio"])} for row in policy]
    blocks = {"fixed": {"title": FIXED_TITLE, "rows": fixed}, POLICY: {"title": POLICY_TITLE, "rows": policy}}
    return Result("visual", labels, blocks, {name: value for name, value in details.items() if value}, cost or {})


def upgrade(old: dict) -> Result:
    """The result that a file of the first format holds: `fixed` and `gates` by long names, each with its families."""
    wordings = old["wordings"]
    fixed = [_row(name, lines, wordings=wordings) for name, lines in old["fixed"].items()]
    policy = [_row(name, lines) for name, lines in old["gates"].items()]
    names = ("model", "seed", "wordings", "visual_weight", "steps")
    labels = {**{name: old[name] for name in names if name in old}, "n_questions": old["n"]}
    details = {name: old.get(name) for name in ("optima", "positions")}
    return visual(labels, fixed, policy, details=details, cost={"minutes": old["minutes"]} if "minutes" in old else {})


def _row(name: str, lines: dict, wordings: str | None = None) -> dict:
    """A row of the first format: "base, <look-1>" is a choice, "base, gate greedy, test wordings" the policy."""
    stage, choice, *others = name.split(", ")
    labels = {"choice": choice, "decoding": "greedy", "wordings": wordings}
    if others:
        labels = {"choice": POLICY, "decoding": choice.removeprefix("gate "), "wordings": others[0].split(" ")[0]}
    families = {family: _line(line) for family, line in lines.items() if family not in ("all", "seconds")}
    row = {"stage": stage, **labels, **_line(lines["all"]), "by_level": families}
    return row | ({"seconds": lines["seconds"]} if "seconds" in lines else {})


def _line(old: dict) -> dict:
    names = {"ratio": "keep_ratio", "tokens": "visual_tokens", "said": "mean_length"}
    line = {names.get(name, name): value for name, value in old.items() if name != "interval"}
    return line | dict(zip(("accuracy_low", "accuracy_high"), old["interval"], strict=True))


def _introduction(result: Result) -> list[str]:
    told = result.labels
    return [
        f"Model `{told['model']}`, {told['n_questions']} held-out questions per row, seed {told.get('seed')}. Accuracy "
        "in per cent with its 95 % Wilson interval; blind is the best accuracy at that keep ratio of a mixture of "
        "fixed choices that does not see the question. By family: visual tokens and accuracy."
    ]


def summary(result: Result) -> list[str]:
    """What the last policy reads of its pictures and how often it is correct, beside reading the same of each."""
    rows = result.rows(POLICY)
    if not rows:
        return []
    last = [row for row in rows if row["stage"] == rows[-1]["stage"]]
    row = next((row for row in last if row["decoding"] == "greedy"), last[0])
    said = (
        f"The policy ({row['stage']}, {row['decoding']}) reads {percent(row['keep_ratio'])} % of the visual tokens and "
        f"is correct in {accuracy(row).replace(' ', ' % ', 1)}"
    )
    if row.get("blind_accuracy") is not None:
        said += f"; the best choice that does not see the question has {percent(row['blind_accuracy'])} % at that share"
    whole = max(result.rows("fixed"), key=lambda one: one["keep_ratio"], default=None)
    if whole is not None:
        said += f", and {percent(whole['keep_ratio'], 0)} % of every picture {percent(whole['accuracy'])} %"
    return paragraphs([f"{said}."], few(result))


def _columns(result: Result) -> dict:
    rows = [row for name in result.blocks for row in result.rows(name)]
    families = dict.fromkeys(family for row in rows for family in row["by_level"])
    return {
        "stage": lambda line: line["stage"],
        "choice": _choice,
        "wordings": lambda line: line["wordings"],
        "keep ratio": lambda line: f"{line['keep_ratio']:.3f}",
        "accuracy": accuracy,
        "blind": lambda line: percent(line["blind_accuracy"]) if line.get("blind_accuracy") is not None else "",
        **{family: _family(family) for family in families},
        "mean tokens": lambda line: number(line.get("mean_length"), 1),
    }


def _choice(row: dict) -> str:
    """The policy and how its choice is drawn, or else the choice, as code: Markdown would take a token for HTML."""
    return f"policy, {row['decoding']}" if row["choice"] == POLICY else f"`{row['choice']}`"


def _family(name: str):
    def cell(row: dict) -> str:
        line = row["by_level"].get(name)
        return f"{line['visual_tokens']:.1f} tokens, {percent(line['accuracy'])} %" if line else "-"

    return cell


def _optima(result: Result) -> list[str]:
    """Where the reward is highest, by family: where a policy that learns should go."""
    found = result.details.get("optima")
    if not found:
        return []
    lines = [f"## Mean reward of each choice by family, w = {result.labels['visual_weight']:g}", ""]
    for family, values in found.items():
        lines.append(f"- {family}: " + ", ".join(f"`{choice}` {value:.3f}" for choice, value in values.items()))
    return lines


def draw_tradeoff(result: Result, ink: str = "black") -> Figure:
    """Accuracy, with its 95 % interval, against visual tokens: each fixed choice, and the policy before and after."""
    figure = Figure(figsize=(6.4, 4.2), layout="tight")
    axes = figure.subplots()
    fixed = sorted(result.rows("fixed"), key=lambda row: row["keep_ratio"])
    series = [("base, the same for all questions", fixed, "o-")]
    for row in result.rows(POLICY):
        if row["wordings"] == result.labels.get("wordings"):
            series.append((f"{row['stage']}, policy {row['decoding']}", [row], "s"))
    for label, rows, style in series:
        x, y = [row["keep_ratio"] for row in rows], [row["accuracy"] for row in rows]
        ends = [[row["accuracy"] - row["accuracy_low"] for row in rows]]
        ends += [[row["accuracy_high"] - row["accuracy"] for row in rows]]
        axes.errorbar(x, y, yerr=ends, fmt=style, capsize=3, label=label)
    axes.set(xlabel="visual tokens used, share of the whole picture's", ylabel="share of correct answers (95 %)")
    axes.legend(fontsize="small", frameon=False, labelcolor=ink)
    set_ink(axes, ink)
    return figure


def draw_positions(result: Result, ink: str = "black") -> Figure | None:
    """The map of `position_map`, with the share of each row and column against even spreading; None without one."""
    shares = result.details.get("positions")
    if not shares:
        return None
    figure = Figure(figsize=(5, 4.2), layout="tight")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="viridis", vmin=0)
    size = len(shares)
    axes.set_yticks(range(size), [f"{sum(row) / size:.2f}" for row in shares])
    axes.set_xticks(range(size), [f"{sum(row[x] for row in shares) / size:.2f}" for x in range(size)], rotation=90)
    axes.set_ylabel("share of each image row, 1 = even")
    axes.set_xlabel("share of each image column, 1 = even")
    bar = figure.colorbar(image)
    bar.set_label("selected tokens per cell, 1 = even", color=ink)
    bar.ax.tick_params(colors=ink)
    axes.tick_params(colors=ink)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(ink)
    return figure


VISUAL = Kind(
    title="Visual tokens and accuracy",
    introduction=_introduction,
    columns=_columns,
    pictures={
        "visual.png": Picture("Accuracy against visual tokens", draw_tradeoff),
        "positions.png": Picture("Where in the pictures the selected tokens lie", draw_positions),
    },
    upgrade=upgrade,
    summary=summary,
    sections=(_optima,),
)

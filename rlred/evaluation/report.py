"""The result of a sweep over budgets: adherence.{json,md,png}."""

from matplotlib.figure import Figure

from rlred.data.budgets import effort_name
from rlred.evaluation import by_difficulty, calibration
from rlred.evaluation.efficiency import CAPS, aes
from rlred.evaluation.markdown import filled, table
from rlred.evaluation.measures import MEASURES, amount, paired_difference
from rlred.evaluation.results import Kind, Picture, Result, accuracy, number, percent, set_ink
from rlred.evaluation.summary import BASE, share_of_tokens, summary

STAGES = ("baseline", "hindsight", "trained", "control_constant_length")  # of a run, in order
TITLES = {
    "baseline": BASE,
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
OLD_DETAILS = ("hindsight_start", "files", "search")  # of the first format, beside labels and stages


def adherence(
    labels: dict, measured: dict[str, dict | None], *, details: dict | None = None, cost: dict | None = None
) -> Result:
    """The result of what was measured, by stage or other name, in the order of `TITLES`.

    A block that is none of those brings its own `title`; one that cannot be held against the base, which was asked
    other questions or for something else, says `comparable: False`.
    """
    known = {name: {"title": TITLES[name], **measured[name]} for name in TITLES if measured.get(name)}
    others = {name: {"title": name, **block} for name, block in measured.items() if name not in TITLES}
    given = {name: value for name, value in (details or {}).items() if value is not None}
    return Result("adherence", labels, known | others, given, cost or {})


def upgrade(old: dict) -> Result:
    """The result that a file of the first format holds: stages and labels side by side, further blocks in `others`."""
    apart = (*TITLES, "others", "cost", *OLD_DETAILS)
    measured = {name: old[name] for name in TITLES if old.get(name)}
    for number_of, (name, block) in enumerate((old.get("others") or {}).items()):
        measured[name if name not in TITLES else f"model-{number_of}"] = {"title": name, **block}
    labels = {name: value for name, value in old.items() if name not in apart}
    details = {name: old.get(name) for name in OLD_DETAILS}
    return adherence(labels, measured, details=details, cost=old.get("cost"))


def colours(result: Result) -> dict[str, str]:
    """The colour of each block."""
    others = [name for name in result.blocks if name not in COLOURS]
    return COLOURS | {name: OTHER_COLOURS[i % len(OTHER_COLOURS)] for i, name in enumerate(others)}


def _level(row: dict) -> str:
    """What a row was asked for: a budget, an effort, or a ratio and the budget that it comes to on average."""
    if row.get("effort") is not None:
        return effort_name(row["effort"])
    if row["budget"] is None:
        return "-"
    return f"{row['ratio']:g} ({row['budget']:.1f})" if "ratio" in row else str(row["budget"])


def _columns(result: Result) -> dict:
    return {
        "mode": lambda line: line["mode"],
        "budget": _level,
        "mean tokens": lambda line: number(line["mean_length"], 1),
        "mean error": lambda line: percent(line["mean_error"]),
        "mean abs. error": lambda line: percent(line["mean_abs_error"]),
        "RMSE": lambda line: percent(line["rmse"]),
        "over budget": lambda line: percent(line["over_budget"]),
        "accuracy": accuracy,
        **{name.replace("_", " "): _own(name) for name in MEASURES},
    }


def _own(name: str):
    return lambda line: number(line.get(name))  # a result of an older version may lack it


def _lines(result: Result, name: str) -> list[dict]:
    """The rows of a block, and the mean of each mode; of nothing asked for, one row is its mean."""
    block, rows = result.blocks[name], result.rows(name)
    several = [mode for mode in block["overall"] if mode != "free" or sum(row["mode"] == mode for row in rows) > 1]
    return [*rows, *({"mode": mode, "budget": "all", **block["overall"][mode]} for mode in several)]


def _above(block: dict) -> list[str]:
    if block["rank_correlation"] is block["spread_ratio"] is None:  # no budgets to follow
        return _markers(block)
    return [
        f"Rank correlation of budget and length within a question: {number(block['rank_correlation'], 3)}. "
        f"Spread, n(largest) / n(smallest): {number(block['spread_ratio'])} "
        f"(asked: {number(block['asked_spread_ratio'])}).",
        *_markers(block),
    ]


def _introduction(result: Result) -> list[str]:
    asked = any(row["mean_abs_error"] is not None for block in result.blocks.values() for row in block["rows"])
    about = "Errors are percentages of the budget; accuracy" if asked else "Accuracy"
    about += " is a percentage with its 95 % Wilson interval."
    return [*_provenance(result), about, *_cut(result)]


def _provenance(result: Result) -> list[str]:
    told = result.labels
    if "files" not in result.details:
        return [
            f"Model `{told['model']}`, adapter `{told.get('adapter')}`, seed {told.get('seed')}, "
            f"{told['n_questions']} held-out questions per row, temperature {told.get('temperature', 1.0):g}."
        ]
    together = " in all of the files together" if len(result.details["files"]) > 1 else ""
    lines = [f"Saved predictions, {told['n_questions']} questions{together}."]
    for note in result.details["files"]:
        columns = ", ".join(f"{name} from `{column}`" for name, column in note["columns"].items())
        recorded = note["recorded_accuracy"]
        own = f" (its own record: {percent(recorded)} %)" if recorded is not None else ""
        layout = f" ({note['layout']})" if note.get("layout") else ""
        cut = "" if note.get("cut") is None else f", {note['cut']} cut before their end"
        of = f" of {note['n_questions']} questions" if together and "n_questions" in note else ""
        lines.append(
            f"- `{note['file']}`{layout}: {note['n']} predictions{of}, {_left_out(note)}, accuracy "
            f"{percent(note['accuracy'])} %{own}{cut}; {columns}"
        )
    return [*lines, ""]


def _left_out(note: dict) -> str:
    """How many rows of a file are not among the figures, and why."""
    because = {**note.get("skipped_because", {}), **note.get("lost", {})}
    if note.get("repeated"):
        because["that repeat a completion under another filter"] = note["repeated"]
    reasons = ", ".join(f"{count} {reason}" for reason, count in because.items())
    return f"{note['skipped'] + sum(note.get('lost', {}).values())} left out{f' ({reasons})' if reasons else ''}"


def _markers(block: dict) -> list[str]:
    """How true the counts are that a model writes into its thinking; nothing for one that is not to count."""
    found = block.get("markers")
    if not found:
        return []
    true = f", {percent(found['true'])} % of them true, {number(found['mean_abs_error'], 1)} tokens off on average"
    return [f"Markers: {number(found['per_completion'], 1)} per completion{true if found['per_completion'] else ''}."]


def _cut(result: Result) -> list[str]:
    """What a per_prompt_cap has done to the figures; nothing without one."""
    cap = result.labels.get("per_prompt_cap")
    if cap is None:
        return []
    shares = ", ".join(
        f"{block['title']} {percent(max(row.get('cut', 0) for row in block['rows']))}"
        for block in result.blocks.values()
    )
    return [
        f"Rows that ask for a maximum were cut at {cap:g} times it and then count as incorrect, and "
        "as long as the cap: over budget is exact, accuracy at least and tokens and errors at most what is shown; rank "
        f"correlation, spread and full length are affected. Largest share of a row cut (%): {shares}."
    ]


def _efficiency(result: Result) -> list[str]:
    """What accuracy costs in tokens, row by row; older files do not say."""
    lines = [(block, row) for block in result.blocks.values() for row in block["rows"] if "ock_score" in row]
    if not lines:
        return []
    several = any("samples" in row for _, row in lines)
    names = ("stage", "mode", "budget", "tokens, correct", "tokens, incorrect", "tokens per correct answer")
    names += ("OckScore", "AES", "repetition %")
    names += ("k", "mean@k", "pass@k", "majority accuracy") if several else ()
    cells = [_efficiency_cells(result, *line, several) for line in lines]
    return ["## Efficiency", "", *table(*filled(names, cells))]


def _efficiency_cells(result: Result, block: dict, row: dict, several: bool) -> list:
    base = next((one for one in result.rows(result.reference) if _asked(one) == _asked(row)), None)
    held = base is not None and block is not result.blocks[result.reference] and block.get("comparable", True)
    lengths = (row[name] for name in ("correct_length", "incorrect_length", "tokens_per_correct"))
    cells = [block["title"], row["mode"], _level(row), *(number(length, 1) for length in lengths)]
    cells += [number(row["ock_score"]), number(aes(base, row)) if held else "-", percent(row["repetition"])]
    if several:
        passed = row.get("pass_at_k", {}).get(str(row.get("samples")))
        shares = (row.get("mean_at_k"), passed, row.get("majority_accuracy"))
        cells += [row.get("samples", "-"), *map(percent, shares)]
    return cells


def _asked(row: dict) -> tuple:
    """What a row was asked for, to find the base's row that was asked for the same."""
    return row["mode"], row.get("ratio", amount(row))


def _spectrum(result: Result) -> list[str]:
    """Accuracy of each mode at its largest budget, where a completion over the cap counts as incorrect."""
    rows = []
    for block in result.blocks.values():
        for mode, found in block.get("spectrum", {}).items():
            shares = [percent(value) for value in found["accuracies"]]
            shares += ["-"] * (len(CAPS) - len(shares))
            areas = (percent(found["area"]), percent(block["area"].get(mode)))
            rows.append([block["title"], mode, found["caps"][0], *shares, *areas])
    if not rows:
        return []
    names = ("stage", "mode", "largest cap", *(f"1/{share}" if share > 1 else "all of it" for share in CAPS))
    about = (
        "Accuracy in per cent at the largest budget of each mode, where a completion of more tokens than the cap is "
        "incorrect. The largest cap is the longest completion of the base, or of the first file, that ended by itself. "
        "Areas are means over the logarithm of tokens: of these caps, and of the mean tokens of a mode's rows."
    )
    names = (*names, "area, caps", "area, rows")
    return ["## Accuracy under a cap", "", about, "", *table(*filled(names, rows))]


def _at_full_length(result: Result) -> list[str]:
    """What obeying costs: the base when it thinks at length, and each stage at its largest budget, same questions."""
    full = result.blocks.get("baseline", {}).get("full_length")
    if not full or full["accuracy"] is None:
        return []
    lines = ["## Accuracy at full length", ""]
    whose = "base" if result.blocks["baseline"]["title"] == BASE else f"`{result.blocks['baseline']['title']}`"
    told = f"{accuracy(full)}, {full['mean_length']:.1f} tokens"
    lines.append(f"- {whose}, the longest completion of each question: {told}")
    for stage in ("hindsight", "trained"):
        rows = [row for row in result.rows(stage) if amount(row) is not None]
        for mode in dict.fromkeys(row["mode"] for row in rows):
            row = max((row for row in rows if row["mode"] == mode), key=amount)
            lines.append(f"- {TITLES[stage]}, {mode} {_level(row)}: {accuracy(row)}, {row['mean_length']:.1f} tokens")
    return lines


def _paired(result: Result) -> list[str]:
    """Accuracy over the whole sweep, less the base's, question by question; and the share of its tokens."""
    first, lines = result.blocks.get(result.reference, {}), []
    base, of_files = first.get("by_question"), result.reference != "baseline"
    for name, block in result.blocks.items():
        if name == result.reference or not block.get("comparable", True) or not ("by_question" in block and base):
            continue
        if pair := paired_difference(base, block["by_question"]):
            low, difference, high = (f"{100 * pair[name]:+.1f}" for name in ("low", "difference", "high"))
            shares = _shares_of_questions(first, block) if of_files else _shares_of_modes(first, block)
            told = f"{difference} points ({low} to {high}), {pair['n']} questions; of its tokens: {shares or '-'}"
            lines.append(f"- {block['title']}: {told}")
    whose = "the base's" if first.get("title") == BASE else f"that of `{first.get('title')}`"
    title = f"## Accuracy over all budgets, less {whose}, paired by question (95 % interval)"
    if of_files:
        title = f"## Accuracy, less that of `{first['title']}`, paired by question (95 % interval)"
    return [title, "", *lines] if lines else []


def _shares_of_modes(first: dict, block: dict) -> str:
    """Tokens of each mode as a share of the base's."""
    spent = {mode: row["mean_length"] for mode, row in first["overall"].items()}
    lengths = {mode: row["mean_length"] for mode, row in block["overall"].items() if spent.get(mode)}
    return ", ".join(f"{mode} {percent(length / spent[mode], 0)} %" for mode, length in lengths.items())


def _shares_of_questions(first: dict, block: dict) -> str:
    """Tokens as a share of the first file's, of the questions that both have."""
    share = share_of_tokens(first["by_question"], block["by_question"])
    return "" if share is None else f"{percent(share, 0)} %"


def _what_rl_added(result: Result) -> list[str]:
    """RL held against the hindsight start that it began from: a table of differences, whichever way they go."""
    if not {"hindsight", "trained"} <= set(result.blocks):
        return []
    rows = []
    for mode in result.blocks["trained"]["overall"]:
        for stage in ("hindsight", "trained"):
            mean = result.blocks[stage]["overall"][mode]
            cells = [percent(mean[name]) for name in ("mean_abs_error", "rmse", "over_budget", "accuracy")]
            per_token = None if mean["accuracy"] is None else 100 * mean["accuracy"] / max(mean["mean_length"], 1)
            rows.append([mode, TITLES[stage], *cells, number(per_token)])
    names = ("mode", "stage", "mean abs. error", "RMSE", "over budget", "accuracy", "correct answers per 100 tokens")
    lines = ["## What RL added to the hindsight start", "", *table(*filled(names, rows))]
    start = result.details.get("hindsight_start")
    if start:
        asked = [row["budget"] for row in result.rows("trained") if row["budget"] is not None]
        below = sorted({budget for budget in asked if budget < start["shortest_trace"]})
        lines += [
            "",
            f"The traces of the hindsight start had {start['shortest_trace']} to {start['longest_trace']} tokens. "
            f"Budgets of this sweep below any of them: {', '.join(map(str, below)) or 'none'}.",
        ]
    return lines


def draw(result: Result, ink: str = "black") -> Figure:
    """Asked against used with the spread of the middle 80 %, and accuracy against tokens, for every stage."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    budgets: set[int] = set()
    colour_of = colours(result)
    for name, block in result.blocks.items():
        title, colour = block["title"], colour_of[name]
        for mode in dict.fromkeys(row["mode"] for row in block["rows"]):
            rows = [row for row in block["rows"] if row["mode"] == mode and amount(row) is not None]
            if mode == "effort":  # no number of tokens to hold it against
                style = {"color": colour, "marker": "^", "markersize": 4, "label": f"{title}, effort"}
                right.plot(*_points(row for row in rows if row["accuracy"] is not None), **style)
                continue
            if not rows:
                free = [row for row in block["rows"] if row["mode"] == mode and row["accuracy"] is not None]
                right.plot(*_points(free), color=colour, marker="x", linestyle="none", label=f"{title}, free")
                continue
            asked = [row["budget"] for row in rows]
            budgets.update(asked)
            only = len(set(block["overall"]) - {"free"}) == 1
            style = {"color": colour, "linestyle": "-" if mode == "exact" or only else "--"}
            style |= {"marker": "o", "markersize": 4, "label": title if only else f"{title}, {mode}"}
            left.plot(asked, [row["mean_length"] for row in rows], **style)
            low, high = ([row[name] for row in rows] for name in ("length_p10", "length_p90"))
            left.fill_between(asked, low, high, color=colour, alpha=0.12, linewidth=0)
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
    told = result.labels
    seed = f", seed {told['seed']}" if told.get("seed") is not None else ""
    counted = sorted({result.questions(name) for name in result.blocks})
    each = f"{counted[0]} to {counted[-1]}" if len(counted) > 1 else told["n_questions"] if not counted else counted[0]
    figure.suptitle(f"{told['model']}{seed}, {each} questions per point", fontsize=9, color=ink)
    return figure


def _points(rows) -> tuple[list[float], list[float]]:
    found = sorted((row["mean_length"], row["accuracy"]) for row in rows)
    return [length for length, _ in found], [accuracy for _, accuracy in found]


ADHERENCE = Kind(
    title="Adherence",
    introduction=_introduction,
    columns=_columns,
    pictures={"adherence.png": Picture("Asked against used, and accuracy against tokens", draw)},
    upgrade=upgrade,
    lines=_lines,
    above=_above,
    summary=summary,
    sections=(
        calibration.section,
        by_difficulty.unasked,
        by_difficulty.at_largest_maximum,
        _at_full_length,
        _paired,
        _what_rl_added,
        _efficiency,
        _spectrum,
    ),
)

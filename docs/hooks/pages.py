"""The pages that are made from the code: recipes, rewards, commands, findings of the audit, the table of methods.

`python docs/hooks/pages.py` writes the table of methods from docs/board.json into docs/choose-a-method.md, and the
address of the repository into the notebooks (docs/hooks/colab.py). All other pages are made by docs/hooks/site.py while
`make docs` builds, and lie nowhere.
"""

import ast
import json
import os
import re
from pathlib import Path
from statistics import fmean

import colab
import yaml
from formula import block

ROOT = Path(__file__).resolve().parents[2]
BOARD, CHOICE = ROOT / "docs" / "board.json", ROOT / "docs" / "choose-a-method.md"
BEGIN, END = "<!-- table: python docs/hooks/pages.py -->", "<!-- end of the table -->"
# What each method of docs/board.json needs, and when to take it.
ADVICE = {
    "shortest_correct": "The default choice: nothing to tune but a penalty per token.",
    "group_sigmoid": "As good; the penalty is bounded, so correctness always wins.",
    "length_efficiency": "You can sample the base first and want to be compared with it, question by question.",
    "kimi_length": "Bounded and parameter-free but for its weight.",
    "soft_overlong": "You have a hard limit and want a slope before it.",
    "solve_rate_penalty": "Easy questions should be shortened first.",
    "slack_length": "Accuracy must not fall: the penalty stops while it does.",
    "cosine_length": "Incorrect answers should think longer.",
    "format_diversity": "The model has several formats, and should keep the short one alive.",
    "constant_length": "A control: one constant length, not a method.",
    "laser": "A bonus within one target, which the base must reach by itself.",
    "laser_probed": "The same with a target that `rlred probe` has seen the base reach.",
    "laser_d": "A bonus within one target for each difficulty, given by hand.",
    "laser_d_searched": "The same with `target_search`: targets follow the lengths of the model's own correct answers.",
    "dler": "A cut, with an optimiser that survives it. Costs accuracy on hard questions.",
    "dler_longest": "DLER's cut where the longest need is, and uniform groups sampled anew. Shortens less.",
    "thinkprune": "A cut that tightens in stages. Costs most accuracy on hard questions.",
    "thinkprune_longest": "The same with stages that end at the longest need. Shortens less.",
    "toggle": "You have sampled the base, and want the penalty in every other phase only.",
    "gr3": "The reward itself should shrink with the length, and nothing be tuned.",
    "grpo_lead": "Hard questions should weigh more in the update.",
    "laconic": "A mean length should be kept, and the weight of length follow it.",
    "ddca": "Correctness is the only reward, and length enters among the correct answers of a group.",
    "drpo": "Correctness is the only reward, and correct answers alone should be pressed for length.",
    "length_mask": "A cut whose long correct answers are left out of the group. Costs accuracy on hard questions.",
    "lead": "The weight of length should follow the run. Shortens least of those of 2026.",
    "gdpo": "Correctness and length should be normalised apart. The weight of length is then yours to set.",
    "easy_first": "You have sampled the base, and hard questions should come last.",
    "duplicated_reasoning": "Only repetition should cost. Shortens hardly where the model does not repeat sentences.",
    "tale": "You have an adapter that keeps budgets, and no reward: supervised.",
    "correctness": "A control: the same training without a length term.",
}

# The recipe that is made for a method of the board; of the others the reward goes into shorter_better's `reward`.
RECIPES = {
    "shortest_correct": "shorter_better",
    "group_sigmoid": "efficient_reasoning",
    "length_efficiency": "o1_pruner",
    "laser": "laser",
    "laser_probed": "laser",
    "laser_d": "laser",
    "laser_d_searched": "laser",
    "dler": "dler",
    "dler_longest": "dler",
    "thinkprune": "thinkprune",
    "thinkprune_longest": "thinkprune",
    "tale": "tale",
}
NO_CURVE = {
    "laconic": "Its penalty per token is 0 in the first batch and then follows the run: there is no fixed curve.",
    "visual_sparsity": "It changes with the visual tokens used, not with the completion's length: there is no curve.",
}


# Of rewards whose docstring does not say all in its first "r = ...": pieces of it, each with where it holds.
FORMULAS = {
    "cosine_length": [("r = long + (short - long) / 2 * (1 + cos(pi * n / max_length))", "")],
    "difficulty_length": [
        ("r = c + weight * t", ""),
        ("t = max(1 - n/L, low)", "easy and correct"),
        ("t = min(n/L - 1, 1)", "hard and incorrect"),
        ("t = 0", "otherwise"),
    ],
    "effort_length": [
        ("r = over + (c - over) * s", ""),
        ("s = 1[n <= e * T]", "without alpha"),
        ("s = clip(alpha * (1 - n / (e * T)) + delta, 0, 1)", "with alpha"),
    ],
    "grpo_lead": [("exp(-alpha * z)", "for a correct answer"), ("z = (n - mean) / (std + 1e-6)", "")],
    "kimi_length": [
        ("r = c + weight * l", "for a correct answer"),
        ("c + weight * min(0, l)", "for an incorrect one"),
        ("l = 1/2 - (n - min) / (max - min)", ""),
    ],
    "laconic": [("r = c - lambda * max(0, (n - B) / B)", "")],
    "lead": [("w * z(c) + (1 - w) * z(e)", ""), ("e = max(-1, 1 - |n - L| / L)", "")],
    "request_threshold": [
        ("r = c - penalty * c * [direct]", "where r_G < threshold"),
        ("c - penalty * c * [requested]", "where r_G >= threshold"),
    ],
    "slack_length": [
        ("weight * 1/2", "where n <= min + slack"),
        ("weight * (1/2 - (n - min) / (max - min))", "else"),
    ],
    "soft_overlong": [
        ("r = c + weight * p(n)", ""),
        ("p = 0", "for n <= max_length - cache"),
        ("(max_length - cache - n) / cache", "up to max_length"),
        ("-1", "beyond"),
    ],
    "toggle": [
        ("r = c * [p < accuracy or n <= budget]", "where floor(t / every) is even"),
        ("r = c", "where it is odd"),
    ],
    "truncation": [("r = c", "for n <= limit"), ("beyond * c", "for n > limit")],
}


def formulas(name: str, docstring: str) -> list[tuple[str, str]]:
    """The formulas of a reward, each with where it holds; none of one that is said in words."""
    if name in FORMULAS:
        return FORMULAS[name]
    found = re.search(r"^r = [^\n]*?(?=, [A-Za-z]+ [A-Za-z]|\. |\.$|;|$)", docstring, re.M)
    return [(found[0].rstrip(","), "")] if found else []


def board(path: Path = BOARD) -> list[dict]:
    """The methods of the board with their means over seeds, the least loss of accuracy first.

    `points` is accuracy less that of the base of the same seeds (0 and up), `share` the length over that of the base.
    """
    runs = json.loads(path.read_text())
    rows = []
    for name, seeds in runs.items():
        base = {key: fmean(run[key] for run in runs["base"][: len(seeds)]) for key in ("accuracy", "mean_length")}
        mean = {key: fmean(run[key] for run in seeds) for key in ("accuracy", "mean_length", "easy", "hard", "minutes")}
        points = 100 * (mean["accuracy"] - base["accuracy"])
        share = 100 * mean["mean_length"] / base["mean_length"]
        rows.append({"name": name, "seeds": len(seeds), **mean, "points": points, "share": share})
    return sorted(rows, key=lambda row: (row["share"] > 65, -row["points"]))


def method_table() -> str:
    """The table of choose-a-method.md."""
    lines = [
        "| method of the board | recipe | seeds | accuracy, points against the base | tokens, % of the base's "
        "| hard / easy tokens | take it when |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in board():
        if row["name"] != "base":
            spread = row["hard"] / row["easy"]
            figures = (str(row["seeds"]), f"{row['points']:+.1f}", f"{row['share']:.0f}", f"{spread:.1f}")
            cells = (row["name"], RECIPES.get(row["name"], ""), *figures, ADVICE[row["name"]])
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def with_table(text: str) -> str:
    """The text of choose-a-method.md with the table made anew."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{method_table()}\n\n{END}{rest.partition(END)[2]}"


def escaped(text: str) -> str:
    """Prose of a docstring as Markdown: what stands outside backticks is no markup.

    >>> escaped("r = c * x_1 of `a_b`")
    'r = c \\\\* x\\\\_1 of `a_b`'
    """
    parts = re.split(r"(`[^`\n]+`)", text)
    plain = (part if part.startswith("`") else re.sub(r"([*_|\[\]])", r"\\\1", part) for part in parts)
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;") for part in plain)


def prose(text: str) -> str:
    """A docstring as Markdown: paragraphs stay, doctests, indented lines and columns become code."""
    made = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        lines = paragraph.splitlines()
        columns = sum(bool(re.search(r"\S {2,}\S", line)) or line.startswith("    ") for line in lines)
        if lines[0].startswith(">>> "):
            made.append("```pycon\n" + paragraph + "\n```")
        elif columns * 2 >= len(lines):
            made.append("```text\n" + paragraph + "\n```")
        else:
            made.append(escaped(paragraph))
    return "\n\n".join(made)


def recipes() -> dict[str, str]:
    """A page for each recipe: its docstring, its YAMLs with their own comments, and all settings once merged."""
    merged = json.loads((ROOT / "tests" / "frozen" / "recipe_settings.json").read_text())
    scripts = {path.stem: path for path in sorted((ROOT / "recipes").glob("*.py"))}
    owned: dict[str, list[str]] = {name: [] for name in scripts}
    for path in sorted((ROOT / "recipes").glob("*.yaml")):
        owned[_owner(path, scripts)].append(path.stem)
    return {name: _recipe(path, owned[name], merged) for name, path in scripts.items()}


def _owner(path: Path, scripts: dict[str, Path]) -> str:
    """The recipe of a YAML: by its name, or else the first that its comments name."""
    own = [name for name in scripts if path.stem == name or path.stem.startswith(f"{name}_")]
    named = [name for name in re.findall(r"recipes/(\w+)\.py", path.read_text()) if name in scripts]
    if not own and not named:
        raise ValueError(f"{path.name}: say in a comment of which recipe it is, as recipes/l1_exact.py")
    return max(own, key=len) if own else named[0]


def _recipe(script: Path, yamls: list[str], merged: dict) -> str:
    first, _, rest = (ast.get_docstring(ast.parse(script.read_text())) or "").partition("\n")
    made = [f"# {script.stem}", escaped(first), prose(rest)]
    for name in yamls:
        own = (ROOT / "recipes" / f"{name}.yaml").read_text().rstrip()
        made += [f"## {name}.yaml", f"```yaml\n{own}\n```"]
        if name in merged:
            settings = yaml.safe_dump(merged[name], sort_keys=True, default_flow_style=None, width=100).rstrip()
            body = "\n".join(f"    {line}" for line in ["```yaml", *settings.splitlines(), "```"])
            made.append(f'??? note "All settings with the defaults merged in"\n\n{body}')
    return "\n\n".join(made) + "\n"


def first_lines(pages: dict[str, str]) -> list[tuple[str, str]]:
    """Every page's name and its first line below the title."""
    return [(name, page.split("\n\n")[1].replace("\n", " ")) for name, page in pages.items()]


def index(title: str, about: str, pages: dict[str, str]) -> str:
    """The page before the pages."""
    lines = [f"| [`{name}`]({name}.md) | {line} |" for name, line in first_lines(pages)]
    return "\n".join([f"# {title}", "", about, "", "| name | what it does |", "|---|---|", *lines, ""])


def rewards(drawn: set[str], needs: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """A page for each reward: its docstring with the formula, its parameters, and its picture where there is one."""
    import dataclasses
    import inspect

    from rlred.rewards import REWARDS

    made = {}
    for name, kind in sorted(REWARDS.items()):
        first, _, rest = inspect.getdoc(kind).partition("\n")
        parts = [f"# {name}", escaped(first)]
        if lines := formulas(name, rest):
            parts.append(block(lines))
        if name in drawn:
            parts.append(f"![{name}: the reward against the length](images/{name}.svg)")
        else:
            parts.append(
                NO_CURVE.get(name, "The length of the completion does not change this reward: there is no curve.")
            )
        parts.append(prose(rest))
        rows = [
            f"| `{item.name}` | `{_default(item)}` |"
            for item in dataclasses.fields(kind)
            if not item.name.startswith("_")
        ]
        columns = ", ".join(f"`{column}`" for column in needs[name]) or "none"
        parts += ["| parameter | default |\n|---|---|\n" + "\n".join(rows), f"Columns of the rows: {columns}."]
        parts.append(f"In YAML: `reward: {{name: {name}}}`. In Python: `from rlred.rewards import {kind.__name__}`.")
        made[name] = "\n\n".join(parts) + "\n"
    return made


def _default(item) -> str:
    import dataclasses

    if item.default is not dataclasses.MISSING:
        return repr(item.default).replace("|", "\\|")
    return f"{item.default_factory.__name__}()" if item.default_factory is not dataclasses.MISSING else "required"


def cli() -> str:
    """The reference of the command line, from the parsers themselves."""
    from rlred.cli import COMMANDS, command_of
    from rlred.flags import described, parser_of
    from rlred.train import help_text

    os.environ["COLUMNS"] = "86"  # what the site's text column holds on a laptop
    anchor = "rlred-{}".format
    rows = [
        f"| [`rlred {name}`](#{anchor(name.replace(' ', '-'))}) | {escaped(line)} |"
        for name, line in ((name, described(command_of(name))[0].splitlines()[0]) for name in COMMANDS)
    ]
    made = [
        "# Command line",
        "Made from the parsers. `rlred COMMAND --help` prints the same.",
        "\n".join(["| command | what it does |", "|---|---|", *rows]),
    ]
    for name in COMMANDS:
        text = help_text() if name == "train" else parser_of(command_of(name), f"rlred {name}").format_help().rstrip()
        made += [f"## rlred {name}", f"```text\n{text}\n```"]
    return "\n\n".join(made) + "\n"


CHECKS = {  # where the audit's findings are, and what each file is about
    "audit": "Settings, rewards, rows and prompts",
    "advantages": "Advantages",
    "audit_efforts": "Efforts",
    "audit_weights": "Weights of length",
    "audit_probe": "A probe of the model",
}


def findings(name: str) -> list[dict]:
    """Every finding of a file of rlred/checks: level, field, advice and the evidence in the comment before it."""
    source = (ROOT / "rlred" / "checks" / f"{name}.py").read_text()
    lines = source.splitlines()
    found = []
    for function in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)):
        advice: dict[str, str] = {}
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                advice[node.targets[0].id + str(node.lineno)] = _text(node.value)
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("error", "warning"):
                if len(node.args) == 3 and (field := _text(node.args[0])):
                    text = _text(node.args[2])
                    if isinstance(node.args[2], ast.Name):
                        before = {k: v for k, v in advice.items() if re.fullmatch(rf"{node.args[2].id}(\d+)", k)}
                        near = [k for k in before if int(k.removeprefix(node.args[2].id)) < node.lineno]
                        text = before[max(near, key=lambda k: int(k.removeprefix(node.args[2].id)))] if near else ""
                    text = text or "(the reason, as the check that failed says it)"
                    line = {"level": node.func.id, "field": field, "advice": text, "line": node.lineno}
                    found.append({**line, "evidence": _evidence(lines, node.lineno, function.lineno)})
    return sorted(found, key=lambda one: one["line"])


def _text(node: ast.AST) -> str:
    """The text of a string or an f-string, with dots for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
    return ""


def _evidence(lines: list[str], line: int, first: int) -> str:
    """The comment in the ten lines before a finding, within its function and its `if`."""
    said: list[str] = []
    for text in reversed(lines[max(first, line - 12) : line - 1]):
        if text.strip().startswith("#"):
            said.insert(0, text.strip("# ").strip())
        elif said or text.strip().startswith("yield"):
            break
    return " ".join(said)


def audit() -> str:
    """The page of the audit's findings."""
    made = ["# The audit", (ROOT / "docs" / "hooks" / "audit.md").read_text().strip()]
    for name, title in CHECKS.items():
        rows = [
            f"| {one['level']} | `{one['field']}` | {escaped(one['advice'])} | {escaped(one['evidence'])} |"
            for one in findings(name)
        ]
        made += [f"## {title}", "\n".join(["| level | field | what it says | evidence |", "|---|---|---|---|", *rows])]
    return "\n\n".join(made) + "\n"


if __name__ == "__main__":
    for path in sorted(colab.NOTEBOOKS.glob("*.ipynb")):
        path.write_text(colab.with_address(path.stem, path.read_text(), colab.address()))
    CHOICE.write_text(with_table(CHOICE.read_text()))

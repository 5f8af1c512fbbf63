"""The documents: their figures are those of the files that hold them, links lead somewhere, words are the field's.

The slow tests build the site (`make docs`) and execute the notebooks; both need the extra `docs`.
"""

import ast
import importlib.util
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from statistics import fmean
from xml.etree import ElementTree

import pytest
import yaml

from rlred.checks import probe_report
from rlred.cli import command_of, find
from rlred.evaluation.page import write_page
from rlred.evaluation.results import read_result, to_markdown
from rlred.flags import parse
from rlred.rewards import REWARDS
from tests.benchmarks import reward_board
from tests.paths import ROOT

DOCS = ROOT / "docs"
README, RESULTS = ROOT / "README.md", DOCS / "results.md"
MOST_WORDS = 900
BADGE = re.compile(r"badge/(Python|TRL)-([\d.]+)")
# Pages that are written in the field's words only. The glossary and docs/style.md show the others.
PLAIN = ("README.md", *(f"docs/{name}.md" for name in ("index", "get-started", "how-it-works", "choose-a-method")))
PLAIN += tuple(f"docs/{name}.md" for name in ("results", "commands", "comparison", "log-index", "notebooks/index"))
PLAIN += ("docs/methods.md", "docs/BOARD.md")
PRIVATE = (
    r"dials?|deaf|hears?|heard|hearing|arms?|glances?|looks?|looked|units?|atomic|subjects?|Study|talker|viewer|chooser|"
    r"overthinker|right|wrong|rightly|wrongly|earns?|earned|pays?|paid|prices?|priced"
)


PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("data/*/README.md"))]
PAGES += sorted(ROOT.glob(".github/**/*.md"))
sys.path.insert(0, str(DOCS / "hooks"))  # whose modules import each other, as in MkDocs


def load(name: str):
    """A module of docs/hooks, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / "hooks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pages, formula, colab, links = (load(name) for name in ("pages", "formula", "colab", "links"))


def rows_of(text: str, header: str) -> list[list[str]]:
    """The cells of the first table whose header begins so."""
    lines = text[text.index(header) :].splitlines()[2:]
    table = lines[: next((place for place, line in enumerate(lines) if not line.startswith("|")), len(lines))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def asked(run: str, stage: str) -> dict[int, dict]:
    """The rows of a published run's stage by budget."""
    return {row["budget"]: row for row in read_result(ROOT / "data" / run).rows(stage)}


def three(row: dict) -> list[str]:
    """Mean tokens, over budget and accuracy as the tables write them."""
    return [f"{row['mean_length']:.1f}", f"{100 * row['over_budget']:.1f}", f"{100 * row['accuracy']:.1f}"]


@pytest.mark.parametrize(
    "path, header",
    [(README, "| maximum asked for"), (RESULTS, "| budget | before: mean tokens")],
    ids=["README", "results"],
)
def test_the_table_of_the_default_run_is_that_of_its_file(path, header):
    before, after = asked("l1_maxlen", "baseline"), asked("l1_maxlen", "trained")
    found = rows_of(path.read_text(), header)
    assert len(found) >= 3
    for budget, *cells in found:
        assert cells == [*three(before[int(budget)]), *three(after[int(budget)])], budget


@pytest.mark.parametrize("path", [README, RESULTS], ids=["README", "results"])
def test_the_rank_correlations_of_the_default_run_are_those_of_its_file(path):
    blocks, text = read_result(ROOT / "data" / "l1_maxlen").blocks, " ".join(path.read_text().split())
    before, after = (f"{blocks[stage]['rank_correlation']:.3f}" for stage in ("baseline", "trained"))
    assert f"within a question: {before} before" in text and f"{after} after" in text


def test_accuracy_at_the_largest_budget_is_that_of_the_base_at_full_length():
    full = read_result(ROOT / "data" / "l1_maxlen").blocks["baseline"]["full_length"]
    said = f"{100 * full['accuracy']:.1f} %"
    assert said == f"{three(asked('l1_maxlen', 'trained')[80])[2]} %"
    assert said in README.read_text() and f"{said} when it thinks to the end ({full['mean_length']:.1f} tokens" in (
        " ".join(RESULTS.read_text().split())
    )


def test_the_table_of_efforts_is_that_of_its_file():
    result = read_result(ROOT / "data" / "l1_effort")
    before, after = ({row.get("effort"): row for row in result.rows(stage)} for stage in ("baseline", "trained"))
    found = rows_of(RESULTS.read_text(), "| effort | tokens before")
    assert len(found) == len(after) == 9
    for name, *cells in found:
        effort = None if name == "nothing asked" else float(name.partition(" ")[0])
        told = [
            (f"{row['mean_length']:.1f}", f"{100 * row['accuracy']:.1f}") for row in (before[effort], after[effort])
        ]
        assert cells == [*told[0], *told[1]], name


def test_the_row_of_l1_exact_is_that_of_its_file():
    result = read_result(ROOT / "data" / "l1_exact")
    blocks = [result.blocks[stage] for stage in ("baseline", "hindsight", "trained")]
    rows = [result.rows(stage) for stage in ("baseline", "hindsight", "trained")]

    def means(name):
        return " / ".join(f"{100 * fmean(row[name] for row in stage):.1f}" for stage in rows)

    trained = {row["budget"]: f"{100 * row['accuracy']:.0f}" for row in rows[2]}
    expected = [
        " / ".join(f"{block['rank_correlation']:.2f}" for block in blocks),
        " / ".join(f"{block['spread_ratio']:.2f}" for block in blocks),
        *(means(name) for name in ("mean_abs_error", "rmse", "over_budget")),
        " / ".join(trained[budget] for budget in (16, 40, 64, 72, 76)),
    ]
    assert rows_of(RESULTS.read_text(), "| run | seed")[0][2:8] == expected


def test_the_table_of_methods_is_made_from_the_board():
    text = pages.CHOICE.read_text()
    assert pages.with_table(text) == text, "python docs/hooks/pages.py makes it anew"


def test_board_and_methods_say_what_the_board_holds():
    runs = json.loads(pages.BOARD.read_text())
    means = {
        name: {key: fmean(run[key] for run in seeds) for key in seeds[0] if seeds[0][key] is not None}
        for name, seeds in runs.items()
    }
    for name, _, accuracy, tokens, *_ in rows_of((DOCS / "BOARD.md").read_text(), "| method | seeds"):
        assert accuracy.startswith(f"{100 * means[name]['accuracy']:.1f} "), name
        assert tokens == f"{means[name]['mean_length']:.1f}", name
    said = re.findall(
        r"(\w+): ([\d.]+) % \w+ with ([\d.]+) tokens \([^)]*\), ([\d.]+) easy, ([\d.]+) hard",
        (DOCS / "methods.md").read_text(),
    )
    assert len(said) >= 10
    for name, *figures in said:
        mean = means[name]
        expected = (100 * mean["accuracy"], mean["mean_length"], mean["easy"], mean["hard"])
        assert figures == [f"{value:.1f}" for value in expected], name


@pytest.mark.parametrize("name", ["board.json", "board_sorter.json"])
def test_the_board_is_made_from_its_file(name):
    """The table of each base and its front, cell by cell as the benchmark writes them."""
    made = reward_board.to_markdown(json.loads((DOCS / name).read_text()), "").splitlines()
    text = (DOCS / "BOARD.md").read_text()
    lost = [line for line in made if line.startswith(("| ", "On the Pareto front")) and line not in text.splitlines()]
    assert len(made) > 20 and lost == []


def test_the_board_against_the_base_is_that_of_both_files():
    runs, short = (json.loads((DOCS / name).read_text()) for name in ("board.json", "board_short.json"))

    def said(board: dict, name: str) -> tuple[list[float], str]:
        """Points against the base seed by seed, and their mean with the share of the tokens."""
        if name not in board:
            return [], "-"
        own, base = board[name], board["base"][: len(board[name])]  # of the same seeds, 0 and up
        points = [100 * (a["accuracy"] - b["accuracy"]) for a, b in zip(own, base, strict=True)]
        share = fmean(run["mean_length"] for run in own) / fmean(run["mean_length"] for run in base)
        return points, f"{fmean(points):+.1f}, {100 * share:.0f} %"

    rows = rows_of((DOCS / "BOARD.md").read_text(), "| method | by seed, points")
    assert [name for name, *_ in rows] == [name for name in runs if name != "base"]
    for name, *cells in rows:
        points, mean = said(runs, name)
        assert cells == [" / ".join(f"{one:+.1f}" for one in points), mean, said(short, name)[1]], name


@pytest.mark.parametrize("folder", sorted(path.parent for path in (ROOT / "data").glob("*/adherence.json")))
def test_a_published_table_is_made_from_its_file(folder):
    assert to_markdown(read_result(folder)).strip() == (folder / "adherence.md").read_text().strip()


@pytest.mark.parametrize("path", sorted(DOCS.glob("reports/*/report.html")), ids=lambda path: path.parent.name)
def test_a_published_page_is_what_report_makes(path, tmp_path):
    """Its words and figures; the drawing of a chart follows the version of matplotlib."""

    def told(page) -> str:
        return re.sub(r"<svg.*?</svg>", "", page.read_text(), flags=re.S)

    name = path.parent.name
    made = write_page([ROOT / "data" / name], tmp_path)
    assert told(path) == told(made), f"rlred report data/{name} --output FOLDER makes it anew"


@pytest.mark.parametrize("folder", sorted(path.parent for path in DOCS.glob("probes/*/probe.json")), ids=str)
def test_the_table_of_a_probe_is_made_from_its_file(folder):
    """Where a page is older than the writer's words, its numbers are held all the same."""
    made = probe_report.to_markdown(json.loads((folder / "probe.json").read_text()))
    told = (folder / "probe.md").read_text()
    rows = [line for line in told.splitlines() if re.match(r"\| ?[\d-]", line)]
    assert len(rows) >= 5 and [line for line in rows if line not in made.splitlines()] == []


def test_the_warm_start_in_three_seeds_is_that_of_the_results():
    rows = [row for row in rows_of(RESULTS.read_text(), "| run | seed") if row[0] == "l1_exact"]
    told = rows_of((DOCS / "how-it-works.md").read_text(), "| three seeds, `l1_exact`")
    assert [[f"seed {seed}", *correlations.split(" / ")] for _, seed, correlations, *_ in rows] == told


def test_the_controls_of_the_default_run_are_those_of_its_file():
    blocks = read_result(ROOT / "data" / "l1_maxlen").blocks
    control, trained = (blocks[name]["overall"]["max"] for name in ("control_constant_length", "trained"))
    text = " ".join(RESULTS.read_text().split())
    for figure in (
        f"is correct in {100 * control['accuracy']:.1f} % on average over the budgets",
        f"exceeds {100 * control['over_budget']:.1f} % of them",
        f"is correct in {100 * trained['accuracy']:.1f} %, exceeds none, and uses {trained['mean_length']:.1f} tokens",
    ):
        assert figure in text
    assert trained["over_budget"] == 0


def test_the_board_in_a_sentence_is_true():
    best = {row["name"]: row for row in pages.board()}
    short = [row for row in best.values() if row["share"] < 60 and row["points"] > -1.05 and row["seeds"] == 3]
    assert len(short) == 9
    low, high = (f"{100 * pick(row['accuracy'] for row in short):.1f}" for pick in (min, max))
    base = best["base"]
    text = " ".join(RESULTS.read_text().split())
    assert (
        f"({low} to {high} %" in text
        and f"({base['mean_length']:.0f} tokens, {100 * base['accuracy']:.1f} % correct)" in text
    )


def prose(path) -> str:
    """The text of a page without code, link targets and comments."""
    text = re.sub(r"```.*?```|<!--.*?-->", "", path.read_text(), flags=re.S)
    text = re.sub(r"^(    .*\n)+", "", text, flags=re.M)
    return re.sub(r"`[^`\n]+`|\]\([^)]*\)", "", text)


def test_the_readme_is_short():
    assert len(README.read_text().split()) <= MOST_WORDS


def test_the_badges_name_the_versions_of_pyproject():
    told = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = dict(BADGE.findall(README.read_text(encoding="utf-8")))
    assert f'requires-python = ">={found["Python"]}"' in told and f'"trl>={found["TRL"]},' in told


@pytest.mark.parametrize("name", PLAIN)
def test_new_pages_have_no_word_of_our_own(name):
    found = re.findall(rf"[^\n]*\b(?:{PRIVATE})\b[^\n]*", prose(ROOT / name))
    assert found == [], f"docs/glossary.md has the field's words: {found}"


# What nothing of this project is called any more. The glossary explains these words, and the lab diary keeps them.
OWN = re.compile(
    r"\b(?:dials?|deaf|hears?|heard|hearing|arms?|glances?|atomic|subjects?|Study|talker|viewer|chooser|overthinker)\b"
    r"|\blook tokens?\b|\b(?:to|policy) looks?(?! for\b| like\b| at\b| up\b| alike\b| better\b)"
)
# Answers are correct or incorrect, and rewarded or penalised; a value, a column or a flag may be wrong.
GRADED = re.compile(
    r"\b(?:right|wrong) (?:answers?|completions?|ones?|traces?|samples?|totals?|chains?|words?)\b(?! line\b)"
    r"|(?:\b(?:always|stays?|answered|graded|counts? as|often|was|were|is|are|not|none|less)) (?:right|wrong)\b"
    r"(?! (?:with|for|on average|about|away|behind)\b|-)"
    r"|% (?:right|wrong)\b|\bprice[sd]?\b|(?<!\b[Ss]he )(?<!', ')\b(?:pays|paid)\b"
)
EXPLAIN = {DOCS / f"{name}.md" for name in ("LOG", "glossary", "style", "design")} | {ROOT / "CHANGELOG.md"}


@pytest.mark.parametrize("path", [path for path in PAGES if path not in EXPLAIN], ids=lambda path: path.name)
def test_no_page_calls_things_by_words_of_our_own(path):
    assert [line for line in prose(path).splitlines() if OWN.search(line)] == []


def spoken(path) -> list[tuple[int, str]]:
    """What a file of Python says to its reader or user: docstrings, comments, and messages of more than one word."""
    source = path.read_text()
    found = [(node.lineno, node.value) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    found = [(line, text) for line, text in found if isinstance(text, str) and " " in text]
    comments = ((line, text.partition("# ")[2]) for line, text in enumerate(source.splitlines(), 1))
    return [(line, re.sub(r"`[^`]*`|<[^>]*>", "", text)) for line, text in (*found, *comments)]


@pytest.mark.parametrize("room", ["rlred", "rewards", "recipes"])
def test_answers_are_correct_or_incorrect_in_every_docstring_and_message(room):
    """Also in what is made of them: reports, cards, `--help`. The field `price` of a reward is its name."""
    files = [path for path in (ROOT / room).rglob("*.py") if path.name != "names.py"]
    said = [(path, line, re.sub(r"\w+\.price\b|\bprice=", "", text)) for path in files for line, text in spoken(path)]
    found = [
        f"{path.relative_to(ROOT)}:{line}: {GRADED.search(text)[0]}" for path, line, text in said if GRADED.search(text)
    ]
    assert len(said) > 20 and found == []
    for path in (ROOT / room).rglob("*.yaml"):
        assert [line for line in path.read_text().splitlines() if GRADED.search(line.partition("# ")[2])] == [], path


@pytest.mark.parametrize("folder", ["tests/benchmarks", "docs/probes", "data"])
def test_what_is_generated_says_correct_or_incorrect(folder):
    files = [path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yaml", ".md")]
    told = {
        path: spoken(path) if path.suffix == ".py" else enumerate(path.read_text().splitlines(), 1) for path in files
    }
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path, lines in told.items()
        for line, text in lines
        if GRADED.search(text)
    ]
    assert files and found == []


@pytest.mark.parametrize(
    "text, found",
    [
        ("86.8 % right with 40 tokens", True),
        ("a wrong answer is rewarded", True),
        ("it stays right", True),
        ("a price per token", True),
        ("it pays short answers", True),
        ("a wrong value is one line", False),
        ("what would be right", False),
        ("the column on the right", False),
        ("what is wrong with a file", False),
        ("So she pays 3 + 4", False),
        ("right-padded rows", False),
    ],
)
def test_the_check_of_words_knows_a_grade_from_a_wrong_flag(text, found):
    assert bool(GRADED.search(text)) is found


@pytest.mark.parametrize("room", ["rlred", "rewards", "recipes"])
def test_no_docstring_and_no_message_calls_things_by_words_of_our_own(room):
    """Of `--help` too, which is made of docstrings and messages. What old names are called now stands in names.py."""
    files = [path for path in (ROOT / room).rglob("*.py") if path.name != "names.py"]
    found = [
        f"{path.relative_to(ROOT)}:{line}: {OWN.search(text)[0]}"
        for path in files
        for line, text in spoken(path)
        if OWN.search(text)
    ]
    assert len(files) > 10 and found == []
    for path in (ROOT / room).rglob("*.yaml"):
        assert [line for line in path.read_text().splitlines() if OWN.search(line.partition("# ")[2])] == [], path


def test_the_words_of_our_own_are_explained():
    text = (DOCS / "glossary.md").read_text()
    for word in "dial hears deaf arm Study subject units look glance talker right wrong pays earns".split():
        assert re.search(rf"\b{word}\b", text.partition("## Words that older pages use")[2]), word


def commands(path) -> list[list[str]]:
    """The words of every `rlred` command of a page that is whole."""
    text = path.read_text()
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.S) + re.findall(r"^(?:    .*\n)+", text, flags=re.M)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"\| `(rlred [^`]+)`", text)
    lines = [line.removeprefix(".venv/bin/").partition(" >> ")[0] for line in lines]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("rlred ") and "..." not in line]


@pytest.mark.parametrize("name", ["README.md", *(f"docs/{name}.md" for name in ("get-started", "commands"))])
def test_the_commands_of_a_page_are_understood(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = commands(ROOT / name)
    assert len(found) >= 4
    for _, *words in found:
        if words[:2] == ["compress", "traces"] and len(words) == 2:
            continue  # names the command
        command, rest = find(words)
        if command != "train":  # whose words are accelerate's and the recipe's
            assert parse(command_of(command), rest, command)


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and the site make it."""
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip("# ")).lower()
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", words)).strip("-")


def linked(path) -> list[tuple[str, str]]:
    """The targets and anchors of a page's links to files, outside its code."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
    text = re.sub(r"^(    .*\n)+", "", text, flags=re.M)
    return [
        (target, anchor)
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)]*)\)", re.sub(r"`[^`\n]+`", "", text))
        if "://" not in target
    ]


MADE = ("recipes/", "rewards/", "reference/cli.md", "audit.md")  # by docs/hooks, while the site is built


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_link_is_dead(path):
    folder = DOCS if path.parent.name == "hooks" else path.parent  # of what is put into a page of docs/
    for target, anchor in linked(path):
        place = (folder / target).resolve() if target else path
        inside = (
            str(place.relative_to(DOCS)) + ("/" if target.endswith("/") else "") if place.is_relative_to(DOCS) else ""
        )
        if inside.startswith(MADE):
            continue
        assert place.exists(), f"{target} is no file"
        if anchor and place.suffix == ".md":
            anchors = {slug(line) for line in place.read_text().splitlines() if line.startswith("#")}
            assert anchor in anchors, f"{target}#{anchor}: there is no such heading"


# A file of the repository, as a page writes it in code: with a folder, and an ending that ours have.
ROOMS = "rlred|rewards|recipes|tests|docs|data|accelerate_configs"
NAMED = re.compile(rf"`(?:python (?:-m )?)?((?:{ROOMS})/[\w./-]+\.(?:py|yaml|md|json|ipynb))`")
# Of files that were there on their day, and of files that somebody may add.
TOLD = {DOCS / "LOG.md", ROOT / "CHANGELOG.md", DOCS / "design.md"}


@pytest.mark.parametrize("path", [path for path in PAGES if path not in TOLD], ids=lambda path: path.name)
def test_a_file_that_a_page_names_is_there(path):
    assert [name for name in NAMED.findall(path.read_text()) if not (ROOT / name).is_file()] == []


def test_a_file_that_a_docstring_names_is_there():
    named = re.compile(r"(?<![\w/])((?:rlred|rewards|recipes|tests|docs)/[\w./-]+\.(?:py|yaml|md))(?![\w*])")
    files = [path for room in ("rlred", "rewards", "recipes") for path in (ROOT / room).rglob("*.py")]
    found = {(path, name) for path in files for name in named.findall(path.read_text())}
    lost = [(str(path.relative_to(ROOT)), name) for path, name in found if not (ROOT / name).is_file()]
    assert len(found) > 30 and lost == []


def test_every_page_is_in_the_navigation():
    def names(entry):
        for one in entry if isinstance(entry, list) else [entry]:
            yield from (name for value in one.values() for name in names(value)) if isinstance(one, dict) else [one]

    told = set(names(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    own = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md") if path.parent.name != "hooks"}
    assert own - told == set(), "name them in the nav of mkdocs.yml"
    assert {name for name in told - own if not name.startswith(MADE)} == set()


def test_the_audit_is_listed_with_its_evidence():
    found = [one for name in pages.CHECKS for one in pages.findings(name)]
    assert len(found) > 45 and all(one["advice"] for one in found)
    assert [f"{one['field']}: {one['advice']}" for one in found if len(one["evidence"]) < 30] == []
    [masked] = [one for one in found if one["field"] == "mask_truncated_completions"]
    assert masked["level"] == "error" and "TRL zeroes the loss" in masked["evidence"]


def test_the_formulas_of_rewards_are_those_of_their_docstrings():
    said = {name: pages.formulas(name, inspect.getdoc(kind)) for name, kind in REWARDS.items()}
    assert set(pages.FORMULAS) <= set(REWARDS)
    for name, lines in said.items():
        text = " ".join(inspect.getdoc(REWARDS[name]).split())
        for formula, when in lines:
            assert " ".join(formula.split()) in text and when in text, f"{name}: {formula}"
    without = {name for name, lines in said.items() if not lines}
    assert without == {"by_mode", "correctness", "exact_match", "length_bonus", "thinkless"}  # said in words alone


def test_a_formula_is_drawn():
    drawn = formula.mathml("r = c * (1 + (G / F - 1) * cos(pi t / T) / 2)")
    xml = ElementTree.fromstring(f"<math>{drawn}</math>".replace("&nbsp;", " "))
    assert "".join(xml.itertext()) == "r=c·(1+(GF−1)·cos(πtT)2)" and len(list(xml.iter("mfrac"))) == 3
    assert "<mo>(</mo>" not in formula.mathml("(a - b) / (c - d)")  # the fraction's line does that
    assert formula.mathml("(a) * (b) / 2").count("<mo>(</mo>") == 2
    for wrong in ("a * (b", "a +", "a ) b", "clip(a, "):
        with pytest.raises(ValueError, match="formula"):
            formula.mathml(wrong)


@pytest.mark.parametrize("path", sorted((DOCS / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_opens_anywhere(path):
    """It finds the clone that it lies in, or clones an address, which has its Colab link in a badge."""
    text = path.read_text()
    held = re.search(r'REPOSITORY = \\"(.*?)\\"', text)[1]
    assert colab.with_address(path.stem, text, held) == text, "python docs/hooks/pages.py writes it anew"
    assert held == (colab.declared() or held)
    moved = colab.with_address(path.stem, text, "https://github.com/me/it")
    link = f"https://colab.research.google.com/github/me/it/blob/main/docs/notebooks/{path.stem}.ipynb"
    first = json.loads(moved)["cells"][0]["source"]
    assert first[0].startswith("# ") and link in first[2] and 'REPOSITORY = \\"https://github.com/me/it\\"' in moved
    assert colab.with_address(path.stem, moved, "https://github.com/me/it") == moved
    assert colab.with_address(path.stem, moved, held) == text
    assert "Open in Colab" not in colab.with_address(path.stem, text, "https://git.example.org/me/it")


@pytest.mark.parametrize(
    "origin, address",
    [
        ("https://github.com/me/it", "https://github.com/me/it"),
        ("git@github.com:me/it.git", "https://github.com/me/it"),
        ("https://git.example.org/me/it", ""),
        (None, ""),
    ],
)
def test_a_clone_from_github_knows_its_address(origin, address, tmp_path):
    """Its page of notebooks has a link to Colab for each, and a clone from elsewhere has none."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "it"\n')
    assert colab.address(tmp_path) == ""
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    if origin:
        subprocess.run(["git", "remote", "add", "origin", origin], cwd=tmp_path, check=True)
    assert colab.address(tmp_path) == address
    page = colab.with_links((DOCS / "notebooks" / "index.md").read_text(), address)
    count = page.count("https://colab.research.google.com/github/me/it/blob/main/docs/notebooks/")
    assert count == (len(list((DOCS / "notebooks").glob("*.ipynb"))) if address else 0)
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "it"\n[project.urls]\nRepository = "https://github.com/they/it.git"\n'
    )
    assert colab.address(tmp_path) == "https://github.com/they/it"


def test_every_recipe_has_a_page_with_its_yaml():
    made = pages.recipes()
    assert set(made) == {path.stem for path in (ROOT / "recipes").glob("*.py")}
    assert "## l1_maxlen_r1_1.5b.yaml" in made["l1_maxlen"] and "budget_high: 4000" in made["l1_maxlen"]


def test_prose_of_a_docstring_is_no_markup():
    text = 'r = a * b_1 of `x_y`.\n\n>>> rows[0]["n"]\n1\n\nCPU    python x.py\nGPU    python y.py'
    assert pages.prose(text) == (
        'r = a \\* b\\_1 of `x_y`.\n\n```pycon\n>>> rows[0]["n"]\n1\n```\n\n'
        "```text\nCPU    python x.py\nGPU    python y.py\n```"
    )


def needs(*modules: str) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"pip install -e '.[docs]' first: {', '.join(missing)} is missing")


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    needs("mkdocs", "material", "mkdocstrings")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name in (
        "index.html",
        "rewards/max_length/index.html",
        "recipes/l1_exact/index.html",
        "reference/cli/index.html",
    ):
        assert (tmp_path / "site" / name).is_file()
    assert links.dead_links(tmp_path / "site") == []


def test_a_dead_link_of_a_site_is_found(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "index.html").write_text('<h1 id="top">A</h1><img src="../b.png"><a href="#top">up</a>')
    (tmp_path / "index.html").write_text('<a href="a/#top">A</a><a href="a/#low">A</a><a href="c/">C</a>')
    assert sorted(links.dead_links(tmp_path)) == ["a/index.html: ../b.png", "index.html: a/#low", "index.html: c/"]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in (DOCS / "notebooks").glob("*.ipynb")))
def test_a_notebook_runs(name):
    needs("nbclient", "ipykernel")
    import nbclient
    import nbformat

    book = nbformat.read(DOCS / "notebooks" / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(book, timeout=900, resources={"metadata": {"path": str(DOCS / "notebooks")}}).execute()

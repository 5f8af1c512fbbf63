"""One form for the results of every kind of run: NAME.json for programs, NAME.md for readers, NAME.png the picture.

Result          labels, blocks of rows, details, cost: all that a JSON file holds
Kind            what one kind of run supplies: title, columns, pictures, and how its older files are read
write_result    writes the files of a result, JSON last: where that is, the others are
read_result     reads NAME.json of this version or an older one
to_markdown     the page of a result

docs/measures.md, "One form of results", describes the JSON.
"""

import dataclasses
import itertools
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib.figure import Figure

from rlred.evaluation.markdown import filled, table
from rlred.files import read_record, write_json, write_text

FORMAT = 2  # 1: the files of before, one form for each kind
KINDS = {  # NAME of the files -> `module:KIND`
    "adherence": "rlred.evaluation.report:ADHERENCE",
    "interruptions": "rlred.evaluation.interruption_report:INTERRUPTIONS",
    "ratios": "rlred.compression.ratio_report:RATIOS",
    "visual": "rlred.evaluation.visual_report:VISUAL",
}
FIELDS = ("labels", "blocks", "details", "cost")


@dataclass(frozen=True)
class Result:
    """What a run has measured.

    `labels` hold for all of it: `model` and `n_questions` at least, most often adapter, seed and temperature. A block
    is a stage, a model or a control: its `title`, its `rows`, and measures of the whole block. Every row begins with
    `measures.summary`. `details` are what stands in no row, by name; `cost` what was spent.

    Raises `ValueError` for an unknown kind, a missing label, and a block without title or rows.
    """

    kind: str
    labels: dict
    blocks: dict[str, dict]
    details: dict = field(default_factory=dict)
    cost: dict = field(default_factory=dict)

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind: {self.kind!r} is no kind of result; there are {', '.join(KINDS)}")
        for name in FIELDS:
            if not isinstance(getattr(self, name), dict):
                raise ValueError(f"{name}: must be a mapping, got {type(getattr(self, name)).__name__}")
        for name in ("model", "n_questions"):
            if name not in self.labels:
                raise ValueError(f"labels: {name!r} is missing")
        for name, block in self.blocks.items():
            if not isinstance(block, dict) or not block.get("title") or not isinstance(block.get("rows"), list):
                raise ValueError(f"blocks: {name!r} needs a title and a list of rows")

    def rows(self, block: str) -> list[dict]:
        """The rows of a block; none where it was not measured."""
        return self.blocks.get(block, {"rows": []})["rows"]

    @property
    def reference(self) -> str:
        """The block that the others are held against: the base's, or the first of several files of predictions."""
        return self.details.get("held_against", "baseline")

    def questions(self, block: str) -> int:
        """How many questions a block answers; those of the whole result where the block does not say."""
        return self.blocks[block].get("n_questions", self.labels["n_questions"])

    def plain(self) -> dict:
        """What the JSON file holds."""
        return {"format": FORMAT, "kind": self.kind, **{name: getattr(self, name) for name in FIELDS}}


@dataclass(frozen=True)
class Picture:
    """A picture of a result: what is under it, and the function of result and ink that draws it, or says None."""

    caption: str
    draw: Callable[[Result, str], Figure | None]


@dataclass(frozen=True)
class Kind:
    """How one kind of result is shown. Its functions take the result.

    `columns` gives the heading of every column and the function from a line to its cell; `lines` the lines of a block's
    table, its rows unless there are more; `above` the text above that table; `sections` what comes after the blocks,
    and `summary` the paragraphs that the page begins with.
    `upgrade` makes a result of the JSON of an older version; it may raise anything where that is none.
    """

    title: str
    introduction: Callable[[Result], list[str]]
    columns: Callable[[Result], dict[str, Callable[[dict], object]]]
    pictures: dict[str, Picture]
    upgrade: Callable[[dict], Result]
    lines: Callable[[Result, str], list[dict]] = Result.rows
    above: Callable[[dict], list[str]] = lambda block: []
    summary: Callable[[Result], list[str]] = lambda result: []
    sections: tuple[Callable[[Result], list[str]], ...] = ()


def kind_of(result: Result) -> Kind:
    """How a result is shown."""
    return pkgutil.resolve_name(KINDS[result.kind])


def to_markdown(result: Result, summary: bool = True) -> str:
    """The page of a result: what it comes to, a table for each block, then the sections of its kind and the cost.

    The tables have the same columns, those that a row of one of them fills.
    """
    kind = kind_of(result)
    columns = kind.columns(result)
    said = kind.summary(result) if summary else []
    lines = [f"# {kind.title}", "", *(line for text in said for line in (text, "")), *kind.introduction(result)]
    cells = {
        name: [[cell(line) for cell in columns.values()] for line in kind.lines(result, name)] for name in result.blocks
    }
    names, rows = filled(list(columns), itertools.chain(*cells.values()))
    for name, block in result.blocks.items():
        above = kind.above(block)
        lines += ["", f"## {capital(block['title'])}", "", *above, *([""] if above else [])]
        lines += table(names, [rows.pop(0) for _ in cells[name]])
    for section in kind.sections:
        found = section(result)
        lines += ["", *found] if found else []
    spent = [f"- {name.replace('_', ' ')}: {value}" for name, value in result.cost.items() if value is not None]
    return "\n".join([*lines, *(["", "## Cost", "", *spent] if spent else [])]) + "\n"


def write_result(result: Result, folder: Path) -> None:
    """Writes NAME.md, the pictures and NAME.json into `folder`, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{result.kind}.md", to_markdown(result))
    for name, picture in kind_of(result).pictures.items():
        figure = picture.draw(result, "black")
        if figure is not None:
            save_figure(figure, folder / name)
    write_json(folder / f"{result.kind}.json", result.plain())


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as a PNG file, whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, dpi=130, format="png", facecolor="white")
    temporary.replace(path)


def read_result(folder: Path, kind: str = "adherence") -> Result:
    """A result that this version or an older one has written into `folder`.

    Raises `ValueError` where there is none, and for a file that is none.
    """
    path = folder / f"{kind}.json"
    if not path.is_file():
        raise ValueError(f"{folder}: there is no {path.name}")
    told = read_record(path)
    try:
        return _result_of(told, kind)
    except ValueError as problem:
        raise ValueError(f"{path}: {problem}") from None


def _result_of(told: dict, kind: str) -> Result:
    if "format" not in told:
        try:
            return _named_by_file(pkgutil.resolve_name(KINDS[kind]).upgrade(told))
        except (KeyError, TypeError, AttributeError, IndexError) as problem:
            raise ValueError(f"is no result of this version or an older one ({problem!r})") from None
    if told["format"] != FORMAT:
        raise ValueError(f"format: {told['format']!r} cannot be read, only {FORMAT}; a newer rlred may have written it")
    if told.get("kind") != kind:
        raise ValueError(f"kind: {told.get('kind')!r} in a file for {kind!r}")
    missing = [name for name in FIELDS if name not in told]
    if missing:
        raise ValueError(f"{missing[0]!r} is missing")
    return _named_by_file(Result(kind, **{name: told[name] for name in FIELDS}))


def _named_by_file(result: Result) -> Result:
    """A result in which the first of several files of predictions is called `file-1`; once it was `baseline`."""
    if "files" not in result.details or "baseline" not in result.blocks:
        return result
    blocks = {("file-1" if name == "baseline" else name): block for name, block in result.blocks.items()}
    for block in blocks.values():
        block.setdefault("n_questions", len(block.get("by_question") or {}) or result.labels["n_questions"])
    return dataclasses.replace(result, blocks=blocks, details={**result.details, "held_against": "file-1"})


def results_in(folder: Path) -> list[Result]:
    """Every result that a run has left, in the order of `KINDS`."""
    return [read_result(folder, kind) for kind in KINDS if (folder / f"{kind}.json").is_file()]


def capital(title: str) -> str:
    """A title at the beginning of a sentence; a folder's name stays as it is.

    >>> capital("after RL"), capital("data/l1_exact")
    ('After RL', 'data/l1_exact')
    """
    return title[:1].upper() + title[1:] if title.split(" ")[0].strip(",:").isalpha() else title


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage; a dash for what was not measured."""
    return "-" if value is None else f"{100 * value:.{digits}f}"


def number(value: float | None, digits: int = 2) -> str:
    """A number with fixed digits; a dash for what was not measured."""
    return "-" if value is None else f"{value:.{digits}f}"


def accuracy(line: dict) -> str:
    """The accuracy of a line in per cent, with its interval where the line has one; a dash where nothing was graded.

    >>> accuracy({"accuracy": 0.5, "accuracy_low": 0.25, "accuracy_high": 0.75})
    '50.0 (25.0-75.0)'
    """
    if line["accuracy"] is None or line.get("accuracy_low") is None:
        return percent(line["accuracy"])
    return f"{percent(line['accuracy'])} ({percent(line['accuracy_low'])}-{percent(line['accuracy_high'])})"


def points(pair: dict | None) -> str:
    """A paired difference in points, with its interval; empty where there is none.

    >>> points({"difference": 0.05, "low": -0.01, "high": 0.11})
    '+5.0 (-1.0 to +11.0)'
    """
    if pair is None:
        return ""
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * pair[name] for name in ("difference", "low", "high")))


def set_ink(axes, ink: str) -> None:
    """The colour of everything on the axes that is not data."""
    axes.grid(alpha=0.25)
    axes.tick_params(colors=ink)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(ink)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(ink)

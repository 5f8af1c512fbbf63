"""Question rows of any number in one table: parsed block by block, and from `IN_MEMORY` rows on kept on the disk.

    simple      the rows of a block whose question and answer can be read off at once, by Arrow
    parse_block the columns of a block, its other rows parsed one by one
    Rows        the rows of a data set one by one, in place of a list of them all
    Blocks      collects blocks of rows and makes one data set of them, each column of one type

What is on the disk is mapped, lies in the cache of `datasets`, and is removed when the program ends; what a program
that was killed has left there, the next one removes.
"""

import atexit
import itertools
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import datasets
import pyarrow
import pyarrow.compute as pc
from datasets import Dataset

from rlred.data.golds import NO_ANSWER, clean, is_missing

BLOCK = 10_000  # rows
IN_MEMORY = 50_000  # rows up to which no file is written
SOUND = r"\A[\pL\pN\pP\pS]\z"  # a character that str.strip leaves
# Answers that are what they say: a number behind the last ####, in the one box, or a short text by itself.
TAIL = 80  # characters in which the first of them stands, at the end of the text
AFTER_MARK = r"####[ ]*(?P<answer>-?[0-9][0-9,./%]{0,40})[ \n]{0,9}\z"
BOXED = r"(?s)(?:\A|[^\\])\\boxed\{(?P<answer>[-0-9A-Za-z+*/=.,()^]{1,60})\}[^{}\\]*\z"
SHORT = r"\A(?P<answer>[-+$\\0-9A-Za-z(.](?:[ -z]{0,60}[0-9A-Za-z)$%])?)\z"
BOX = r"\\f?box"  # not the word: word problems have boxes of their own
SAYS_MORE = r"(?i)answer|####|box"
NOTHING = pyarrow.scalar(None, pyarrow.string())


def simple(questions: pyarrow.Array, golds: pyarrow.Array) -> tuple[pyarrow.Array, pyarrow.Array]:
    r"""Questions and final answers that need no parsing; None in both where one of them does.

    It is what `rlred.data.questions` would make of them, row by row.

    >>> texts = pyarrow.array(["1+1?", " 2+2? ", "3?", "4?"]), pyarrow.array(["a\n#### 2", r"$\boxed{4}$.", "n/a", "8"])
    >>> [column.to_pylist() for column in simple(*texts)]
    [['1+1?', '2+2?', None, '4?'], ['2', '4', None, '8']]
    """
    asked = pc.utf8_trim(questions, characters=" \t\r\n")
    first, last = pc.utf8_slice_codeunits(asked, 0, 1), pc.utf8_slice_codeunits(asked, -1)
    maybe_json = pc.is_in(first, value_set=pyarrow.array(["[", "{"]))
    sound = pc.and_(pc.match_substring_regex(first, SOUND), pc.match_substring_regex(last, SOUND))
    # Whole numbers, or texts.
    answers = _answers(golds) if pyarrow.types.is_string(golds.type) else pc.cast(golds, pyarrow.string())
    known = pc.fill_null(pc.and_(pc.and_(sound, pc.invert(maybe_json)), pc.is_valid(answers)), False)
    return pc.if_else(known, asked, NOTHING), pc.if_else(known, answers, NOTHING)


def _answers(golds: pyarrow.Array) -> pyarrow.Array:
    golds = pc.if_else(pc.match_substring(golds, "think>"), NOTHING, golds)
    marked, boxes = pc.match_substring(golds, "####"), pc.count_substring_regex(golds, BOX)
    tails = _where(pc.and_(marked, pc.equal(boxes, 0)), pc.utf8_slice_codeunits(golds, -TAIL))
    after = _taken(tails, AFTER_MARK)
    boxed = _taken(_where(pc.and_(pc.invert(marked), pc.equal(boxes, 1)), golds), BOXED)
    boxed = _where(pc.match_substring_regex(boxed, "[0-9]"), boxed)
    plain = _where(pc.less(pc.utf8_length(golds), TAIL), golds)
    plain = _where(pc.invert(pc.match_substring_regex(plain, SAYS_MORE)), pc.utf8_trim(plain, characters=" "))
    short = _taken(plain, SHORT)
    none = pc.is_in(pc.utf8_lower(short), value_set=pyarrow.array(NO_ANSWER))
    short = _where(pc.and_(pc.match_substring_regex(short, "[0-9A-Za-z]"), pc.invert(none)), short)
    return pc.coalesce(after, boxed, short)


def _where(mask: pyarrow.Array, texts: pyarrow.Array) -> pyarrow.Array:
    return pc.if_else(pc.fill_null(mask, False), texts, NOTHING)


def _taken(texts: pyarrow.Array, pattern: str) -> pyarrow.Array:
    return pc.struct_field(pc.extract_regex(texts, pattern), "answer")


def parse_block(
    block: pyarrow.Table | list[dict], layout, carried: Sequence[str], parse_row: Callable, most: int | None
) -> tuple[dict[str, Sequence | pyarrow.Array], dict[str, list[int]], int]:
    """The columns of a block's question rows, the places of those that are skipped by reason, and their number.

    `parse_row` makes a row, or says why it is skipped; it is asked where `simple` does not know. After `most` rows the
    rest is not looked at.
    """
    questions, solutions = _read_off(block, layout)
    others = {name: _values(block, name) for name in carried}
    rest = pc.indices_nonzero(questions.is_null()).to_pylist()
    if not rest and (most is None or len(questions) <= most):
        told = {name: one_type(values) for name, values in others.items()}
        return {"question": questions, "solution": solutions, **told}, {}, len(questions)
    questions, solutions = questions.to_pylist(), solutions.to_pylist()
    systems: list[str | None] = [None] * len(questions)
    reasons: dict[int, str] = {}
    chosen = pyarrow.array(rest, pyarrow.int64())
    taken = block.take(chosen).to_pylist() if isinstance(block, pyarrow.Table) else [block[place] for place in rest]
    for place, row in zip(rest, taken, strict=True):
        found = parse_row(row, layout)
        if isinstance(found, str):
            reasons[place] = found
        else:
            questions[place], solutions[place], systems[place] = (found[n] for n in ("question", "solution", "system"))
    kept = [place for place in range(len(questions)) if place not in reasons][:most]
    last = kept[-1] if most is not None and len(kept) == most else len(questions)
    skipped: dict[str, list[int]] = {}
    for place, reason in reasons.items():
        if place < last:
            skipped.setdefault(reason, []).append(place)
    columns = {"question": questions, "solution": solutions, **others}
    columns = {name: [values[place] for place in kept] for name, values in columns.items()}
    if any(isinstance(solution, list) for solution in columns["solution"]):
        columns["solution"] = [[one] if isinstance(one, str) else one for one in columns["solution"]]
    told = {name: one_type(columns[name]) for name in carried}
    system = {"system": [systems[place] for place in kept]} if any(systems[place] for place in kept) else {}
    return {**columns, **told, **system}, skipped, len(kept)


def _read_off(block, layout) -> tuple[pyarrow.Array, pyarrow.Array]:
    """Questions and solutions that are `simple`, None where they are not."""
    unknown = pyarrow.nulls(len(block), pyarrow.string())
    more = layout.options or layout.before or layout.after or not layout.golds
    names = block.column_names if isinstance(block, pyarrow.Table) else {name for row in block for name in row}
    if more or not {layout.question, layout.golds[0]} <= set(names) or {"system", "is_multiple_answer"} & set(names):
        return unknown, unknown
    found = [_texts(block, name) for name in (layout.question, layout.golds[0])]
    if None in found or not pyarrow.types.is_string(found[0].type):
        return unknown, unknown
    return simple(*found)


def _texts(block, name: str) -> pyarrow.Array | None:
    """A column of texts or whole numbers; None for any other. Of rows, what is no text is left out."""
    if not isinstance(block, pyarrow.Table):
        values = [row.get(name) for row in block]
        try:
            return pyarrow.array([value if isinstance(value, str) else None for value in values], pyarrow.string())
        except UnicodeEncodeError:  # halves of surrogate pairs
            return None
    kind = block.schema.field(name).type
    if pyarrow.types.is_large_string(kind) or pyarrow.types.is_string(kind):
        return pyarrow.concat_arrays(block[name].cast(pyarrow.string()).chunks)
    return pyarrow.concat_arrays(block[name].chunks) if pyarrow.types.is_integer(kind) else None


def _values(block, name: str) -> list:
    return block[name].to_pylist() if isinstance(block, pyarrow.Table) else [row.get(name) for row in block]


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < 2**53


def one_type(values: Sequence) -> list:
    """Numbers, or lists of them, as they are where all are such, else text: a column of a table cannot mix them.

    >>> one_type([1, 2.5, None]), one_type([1, "Level 5", None]), one_type([[12, 20], [], None])
    ([1, 2.5, None], ['1', 'Level 5', None], [[12, 20], [], None])
    """
    lists = [value for value in values if value is not None]
    if lists and all(isinstance(value, list) and all(map(_is_number, value)) for value in lists):
        return list(values)
    values = [None if is_missing(value) else value for value in values]
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} and all(map(_is_number, (value for value in values if value is not None))):
        return values
    return [value if value is None else clean(str(value)) for value in values]


def uniform(rows: list[dict]) -> list[dict]:
    """Question rows with solutions of one type: text, or lists in all of them where one has several alternatives.

    >>> uniform([{"solution": "1"}, {"solution": ["2", "3"]}])
    [{'solution': ['1']}, {'solution': ['2', '3']}]
    """
    if not any(isinstance(row.get("solution"), list) for row in rows):
        return rows
    return [{**row, "solution": [row["solution"]]} if isinstance(row.get("solution"), str) else row for row in rows]


class Blocks:
    """Blocks of question rows; each is a mapping from columns to equally long lists or arrays.

    They are numbered (`question_id`) as they come, unless they bring numbers of their own.
    """

    def __init__(self):
        self.parts: list[pyarrow.Table | Path] = []
        self.schemas: list[pyarrow.Schema] = []
        self.rows = 0
        self.folder: Path | None = None

    def add(self, columns: dict[str, Sequence | pyarrow.Array]) -> None:
        """Adds a block, which goes to the disk where there are many rows already."""
        made = {name: v if isinstance(v, pyarrow.Array) else pyarrow.array(v) for name, v in columns.items()}
        count = len(next(iter(made.values())))
        numbers = pyarrow.array(range(self.rows, self.rows + count), pyarrow.int64())
        part = pyarrow.table({"question_id": numbers} | made)
        self.rows += count
        self.parts.append(part)
        self.schemas.append(part.schema)
        if self.rows > IN_MEMORY:
            self.folder = self.folder or new_folder()
            self.parts = [part if isinstance(part, Path) else self._kept(part) for part in self.parts]

    def _kept(self, part: pyarrow.Table) -> Path:
        path = self.folder / f"{next(_numbers)}.arrow"
        with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, part.schema) as writer:
            writer.write_table(part)
        return path

    def dataset(self) -> Dataset:
        """All rows, each column of one type."""
        names = list(dict.fromkeys(name for schema in self.schemas for name in schema.names))
        kinds = {name: common_type([_type_in(schema, name) for schema in self.schemas]) for name in names}
        wanted = pyarrow.schema(kinds)
        for place, (part, schema) in enumerate(zip(self.parts, self.schemas, strict=True)):
            if schema != wanted:
                part = pyarrow.ipc.open_stream(part.read_bytes()).read_all() if isinstance(part, Path) else part
                part = pyarrow.table({name: as_type(_column_in(part, name), kind) for name, kind in kinds.items()})
                self.parts[place] = self._kept(part) if self.folder else part
        if self.folder is None:
            return Dataset(pyarrow.concat_tables(self.parts))
        return datasets.concatenate_datasets([Dataset.from_file(str(path)) for path in self.parts])


_numbers = itertools.count()


def _type_in(schema: pyarrow.Schema, name: str) -> pyarrow.DataType:
    return schema.field(name).type if name in schema.names else pyarrow.null()


def _column_in(part, name: str):
    return part.column(name) if name in part.column_names else pyarrow.chunked_array([pyarrow.nulls(len(part))])


def common_type(kinds: Sequence[pyarrow.DataType]) -> pyarrow.DataType:
    """The type that holds values of all these: numbers stay numbers, a list and a text are lists of texts.

    >>> common_type([pyarrow.null(), pyarrow.int64(), pyarrow.float64()])
    DataType(double)
    >>> common_type([pyarrow.string(), pyarrow.list_(pyarrow.string())])
    ListType(list<item: string>)
    """
    kinds = list(dict.fromkeys(kind for kind in kinds if not pyarrow.types.is_null(kind)))
    if len(kinds) < 2:
        return kinds[0] if kinds else pyarrow.null()
    lists = [kind.value_type for kind in kinds if pyarrow.types.is_list(kind)]
    texts = any(pyarrow.types.is_string(kind) for kind in kinds)
    if lists and (len(lists) == len(kinds) or texts and all(pyarrow.types.is_string(kind) for kind in lists)):
        return pyarrow.list_(common_type(lists))
    if all(pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) for kind in kinds):
        return pyarrow.float64()
    return pyarrow.string()


def as_type(column: pyarrow.ChunkedArray, kind: pyarrow.DataType) -> pyarrow.Array:
    """A column in the type that all blocks have in common."""
    if column.type == kind:
        return pyarrow.concat_arrays(column.chunks)
    values = column.to_pylist()
    if pyarrow.types.is_string(kind):
        values = [value if value is None else clean(str(value)) for value in values]
    elif pyarrow.types.is_list(kind):
        values = [value if value is None or isinstance(value, list) else [value] for value in values]
    return pyarrow.array(values, kind)


class Rows(Sequence):
    """The rows of a data set as a sequence of dicts, of which none is made before it is asked for.

    >>> rows = Rows(Dataset.from_list([{"question": "1+1?"}, {"question": "2+2?"}]))
    >>> rows[1], rows[:1], len(list(rows))
    ({'question': '2+2?'}, [{'question': '1+1?'}], 2)
    """

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self.dataset[place] for place in range(len(self))[index]]
        return self.dataset[index]

    def __iter__(self) -> Iterator[dict]:
        for block in self.dataset.with_format("arrow").iter(1000):
            yield from block.to_pylist()


def shared_questions(one: Dataset, two: Dataset) -> int:
    """How many questions stand in both of two data sets, each counted once; the larger is read block by block."""
    small, large = sorted((one, two), key=len)
    sought, found = pyarrow.array(set(small["question"]), pyarrow.string()), set()
    for block in large.select_columns(["question"]).with_format("arrow").iter(BLOCK):
        column = block["question"].cast(pyarrow.string())
        found.update(column.filter(pc.is_in(column, value_set=sought)).to_pylist())
    return len(found)


# --- where the files lie


def new_folder() -> Path:
    """A folder in the cache of `datasets` that goes when this program ends."""
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    remove_left(cache)
    folder = cache / f"rlred-{_here()}-{os.getpid()}-{next(_numbers)}"
    folder.mkdir(parents=True, exist_ok=True)
    owner = os.getpid()
    # A fork of this process, such as a worker that loads rows, must leave it.
    atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == owner else None)
    return folder


def remove_left(cache: Path) -> None:
    """Removes what programs of this host have left that are gone."""
    for folder in cache.glob("rlred-*"):
        place, _, pid = folder.name.rpartition("-")[0].rpartition("-")
        gone = pid.isdigit() and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists()
        if place == f"rlred-{_here()}" and gone:
            shutil.rmtree(folder, ignore_errors=True)


def _here() -> str:
    """The host, and the space of process ids in which a number means a program: containers may share the name."""
    try:
        space = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        space = "0"
    return f"{socket.gethostname()}-{space}"

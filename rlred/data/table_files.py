"""Rows of the table files that other programs write: JSON, JSON Lines, CSV and Parquet, each also gzipped.

    read_rows(Path("test.jsonl.gz"))    [{"question": "1+1=?", "answer": "2"}, ...]

Values stay as the file has them: nested ones are dicts and lists, `NaN` is a float, and a CSV cell is a number only
where that number is spelled exactly so ("14" but not "014" or "1e3"); an empty cell is None.
"""

import csv
import gzip
import io
import json
import os
import pkgutil
import sys
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet

# By ending: what is read here, or `module:function` that makes rows of the text, the path and the split.
FORMATS = {
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".csv": "csv",
}
LARGE = 32 * 2**20  # bytes from which a file of JSON Lines is not held in memory
SPLITS = ("train", "test", "validation", "valid", "val", "dev", "eval")
LISTS_OF_ROWS = (*SPLITS, "data", "rows", "examples", "questions", "problems", "items", "instances")
TEXTS_OF_A_ROW = ("question", "problem", "prompt", "query", "instruction", "input", "completion", "response", "output")


def kind_of(path: Path) -> str | None:
    """`json`, `csv` or `parquet` by the name of the file, `.gz` apart; None for any other.

    >>> kind_of(Path("a/test.JSONL.gz")), kind_of(Path("notes.txt"))
    ('json', None)
    """
    name = path.name.lower()
    return FORMATS.get(Path(name.removesuffix(".gz")).suffix)


def read_rows(path: Path, split: str | None = None) -> list[dict]:
    """All rows of a file.

    A JSON file is an array of objects, one object per line, or one row. A `.json` file may also be one object of
    columns (equally long lists) or of rows: under the name of a split (`split` picks one of several), by their ids, or
    as pandas writes them. Text is UTF-8, UTF-16 or UTF-32, with or without a byte order mark. Raises `ValueError`, one
    line that names the file and, for text, its line.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "rows.json"
    >>> _ = file.write_text('{"question": ["1+1?", "2+3?"], "answer": [2, 5]}')
    >>> read_rows(file)[1]
    {'question': '2+3?', 'answer': 5}
    """
    kind = check_file(path)
    data = _unpacked(path)
    if kind == "parquet":
        try:
            return pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise ValueError(f"{path}: cannot be read as parquet: {_first_line(error)}") from None
    text = _decoded(data, path)
    if not text.strip():
        raise ValueError(f"{path}: the file is empty")
    if kind in ("csv", "json"):
        return _csv_rows(text, path) if kind == "csv" else _json_rows(text, path, split)
    return pkgutil.resolve_name(kind)(text, path, split)


class Lines(Sequence):
    """The rows of a large JSON Lines file, read from it as they are asked for.

    Every line is read once at the start, for the names of the columns and to see that it is an object.
    """

    def __init__(self, path: Path):
        self.file = open(path, "rb")  # as long as the rows are asked for
        self.starts, found, start = array("q"), {}, 0
        for line in self.file:
            if not line.isspace():
                self.starts.append(start)
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("no object")
                found.update(dict.fromkeys(row))
            start += len(line)
        self.starts.append(start)
        self.names = list(found)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = self.starts[index]
        return json.loads(os.pread(self.file.fileno(), self.starts[index + 1] - start, start))


class ParquetRows(Sequence):
    """The rows of a Parquet file, a block at a time in memory. Raises `ValueError` where it cannot be read."""

    def __init__(self, path: Path):
        self.path = path
        self.file = self._read(lambda: pyarrow.parquet.ParquetFile(path, memory_map=True))
        self.names = self.file.schema_arrow.names
        self.start, self.held, self.ahead = 0, None, iter(())

    def __len__(self) -> int:
        return self.file.metadata.num_rows

    def __getitem__(self, index: int) -> dict:
        """A row; from first to last each is read once, and a row before those that are held from the first on."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        while self.held is None or not self.start <= index < self.start + self.held.num_rows:
            if self.held is None or index < self.start:
                self.start, self.ahead = 0, self.file.iter_batches(1000)
            else:
                self.start += self.held.num_rows
            self.held = self._read(lambda: next(self.ahead))
        return self.held.slice(index - self.start, 1).to_pylist()[0]

    def blocks(self, columns: list[str], size: int) -> Iterator[pyarrow.Table]:
        """All rows, `size` at a time (fewer at the end alone), and these columns."""
        self.held, self.ahead, kept = None, iter(()), []
        batches = self.file.iter_batches(size, columns=columns)
        while (batch := self._read(lambda: next(batches, None))) is not None:
            kept.append(batch)
            if (table := pyarrow.Table.from_batches(kept)).num_rows >= size:
                yield table.slice(0, size)
                kept = table.slice(size).to_batches()
        if kept:
            yield pyarrow.Table.from_batches(kept)

    def _read(self, work: Callable):
        try:
            return work()
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise ValueError(f"{self.path}: cannot be read as parquet: {_first_line(error)}") from None


def read_lines(path: Path, at_least: int = LARGE) -> Lines | None:
    """The rows of a file of JSON Lines that is large; None for any other, which `read_rows` reads or complains of."""
    if kind_of(path) != "json" or path.stat().st_size < at_least:
        return None
    with open(path, "rb") as file:
        head = file.read(64)
    if not head.lstrip().startswith(b"{") or json.detect_encoding(head) != "utf-8":
        return None
    try:
        lines = Lines(path)
    except (ValueError, RecursionError):
        return None
    return lines if len(lines) > 1 else None  # one object may be a table of columns, or hold splits


def check_file(path: Path) -> str:
    """The kind of a file that is there, is not empty and can be read; else `ValueError`."""
    kind = kind_of(path)
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; name a file in it")
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    if kind is None:
        raise ValueError(f"{path}: unknown kind of file; use one of {', '.join(FORMATS)}, each also with .gz")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty")
    return kind


def names_of(rows: Sequence[dict]) -> list[str]:
    """The columns, in the order in which they first appear.

    >>> names_of([{"a": 1}, {"b": 2, "a": 3}])
    ['a', 'b']
    """
    return list(dict.fromkeys(name for row in rows for name in row))


def _unpacked(path: Path) -> bytes:
    data = path.read_bytes()
    if not data.startswith(b"\x1f\x8b"):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be unpacked with gzip: {_first_line(error)}") from None


def _decoded(data: bytes, path: Path) -> str:
    """The text; the encoding is told by the byte order mark, else by where the zero bytes stand (RFC 4627)."""
    encoding = json.detect_encoding(data)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        kind = {"json": "JSON", "csv": "CSV"}.get(kind_of(path), "text")
        name = encoding.upper().removesuffix("-SIG")
        raise ValueError(
            f"{path}: cannot be read as {kind}: line {line} is not valid {name} text; save the file as UTF-8"
        ) from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# --- CSV


def _csv_rows(text: str, path: Path) -> list[dict]:
    csv.field_size_limit(sys.maxsize)  # a cell may hold a long chain of thought; the default is 131,072 characters
    head = text.lstrip().partition("\n")[0]
    delimiter = next((mark for mark in ";\t" if mark in head and "," not in head), ",")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    names: list[str] = []
    rows = []
    line = 1  # where the row starts: a quoted cell may span several lines
    try:
        for cells in reader:
            if not any(cells):  # a blank line
                pass
            elif not names:
                names = [name.strip() for name in cells]
                if twice := [name for name in names if names.count(name) > 1]:
                    raise ValueError(f"{path}: line {line}: the column {twice[0]!r} is there twice; rename one")
            elif any(cells[len(names) :]):
                raise ValueError(
                    f"{path}: line {line}: {len(cells)} cells for {len(names)} columns; "
                    "put double quotes around cells that contain commas"
                )
            else:
                cells += [""] * (len(names) - len(cells))
                rows.append(dict(zip(names, map(_cell, cells), strict=False)))
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}: cannot be read as CSV: line {line}: {error}") from None
    return rows


def _cell(text: str) -> str | int | float | None:
    """A number only where it spells the cell, so that nothing of the cell is lost.

    >>> _cell("14"), _cell("0.5"), _cell("014"), _cell("2.50"), _cell("")
    (14, 0.5, '014', '2.50', None)
    """
    if not text:
        return None
    if len(text) <= 20 and text[-1].isdigit():
        for kind in (int, float):
            try:
                if str(number := kind(text)) == text:
                    return number
            except ValueError:
                continue
    return text


# --- JSON


def _json_rows(text: str, path: Path, split: str | None) -> list[dict]:
    try:
        if text.lstrip().startswith("["):
            found = json.loads(text)
            return _objects(found, path, lambda index: f"line {_line_of_entry(text, index)}")
        rows, lines = _values(text)
    except RecursionError:
        raise ValueError(f"{path}: cannot be read as JSON: it is nested too deeply") from None
    except _BadLine as error:
        raise ValueError(f"{path}: cannot be read as JSON: {error}") from None
    except ValueError as error:  # an array
        where = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else _first_line(error)
        raise ValueError(f"{path}: cannot be read as JSON: {where}") from None
    if len(rows) == 1 and isinstance(rows[0], dict) and path.name.lower().removesuffix(".gz").endswith(".json"):
        return _rows_of_object(rows[0], path, split)
    return _objects(rows, path, lambda index: f"line {lines[index]}")


class _BadLine(ValueError):
    """The line of the file, and what is the matter there."""


def _values(text: str) -> tuple[list, list[int]]:
    """The JSON values of a text and the lines they start on: one a line, or objects over several lines."""
    # Not splitlines(): U+2028 and its kind may stand inside a JSON string.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    values = []
    for number, line in lines:
        try:
            values.append(json.loads(line))
        except ValueError as error:
            if not values and (found := _whole_values(text, lines)):
                return found
            reason = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
            raise _BadLine(f"line {number}: {reason}") from None
    return values, [number for number, _ in lines]


def _whole_values(text: str, lines: list[tuple[int, str]]) -> tuple[list, list[int]] | None:
    """Pretty-printed objects, one after the other; None where it is the first line of many that is broken."""
    decoder = json.JSONDecoder()
    values, starts, position = [], [], 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        starts.append(text.count("\n", 0, position) + 1)
        try:
            value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            if len(lines) > 1 and _is_object(lines[1][1]):
                return None
            raise _BadLine(f"line {error.lineno}: {error.msg}, column {error.colno}") from None
        values.append(value)
    return values, starts


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _line_of_entry(text: str, index: int) -> int:
    """The line on which an entry of a JSON array starts."""
    decoder = json.JSONDecoder()
    position = text.index("[") + 1
    while True:
        while text[position].isspace() or text[position] == ",":
            position += 1
        if not index:
            return text.count("\n", 0, position) + 1
        position = decoder.raw_decode(text, position)[1]
        index -= 1


def _objects(found: list, path: Path, where) -> list[dict]:
    for index, row in enumerate(found):
        if not isinstance(row, dict):
            kind = "null" if row is None else type(row).__name__
            raise ValueError(f"{path}: {where(index)}: every row must be a JSON object, this is {kind}")
    return found


def _rows_of_object(found: dict, path: Path, split: str | None) -> list[dict]:
    """The rows of a file that is one object; the object itself is the row where it holds none."""
    if any(name.lower() in TEXTS_OF_A_ROW and isinstance(value, str) for name, value in found.items()):
        return [found]
    tables = {name: value for name, value in found.items() if _is_table(value)}
    named = {name: value for name, value in tables.items() if name.lower() in LISTS_OF_ROWS} or (
        tables if len(found) == 1 else {}
    )
    if len(named) > 1 and split in named:
        named = {split: named[split]}
    if len(named) > 1:
        raise ValueError(
            f"{path}: holds rows under {', '.join(named)}; name one of them as the split, or keep one per file "
            "(question_column and solution_column then name columns of its rows)"
        )
    if named:
        (rows,) = named.values()
        return rows if isinstance(rows, list) else _rows_of_object(rows, path, None)
    values = list(found.values())
    if isinstance(columns := found.get("columns"), list) and isinstance(data := found.get("data"), list):
        if all(isinstance(row, list) and len(row) == len(columns) for row in data):  # pandas, orient="split"
            return [dict(zip(columns, row, strict=True)) for row in data]
    if values and all(isinstance(value, dict) and value for value in values):
        if all(key.isdigit() for value in values for key in value):  # pandas: column -> index -> value
            index = names_of(values)
            return [{name: found[name].get(key) for name in found} for key in index]
        if set.intersection(*map(set, values)):
            return [{"id": name, **row} for name, row in found.items()]
    if values and all(isinstance(value, list) for value in values) and not any(map(_is_conversation, values)):
        if len(lengths := {name: len(value) for name, value in found.items()}) and len(set(lengths.values())) > 1:
            counts = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise ValueError(f"{path}: its columns are not equally long ({counts}); give each row a value in each")
        return [dict(zip(found, row, strict=True)) for row in zip(*values, strict=True)]
    return [found]


def _is_table(value: object) -> bool:
    """A list of rows, or (under the name of a split) columns."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(row, dict) for row in value) and not _is_conversation(value)
    return isinstance(value, dict) and bool(value) and all(isinstance(column, list) for column in value.values())


def _is_conversation(value: object) -> bool:
    return isinstance(value, list) and any(isinstance(one, dict) and {"role", "from"} & set(one) for one in value)

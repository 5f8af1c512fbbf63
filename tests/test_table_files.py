"""Table files as other programs write them: shapes of JSON, encodings, compression, and what is refused where."""

import gzip
import io
import json
import math
import time

import pandas
import pytest

from rlred.data.table_files import kind_of, names_of, read_rows

ROWS = [{"question": "6 * 7?", "answer": "42"}, {"question": "9 - 4?", "answer": "5"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
COLUMNS = {"question": ["6 * 7?", "9 - 4?"], "answer": ["42", "5"]}
PRETTY = json.dumps(ROWS, indent=2)


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.json", json.dumps(ROWS)),
        ("a.json", PRETTY),
        ("a.jsonl", PRETTY),
        ("a.jsonl", LINES),
        ("a.json", LINES),
        ("a.ndjson", LINES),
        ("a.JSONL", LINES),
        ("a.jsonl", LINES.strip()),
        ("a.jsonl", LINES.replace("\n", "\r\n")),
        ("a.jsonl", "\n\n" + LINES.replace("\n", "\n \n\t\n")),
        ("a.json", json.dumps(COLUMNS)),
        ("a.json", json.dumps(COLUMNS, indent=1)),
        ("a.json", "\n".join(json.dumps(row, indent=4) for row in ROWS)),
        ("a.json", json.dumps({"train": ROWS})),
        ("a.json", json.dumps({"Test": ROWS}, indent=2)),
        ("a.json", json.dumps({"my questions": ROWS})),
        ("a.json", json.dumps({"version": "1.0", "licence": "MIT", "data": ROWS})),
        ("a.json", json.dumps({"train": COLUMNS})),
        ("a.json", pandas.DataFrame(ROWS).to_json()),
        ("a.json", pandas.DataFrame(ROWS).to_json(orient="split")),
        ("a.json", pandas.DataFrame(ROWS).to_json(orient="records")),
        ("a.jsonl", LINES.encode("utf-8-sig")),
        ("a.json", PRETTY.encode("utf-8-sig")),
        ("a.jsonl", LINES.encode("utf-16")),
        ("a.jsonl", LINES.encode("utf-16-le")),
        ("a.json", PRETTY.encode("utf-16-be")),
        ("a.json", PRETTY.encode("utf-32")),
        ("a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("a.json.gz", gzip.compress(PRETTY.encode("utf-8-sig"), mtime=0)),
        ("a.jsonl", gzip.compress(LINES.encode(), mtime=0)),  # named wrongly: told by its first bytes
        ("a.jsonl.gz", LINES),
    ],
)
def test_every_shape_of_a_json_file_gives_the_same_rows(tmp_path, name, content):
    assert read_rows(written(tmp_path, name, content)) == ROWS


@pytest.mark.parametrize(
    "content, rows",
    [
        (json.dumps(ROWS[0], indent=2), ROWS[:1]),
        (json.dumps({"q3": ROWS[0], "q9": ROWS[1]}), [{"id": "q3", **ROWS[0]}, {"id": "q9", **ROWS[1]}]),
        (json.dumps({"q3": {"id": 7, **ROWS[0]}}), [{"id": 7, **ROWS[0]}]),
        # a row of its own, whatever lists it holds
        ('{"messages": [{"role": "user", "content": "?"}]}', [{"messages": [{"role": "user", "content": "?"}]}]),
        ('{"conversations": [{"from": "human", "value": "?"}], "answer": ["4"]}', None),
        ('{"question": "?", "data": [{"x": 1}]}', None),
        ('{"question": "?", "reward_model": {"ground_truth": "4"}}', None),
        ('{"prompt": [{"role": "user", "content": "?"}], "answer": ["4"]}', None),
        # columns whose values are lists
        (
            '{"messages": [[{"role": "user"}]], "answer": [["4", "5"]]}',
            [{"messages": [{"role": "user"}], "answer": ["4", "5"]}],
        ),
        ('{"question": ["?"], "answer": ["4"]}', [{"question": "?", "answer": "4"}]),
    ],
)
def test_one_object_is_a_row_or_holds_rows(tmp_path, content, rows):
    assert read_rows(written(tmp_path, "a.json", content)) == ([json.loads(content)] if rows is None else rows)


def test_one_of_several_splits_is_picked_and_never_guessed(tmp_path):
    path = written(tmp_path, "a.json", json.dumps({"train": ROWS, "test": ROWS[:1]}))
    assert (len(read_rows(path, "train")), len(read_rows(path, "test"))) == (2, 1)
    for split in (None, "validation"):
        with pytest.raises(ValueError, match="rows under train, test.*split"):
            read_rows(path, split)


def test_values_stay_as_they_are(tmp_path):
    row = '{"a": NaN, "b": -Infinity, "c": {"d": [1, null]}, "e": "x\u2028y\u0085z", "f": true, "g": 7.0}\n'
    found = read_rows(written(tmp_path, "a.jsonl", row + '{"h": 1}\n'))
    assert math.isnan(found[0].pop("a")) and names_of(found) == ["b", "c", "e", "f", "g", "h"]
    assert found[0] == {"b": -math.inf, "c": {"d": [1, None]}, "e": "x\u2028y\u0085z", "f": True, "g": 7.0}


NESTED = [{"prompt": [{"role": "user", "content": "?"}], "reward_model": {"ground_truth": "4"}, "n": 1}]


@pytest.mark.parametrize("name", ["a.parquet", "a.parquet.gz"])
def test_parquet_keeps_nested_values(tmp_path, name):
    buffer = io.BytesIO()
    pandas.DataFrame(NESTED).to_parquet(buffer)
    data = buffer.getvalue()
    assert read_rows(written(tmp_path, name, gzip.compress(data, mtime=0) if name.endswith("gz") else data)) == NESTED


CSV = 'question,answer,level\n"6 * 7, say",42,1\n"two\nlines",007,\n,2.50,0.5\n'
CELLS = [
    {"question": "6 * 7, say", "answer": 42, "level": 1},
    {"question": "two\nlines", "answer": "007", "level": None},
    {"question": None, "answer": "2.50", "level": 0.5},
]


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.csv", CSV),
        ("a.csv", CSV.encode("utf-8-sig")),
        ("a.csv", CSV.encode("utf-16")),
        ("a.csv.gz", gzip.compress(CSV.encode(), mtime=0)),
        ("a.csv", "\n" + CSV.replace("\n,2.50", "\n\n,2.50")),
        ("a.csv", CSV.replace("level\n", "level,\n", 0).replace("42,1\n", "42,1,\n")),  # an empty cell too many
    ],
)
def test_csv_cells(tmp_path, name, content):
    assert read_rows(written(tmp_path, name, content)) == CELLS


@pytest.mark.parametrize(
    "cell", ["1e3", "12345678901234567890123", "0x1F", "1_000", "-0", "+5", "1,5", "True", "nan", "NA"]
)
def test_trap_a_csv_cell_loses_nothing(tmp_path, cell):
    # pandas reads these as 1000.0, 1.2345678901234568e+22, ..., missing and missing.
    path = tmp_path / "a.csv"
    pandas.DataFrame({"a": [cell], "b": ["x"]}).to_csv(path, index=False)
    assert str(read_rows(path)[0]["a"]) == cell


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_csv_of_other_countries(tmp_path, mark):
    content = f'question{mark}answer\n"1{mark}5?"{mark}42\n'
    assert read_rows(written(tmp_path, "a.csv", content)) == [{"question": f"1{mark}5?", "answer": 42}]


def test_a_column_whose_name_has_a_semicolon(tmp_path):
    assert read_rows(written(tmp_path, "a.csv", "a;b,answer\nx,42\n")) == [{"a;b": "x", "answer": 42}]


def test_a_long_cell_is_read(tmp_path):
    assert len(read_rows(written(tmp_path, "a.csv", "a,b\n" + "x" * 200_000 + ",1\n"))[0]["a"]) == 200_000


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.jsonl", LINES + '{"question": "4 +\n' + LINES, "line 3: "),
        ("a.jsonl", LINES + '{"question": "4?", "answer": 4\n' + LINES, "line 3: "),
        ("a.jsonl", "\n\n" + LINES + "\nnull,\n" + LINES, "line 6: "),
        ("a.jsonl", '{"question": "4?"\n' + LINES, "line 1: "),
        ("a.jsonl", LINES + "7\n", "line 3: every row must be a JSON object, this is int"),
        ("a.jsonl", LINES + "null\n", "line 3: every row must be a JSON object, this is null"),
        ("a.jsonl", LINES + "\n" + "1" * 5000 + "\n", "line 4: "),
        ("a.json", '{\n  "question": "4?",\n  "answer": 4,\n}\n', "line [34]: "),
        ("a.json", '[\n{"a": 1},\n{"a": }\n]', "line 3: "),
        ("a.json", '[\n{"a": 1},\n\n[2]\n]', "line 4: every row must be a JSON object, this is list"),
        ("a.json", PRETTY[:-20], "cannot be read as JSON: line "),
        ("a.json", '{"question": ["a", "b"], "answer": ["1"]}', "not equally long .question 2, answer 1."),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.jsonl", '{"a": ' * 100_000, "nested too deeply"),
        ("a.json", "", "is empty"),
        ("a.json", " \n\n", "is empty"),
        ("a.json", b"\xef\xbb\xbf", "is empty"),
        ("a.csv", "\n", "is empty"),
        ("a.jsonl", LINES.encode() + b'{"a": "\xe9"}\n', "line 3 is not valid UTF-8 text"),
        ("a.jsonl", LINES.encode("utf-16")[:-1], "not valid UTF-16 text"),
        ("a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)[:-9], "cannot be unpacked with gzip"),
        ("a.parquet", b"PAR1 and no more", "cannot be read as parquet"),
        ("a.csv", "a,b\n1,2\n3,4,5\n", "line 3: 3 cells for 2 columns"),
        ("a.csv", 'a,b\n1,2\n"3\n,4\n5,6\n', "line 3: "),
        ("a.csv", 'a,b\n"1\n1",2\n"3"3,4\n', "line 4: "),
        ("a.csv", "a,b,a\n1,2,3\n", "line 1: the column 'a' is there twice"),
        ("a.txt", "hello", "unknown kind of file; use one of .json, .jsonl, .*parquet, .csv, each also with .gz"),
        ("a.jsonl.zst", "hello", "unknown kind of file"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_clear_line(tmp_path, name, content, message):
    path = written(tmp_path, name, content)
    with pytest.raises(ValueError, match=message) as raised:
        read_rows(path)
    assert str(raised.value).startswith(f"{path}: ") and "\n" not in str(raised.value)


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_rows(tmp_path / "none.json")
    with pytest.raises(ValueError, match="is a folder"):
        read_rows(tmp_path)
    assert kind_of(tmp_path / "x.csv.gz") == "csv" and kind_of(tmp_path / "x.gz") is None


def test_reading_is_fast(tmp_path):
    rows = [{"question": f"{i} " * 60, "answer": f"#### {i}"} for i in range(20_000)]
    path = written(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    start = time.perf_counter()
    assert read_rows(path) == rows
    assert time.perf_counter() - start < 3  # some 0.1 s where nothing else runs

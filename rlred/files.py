"""Writing results so that nothing is lost: whole files or none, and never over somebody's earlier run."""

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rlred.names import in_todays_names


def write_text(path: Path, text: str) -> None:
    """Writes a file atomically: a reader, or a crash, sees the old content or the new one."""
    write_lines(path, [text])


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """The same of lines that are made while they are written, each with its newline."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def whole_lines(path: Path) -> list[str]:
    """The lines of a JSONL file that is appended to, up to one that a crash cut off; none where there is no file."""
    lines = []
    for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else []:
        try:
            json.loads(line)
        except json.JSONDecodeError:
            break
        lines.append(line)
    return lines


def read_record(path: Path) -> Any:
    """A run.json or a report that this version or an older one has written, in today's names."""
    return in_todays_names(json.loads(path.read_text(encoding="utf-8")))


def write_json(path: Path, value: object) -> None:
    """Writes JSON atomically, indented, with a final newline."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")

"""Writing results so that nothing is lost: whole files or none, and never over somebody's earlier run."""

import contextlib
import fcntl
import itertools
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from rlred.names import in_todays_names

logger = logging.getLogger(__name__)


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


def whole_lines(path: Path, fits: Callable[[Any], bool] = lambda value: True) -> list[str]:
    """The lines of a JSONL file that is appended to, up to the first that is cut off or damaged; none without a file.

    Damaged is what is no JSON, or does not fit.
    """
    lines = []
    for line in path.read_bytes().split(b"\n") if path.exists() else []:
        try:
            text = line.decode("utf-8")
            if not fits(json.loads(text)):
                break
        except ValueError:
            break
        lines.append(text)
    return lines


def mended_lines(path: Path, fits: Callable[[Any], bool] = lambda value: True) -> list[str]:
    """The same, and the file is left with these lines alone, so that it can be appended to; its folder is made.

    A last line that was cut off by a crash just goes. Where whole lines go, that is a warning, and the file as it was
    is kept beside.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = whole_lines(path, fits)
    before, whole = path.read_bytes() if path.exists() else b"", "".join(f"{line}\n" for line in lines).encode()
    if lost := before[len(whole) :].count(b"\n"):
        _keep_damaged(path, len(lines), lost)
    if before != whole:
        write_text(path, whole.decode())
    return lines


def mended_length(path: Path, fits: Callable[[Any], bool]) -> int:
    """The same, and how many lines there are, for a file that need not fit into memory."""
    whole = lines = lost = 0
    with open(path, "rb") as file:
        for line in file:
            if lost or not (line.endswith(b"\n") and _fits(line, fits)):
                lost += 1
            else:
                whole, lines = whole + len(line), lines + 1
        size = file.tell()
        file.seek(max(0, size - 1))
        cut_off = file.read() != b"\n"
    if lost - cut_off > 0:
        _keep_damaged(path, lines, lost - cut_off)
    if size > whole:
        os.truncate(path, whole)
    return lines


def _fits(line: bytes, fits: Callable[[Any], bool]) -> bool:
    try:
        return fits(json.loads(line.decode("utf-8")))
    except ValueError:
        return False


def _keep_damaged(path: Path, lines: int, lost: int) -> None:
    """Copies a file whose lines are damaged, and says so."""
    kept = next(f for n in itertools.count(1) if not (f := path.with_name(f"{path.name}.damaged-{n}")).exists())
    shutil.copyfile(path, kept)
    said = "%s: line %d is damaged; it and all after it (%d lines) are made again; the file as it was is %s"
    logger.warning(said, path, lines + 1, lost, kept.name)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a lock on a folder, for which other processes of this machine wait.

    A file system that has no locks on folders gives none, and nothing is waited for.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def read_record(path: Path) -> Any:
    """A run.json or a report that this version or an older one has written, in today's names.

    Raises `ValueError` for what is no JSON object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: an object is expected, as a run writes it, and it holds a {type(found).__name__}")
    return in_todays_names(found)


def write_json(path: Path, value: object) -> None:
    """Writes JSON atomically, indented, with a final newline."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")

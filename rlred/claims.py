"""Who works where: a run in its folder, by its heartbeat, and a command at its output, by a note that goes with it.

at_work    the process that works in a folder, in words
claimed    a context in which the output of a command is this process's own

A note holds what a heartbeat holds, so that a process that is dead, or whose id another one has got, is told from one
that works, and one of another host is given the time to show that it does.
"""

import contextlib
import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path

from rlred import heartbeat
from rlred.files import locked

logger = logging.getLogger(__name__)

ELSEWHERE = 60.0  # seconds in which a process of another host shows that it works: several of its marks
NOTE = ".at_work.json"  # of a command, in a folder; of a file it begins with its name


def at_work(folder: Path, name: str = heartbeat.NAME) -> str | None:
    """The process of another run or command that works in a folder, in words; None where there is none.

    `name` is the file that says so.
    """
    record = heartbeat.read(folder, name)
    if not record or record.get("state") != "running" or heartbeat.is_own(record):
        return None
    if (there := heartbeat.alive(record)) is False:
        return None
    if there:
        return f"process {record['pid']}"
    host = record.get("host")
    logger.info("%s: a process on %s was at work here; whether it still is shows within a minute", folder, host)
    return f"on {host}, process {record['pid']}" if heartbeat.changes(folder, ELSEWHERE, name) else None


@contextlib.contextmanager
def claimed(folder: Path, file: str = "", share: str | None = None) -> Iterator[None]:
    """The output of a command, a folder or a file in it, is this process's own; a folder that is not there is made.

    `share` is a K/N of the file: shares that have nothing in common may be worked at together. Raises `ValueError`
    where another process works there.
    """
    own = "".join(f".{part}" for part in (file, share and share.replace("/", "-of-")) if part) + NOTE
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder.parent):
        for name in [*([] if file else [heartbeat.NAME]), *_notes(folder, file, share)]:
            if where := at_work(folder, name):
                said = f"another process works there ({where}); wait for its end, or name another"
                raise ValueError(f"--output {folder / file}: {said}")
        heartbeat.begin(folder, own)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / own).unlink()
            if made:
                folder.rmdir()  # where nothing came of it


def _notes(folder: Path, file: str, share: str | None) -> list[str]:
    """The notes at an output whose share has something in common with this one.

    The shards of K/N and L/M meet where K and L are equal modulo what N and M have in common.
    """
    form = re.compile(rf"{re.escape(f'.{file}') if file else ''}(?:\.(\d+)-of-(\d+))?{re.escape(NOTE)}")
    number, count = map(int, share.split("/")) if share else (1, 1)
    found = []
    for path in sorted(folder.glob(f"*{NOTE}")):
        match = form.fullmatch(path.name)
        if match and (number - int(match[1] or 1)) % math.gcd(count, int(match[2] or 1)) == 0:
            found.append(path.name)
    return found

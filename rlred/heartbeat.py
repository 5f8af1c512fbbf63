"""What a run says of itself while it works: `heartbeat.json` in its folder, which `rlred status` reads.

The main process writes it, atomically: when it claims the folder, at each stage, log and checkpoint, and at its end.
A run that is killed leaves the last one behind; whether its process is still there, `alive` asks the system. On another
host that cannot be asked; so a thread marks the file as changed every few seconds, and `changes` waits for that.
"""

import collections
import json
import logging
import os
import socket
import threading
import time
from pathlib import Path

from rlred.files import write_json

NAME = "heartbeat.json"
TOUCH = 10.0  # seconds between two marks of a run that works


class LastWarnings(logging.Handler):
    """Keeps the last warnings of this process, so that a heartbeat can carry them."""

    def __init__(self, most: int = 10):
        super().__init__(logging.WARNING)
        self.found: collections.deque[dict] = collections.deque(maxlen=most)

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(record.getMessage().split())
        self.found.append({"time": record.created, "text": text[:300]})


WARNINGS = LastWarnings()


def begin(folder: Path, name: str = NAME) -> None:
    """Says that this process works in a folder from now on; what an earlier one said is written over."""
    times = {"started": time.time(), "time": time.time(), "uptime": _uptime()}
    write_json(folder / name, {**_this_process(), **times, "state": "running"})
    if not _worked_in:
        threading.Thread(target=_mark, daemon=True).start()
    _worked_in[:] = [folder / name]


_worked_in: list[Path] = []


def _mark() -> None:
    """Marks the heartbeat of the folder in which this process works, as long as it is its own."""
    while True:
        time.sleep(TOUCH)
        path = _worked_in[0]
        record = read(path.parent, path.name)
        if record and is_own(record) and record.get("state") == "running":
            try:
                os.utime(path)
            except OSError:
                pass  # no run ends because of it


def changes(folder: Path, seconds: float, name: str = NAME) -> bool:
    """Whether somebody writes or marks the heartbeat of a folder within so many seconds."""
    before, deadline = _state_of(folder / name), time.monotonic() + seconds
    while time.monotonic() < deadline:
        if _state_of(folder / name) != before:
            return True
        time.sleep(0.5)
    return False


def _state_of(path: Path) -> tuple | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def beat(folder: Path, **facts) -> None:
    """Adds facts to the heartbeat of this process; does nothing in a folder that another process has claimed.

    A heartbeat that cannot be written (a full disk) is left out: it must not be what ends a run.
    """
    record = read(folder)
    if record is None or not is_own(record):
        return
    record |= {**facts, "time": time.time(), "uptime": _uptime(), "warnings": list(WARNINGS.found)}
    try:
        write_json(folder / NAME, record)
    except (OSError, ValueError):
        logging.getLogger(__name__).debug("the heartbeat could not be written", exc_info=True)


def read(folder: Path, name: str = NAME) -> dict | None:
    """The last heartbeat of a folder; None where there is none that can be read."""
    try:
        found = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("pid"), int) else None


def is_own(record: dict) -> bool:
    """Whether this very process wrote a heartbeat."""
    own = _this_process()
    return all(record.get(name) == own[name] for name in own)


def age(record: dict) -> float:
    """Seconds since a heartbeat; by a clock that cannot be set, where this machine has written it since its start."""
    if record.get("boot") == _boot() is not None and record.get("uptime") is not None:
        return max(0.0, _uptime() - record["uptime"])
    return max(0.0, time.time() - record.get("time", 0))


def _uptime() -> float | None:
    """Seconds since the system's start, those in which it slept as well; None where it does not tell."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return None if clock is None else time.clock_gettime(clock)


def alive(record: dict) -> bool | None:
    """Whether the process of a heartbeat still works; None for one of another host, which cannot be asked from here.

    A process id that has since been given to another process does not count: the start time tells them apart.
    """
    if record.get("host") != socket.gethostname():
        return None
    if record.get("boot") != _boot():
        return False
    return _born(record["pid"]) == record.get("born")


def _this_process() -> dict:
    pid = os.getpid()
    return {"pid": pid, "born": _born(pid), "host": socket.gethostname(), "boot": _boot()}


def _born(pid: int) -> int | None:
    """When a process began, in ticks since the system's start; None for one that is gone or not yet reaped."""
    try:
        # After the name, which is in brackets and may hold blanks: the state, and the start time as the 20th.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return _answers(pid)
    return None if fields[0] in "ZX" else int(fields[19])


def _answers(pid: int) -> int | None:
    """0 for a process that is there where the system has no /proc; None for one that is gone."""
    if Path("/proc/self").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return 0


def _boot() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None

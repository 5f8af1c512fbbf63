"""Shell completion: what may follow, and real shells that ask for it."""

import os
import pty
import re
import select
import shutil
import sys
import time

import pytest

from rlred.cli import main as rlred
from rlred.cli.completion import SHELLS, asked, complete
from tests.paths import ROOT

CASES = [
    ("rlred ", ["evaluate", "train", "compress", "completion"], ["scores", "l1_exact", "--help"]),
    ("rlred ev", ["evaluate"], ["train"]),
    ("rlred compress ", ["traces", "scores", "rows", "shots"], ["evaluate"]),
    ("rlred train ", ["l1_exact", "tokenskip"], ["evaluate"]),
    ("rlred train l1_maxlen --config l1_maxlen_r1", ["l1_maxlen_r1_1.5b", "l1_maxlen_r1_1.5b_8gpu"], ["l1_exact"]),
    ("rlred train --config_file ze", ["zero2", "zero3"], ["ddp"]),
    ("rlred train l1_maxlen --a", ["--audit_only"], ["--config"]),
    ("rlred export outputs/mine --", ["--base_model", "--push", "--help"], ["--budgets"]),
    ("rlred evaluate --modes ", ["exact", "max", "free"], ["--modes"]),
    ("rlred export ", [], []),  # a file: left to the shell
    ("rlred nothing ", [], []),
    ("rlred evaluate 'an open quote", [], []),
]


@pytest.mark.parametrize("line, there, absent", CASES, ids=[line for line, _, _ in CASES])
def test_what_may_stand_where_the_cursor_is(line, there, absent):
    found = asked({"COMP_LINE": line, "COMP_POINT": str(len(line))})
    assert set(there) <= set(found) and not set(absent) & set(found)
    assert there or found == []


def test_what_stands_behind_the_cursor_does_not_count():
    assert asked({"COMP_LINE": "rlred ex --push me/it", "COMP_POINT": "8"}) == ["export"]
    assert asked({}) is None and complete(["export"], "--pr") == ["--private"]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_lines_for_a_shell_are_printed(shell, capsys, monkeypatch):
    monkeypatch.delenv("COMP_LINE", raising=False)
    assert rlred(["completion", shell]) == 0
    assert capsys.readouterr().out.rstrip("\n") == SHELLS[shell]


def test_an_unknown_shell_is_one_clear_line(capsys, monkeypatch):
    monkeypatch.delenv("COMP_LINE", raising=False)
    assert rlred(["completion", "cmd"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "'cmd'" in line and "bash" in line


def started(shell: str, home) -> tuple[int, int]:
    """A shell without a file of the user's, at a terminal: its process and the terminal."""
    program = home / "rlred"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m rlred.cli "$@"\n')
    program.chmod(0o755)
    without = {"bash": ["--norc", "--noprofile"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    own = {"PATH": f"{home}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HOME": str(home)}
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(home)
        own["TERM"] = "xterm" if shell == "fish" else "dumb"
        os.execvpe(shell, [shell, *without, "-i"], {**os.environ, **own})
    return pid, terminal


@pytest.mark.parametrize(
    "keys, expected",
    [("rlred gen\t--ada\t", "rlred generate --adapter"), ("rlred export table.js\t", "rlred export table.jsonl")],
    ids=["words", "files"],
)
@pytest.mark.parametrize("shell", SHELLS)
def test_a_real_shell_completes(shell, keys, expected, tmp_path):
    """Also in a zsh that has not run compinit, and files where rlred has no word."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed here: apt-get install {shell}")
    (tmp_path / "table.jsonl").touch()
    pid, terminal = started(shell, tmp_path)
    try:
        os.write(terminal, f"{SHELLS[shell]}\n{keys}".encode())
        shown, end = "", time.monotonic() + 60
        while expected not in shown and time.monotonic() < end:
            if select.select([terminal], [], [], 1)[0]:
                shown += os.read(terminal, 4096).decode(errors="replace")
                shown = re.sub(r"[ \b]+", " ", shown)  # zsh writes over a space of its own
        assert expected in shown
    finally:
        os.write(terminal, b"\x03exit\n")
        os.close(terminal)
        os.waitpid(pid, 0)


def test_no_word_is_no_line(capsys, monkeypatch):
    """A shell would take an empty line for a word, and offer no file."""
    monkeypatch.setenv("COMP_LINE", "rlred export ")
    assert rlred(["completion", "fish"]) == 0
    assert capsys.readouterr().out == ""

"""Two commands at one output: the second is refused by one line, and a note of a dead process stops nobody."""

import json
import os
import socket
import subprocess
import sys
import threading

import pytest

from rlred import claims, heartbeat, output
from rlred.claims import NOTE, claimed
from rlred.cli import main
from rlred.files import write_json

COMMANDS = {
    "evaluate": (["evaluate", "--budgets", "16", "--num_questions", "1"], "", NOTE),
    "probe": (["probe", "--max_completion_length", "32", "--num_questions", "1"], "", NOTE),
    "reference": (["reference", "--max_completion_length", "16"], "rows.jsonl", f".rows.jsonl{NOTE}"),
    "traces": (["compress", "traces"], "rows.jsonl", f".rows.jsonl{NOTE}"),
}


@pytest.fixture
def other():
    """The heartbeat of another process that is there, and of nobody's folder yet."""
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    told = {"pid": process.pid, "born": heartbeat._born(process.pid), "state": "running", "time": 0}
    yield {**told, "host": socket.gethostname(), "boot": heartbeat._boot()}
    process.stdin.close()
    process.wait()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_second_command_at_an_output_is_refused_by_one_line(command, other, tmp_path, capsys):
    words, file, note = COMMANDS[command]
    write_json(tmp_path / "out" / note, other)
    assert main([*words, "--output", str(tmp_path / "out" / file)]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    told = f"another process works there (process {other['pid']}); wait for its end, or name another"
    assert said[-1] == f"error: --output {tmp_path / 'out' / file}: {told}"
    assert [path.name for path in (tmp_path / "out").iterdir()] == [note]  # nothing was written, and the note is there


@pytest.mark.parametrize("change", [{"born": 1}, {"boot": "an earlier start of this machine"}, {"state": "finished"}])
def test_a_note_of_a_process_that_is_gone_stops_nobody(change, other, tmp_path):
    write_json(tmp_path / "out" / NOTE, {**other, **change})
    with claimed(tmp_path / "out"):
        assert json.loads((tmp_path / "out" / NOTE).read_text())["pid"] == os.getpid()
    assert list((tmp_path / "out").iterdir()) == []


def test_a_damaged_note_stops_nobody(tmp_path):
    (tmp_path / NOTE).write_text("{")
    with claimed(tmp_path):
        pass


@pytest.mark.parametrize("works", [True, False])
def test_a_process_of_another_host_works_as_long_as_it_marks_its_note(works, other, tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "ELSEWHERE", 2.0)
    write_json(tmp_path / "out" / NOTE, {**other, "host": "elsewhere"})
    done = threading.Event()

    def mark():
        while works and not done.wait(0.2):
            os.utime(tmp_path / "out" / NOTE)

    thread = threading.Thread(target=mark)
    thread.start()
    try:
        with claimed(tmp_path / "out"):
            found = None
    except ValueError as error:
        found = str(error)
    done.set()
    thread.join()
    assert (found is not None and f"(on elsewhere, process {other['pid']})" in found) == works


def test_runs_and_commands_leave_each_other_s_folders_alone(other, tmp_path):
    write_json(tmp_path / "run" / heartbeat.NAME, other)
    with pytest.raises(ValueError, match=rf"another process works there \(process {other['pid']}\)"):
        with claimed(tmp_path / "run"):
            pass
    write_json(tmp_path / "measured" / NOTE, other)
    with pytest.raises(ValueError, match=f"is the folder of a run that is at work .process {other['pid']}"):
        output.claim(tmp_path / "measured")


def test_a_command_leaves_the_heartbeat_of_a_finished_run_as_it_was(tmp_path):
    heartbeat.begin(tmp_path)
    heartbeat.beat(tmp_path, state="finished", step=500)
    before = (tmp_path / heartbeat.NAME).read_bytes()
    with claimed(tmp_path):
        pass
    assert (tmp_path / heartbeat.NAME).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [heartbeat.NAME]


def test_a_folder_that_was_made_goes_where_nothing_came_of_it(tmp_path):
    (tmp_path / "mine").mkdir()
    for name in ("new", "mine"):
        with claimed(tmp_path / name):
            pass
    with claimed(tmp_path / "kept"):
        (tmp_path / "kept" / "page.md").write_text("found")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "mine"]


@pytest.mark.parametrize(
    "first, second, meet",
    [
        ("1/2", "2/2", False),
        ("1/2", "1/2", True),
        ("1/2", "2/4", False),
        ("1/2", "3/4", True),  # the third of four is the first of two
        ("2/3", "1/2", True),
        ("1/2", None, True),  # a last run reads and samples all
        (None, "4/4", True),
    ],
)
def test_shares_of_a_file_may_be_worked_at_together(first, second, meet, other, tmp_path):
    share = f".{first.replace('/', '-of-')}" if first else ""
    write_json(tmp_path / f".rows.jsonl{share}{NOTE}", other)
    for file in ("rows.jsonl", "others.jsonl"):
        if meet and file == "rows.jsonl":
            with pytest.raises(ValueError, match="another process works there"):
                with claimed(tmp_path, file, second):
                    pass
        else:
            with claimed(tmp_path, file, second):
                pass

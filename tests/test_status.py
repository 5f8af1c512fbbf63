"""A week without a look: what a running, a dead and a finished run say of themselves, and what of them can go."""

import json
import shutil
import signal
import time
from types import SimpleNamespace

import pytest
from trl import GRPOConfig

from rlred import heartbeat
from rlred.cli import main as rlred
from rlred.files import write_json
from rlred.housekeeping import completions_of, keep_within, removable, size_of
from rlred.output import prepare_output_dir
from rlred.status import status_of
from rlred.training.callbacks import BoundedFiles, Heartbeat
from tests.test_long_runs import SMALL, start, started
from tests.test_recipes import arguments, run

QUICK = {"hindsight": False, "evaluate": False, "save_steps": 1, "logging_steps": 1}


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run that was killed at work, and what `rlred status` and others said while it worked."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    flags = {**SMALL, **QUICK, "max_steps": 500, "log_completions": True, "keep_completions": 2}
    process = start("l1_exact", {**flags, "output_dir": folder})
    said = started(process)  # and reads what it says from now on, so that it never waits for us
    try:
        until(lambda: (folder / "checkpoint-4" / "trainer_state.json").exists(), process, said)
        until(lambda: (heartbeat.read(folder) or {}).get("step", 0) >= 4, process, said)
        running, refused = status_of(folder), []
        for call in (
            lambda: prepare_output_dir(training_in(folder), folder),
            lambda: rlred_of("clean", folder, "--yes"),
        ):
            with pytest.raises(ValueError) as caught:
                call()
            refused.append(str(caught.value))
    finally:
        process.send_signal(signal.SIGKILL)
    until(lambda: status_of(folder).state == "dead", None, said)  # though nobody has waited for it yet
    return SimpleNamespace(folder=folder, running=running, refused=refused, code=process.wait())


def until(happens, process, said: list[str]) -> None:
    """Waits, as long as the process is there."""
    deadline = time.monotonic() + 300
    while not happens():
        assert (process is None or process.poll() is None) and time.monotonic() < deadline, "".join(said)[-2000:]
        time.sleep(0.05)


def training_in(folder):
    return GRPOConfig(str(folder), use_cpu=True, bf16=False, resume_from_checkpoint="true")


def rlred_of(name, *words):
    from rlred.cli import call

    return call([name, *map(str, words)])


def test_a_running_run_says_how_far_it_is(killed):
    status = killed.running
    assert status.state == "running" and status.record["stage"] == "training"
    assert status.record["step"] >= 4 and status.record["max_steps"] == 500
    rate = status.record["seconds_per_step"]
    assert rate > 0 and status.seconds_left == rate * (500 - status.record["step"])
    assert {"reward", "adherence/mean_abs_error", "adherence/over_budget"} <= set(status.record["last"])


def test_two_runs_in_one_folder_and_a_clean_under_a_run_are_refused(killed):
    second, cleaned = killed.refused
    assert "is the folder of a run that is at work (process" in second
    assert "the run is at work (process" in cleaned


def test_a_run_that_was_killed_is_dead_and_says_the_way_on(killed, capsys):
    assert killed.code == -signal.SIGKILL
    assert rlred(["status", str(killed.folder)]) == 1
    told = capsys.readouterr().out
    assert f"{killed.folder}: dead, training, step " in told and "of 500" in told and " left" not in told
    assert "so far     reward" in told and "mean_abs_error" in told and "disk  " in told
    assert "--resume_from_checkpoint true, from " in told and "checkpoint-" in told
    assert "warning" in told  # the audit's: no hindsight start


def test_completions_are_the_last_ones_alone(killed):
    found = completions_of(killed.folder)
    assert 2 <= len(found) <= 3  # TRL writes one after the callbacks of its log
    assert found[-1].name >= "completions_00004.parquet"


def test_clean_lists_first_and_keeps_what_a_run_goes_on_from(killed, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(killed.folder, folder)
    (folder / ".run.json.ab12cd_9").write_text("{")  # cut off in write_text
    before = sorted(path.name for path in folder.iterdir())
    assert rlred(["clean", str(folder)]) == 0
    listed = capsys.readouterr().out
    assert "--yes removes them" in listed and sorted(path.name for path in folder.iterdir()) == before
    assert rlred(["clean", str(folder), "--yes"]) == 0
    assert len(list(folder.glob("checkpoint-*"))) <= 2 and not completions_of(folder)  # a last one may be cut short
    assert not (folder / ".run.json.ab12cd_9").exists()
    assert (folder / "run.json").exists() and (folder / "best" / "best.json").exists()

    finished = run(*arguments("l1_exact", "tiny_reasoner", output_dir=folder, **resumed(folder)), tmp_path)
    assert finished is None and (folder / "adapter_model.safetensors").exists()
    step = json.loads((folder / "trainer_state.json").read_text())["global_step"]
    assert status_of(folder).record["step"] == step  # this process's own heartbeat
    heartbeat.beat(folder, state="finished")
    assert status_of(folder).state == "finished"
    files = {path.name for path in folder.iterdir() if path.is_file()}
    assert rlred(["clean", str(folder), "--yes"]) == 0
    assert not list(folder.glob("checkpoint-*")) and files <= {path.name for path in folder.iterdir()}
    assert "adapter_model.safetensors" in files and removable(folder) == []
    assert rlred(["status", str(folder)]) == 0


def resumed(folder) -> dict:
    steps = max(int(path.name.rpartition("-")[2]) for path in folder.glob("checkpoint-*"))
    return {**QUICK, "max_steps": steps + 1, "resume_from_checkpoint": "true"}


def test_trap_a_run_that_goes_on_keeps_the_checkpoint_that_it_goes_on_from(tmp_path):
    """It has the weights of its earlier end, and has not ended."""
    for name in ("checkpoint-10", "checkpoint-20", "checkpoint-20-keep", "hindsight"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    heartbeat.begin(tmp_path)
    assert [one.path.name for one in removable(tmp_path)] == ["checkpoint-10"]
    heartbeat.beat(tmp_path, state="failed", error="out of memory")
    assert [one.path.name for one in removable(tmp_path)] == ["checkpoint-10"]
    heartbeat.beat(tmp_path, state="finished")
    assert [one.path.name for one in removable(tmp_path)] == ["checkpoint-10", "checkpoint-20"]  # and no copy


def test_what_a_cut_off_write_has_left_goes_but_not_the_only_copy_of_the_best(tmp_path):
    for name in (".best-old", ".best-new", "stage/partial", "notes/partial"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "stage" / "trainer_state.json").touch()
    for name in (".env.template", ".gitignore", ".vimrc.a1b2c3d4"):  # somebody's own
        (tmp_path / name).touch()
    assert {one.path.name for one in removable(tmp_path)} == {"partial"}
    (tmp_path / "best").mkdir()
    assert {one.path.name for one in removable(tmp_path)} == {"partial", ".best-old", ".best-new"}


def test_a_run_on_another_host_is_not_cleaned_from_here(tmp_path):
    heartbeat.begin(tmp_path)
    record = json.loads((tmp_path / heartbeat.NAME).read_text())
    (tmp_path / heartbeat.NAME).write_text(json.dumps({**record, "host": "elsewhere"}))
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="may be at work on elsewhere, which this machine cannot ask"):
        rlred_of("clean", tmp_path, "--yes")


@pytest.mark.parametrize(
    "change, state",
    [
        ({}, "running"),  # this very process
        ({"born": 1}, "dead"),  # its process id was given to another one
        ({"boot": "another"}, "dead"),  # before the machine was started again
        ({"pid": 2**22 + 1}, "dead"),
        ({"host": "another"}, "unknown"),
        ({"state": "failed", "born": 1}, "failed"),
        ({"state": "finished", "born": 1}, "finished"),
    ],
)
def test_who_is_alive(change, state, tmp_path):
    heartbeat.begin(tmp_path)
    write_json(tmp_path / heartbeat.NAME, heartbeat.read(tmp_path) | change)
    assert status_of(tmp_path).state == state
    before = heartbeat.read(tmp_path)
    heartbeat.beat(tmp_path, step=7)  # never over the heartbeat of another process
    own = not set(change) - {"state"}
    assert (heartbeat.read(tmp_path) != before) == own


def test_a_folder_without_a_heartbeat_tells_what_its_files_tell(tmp_path, capsys):
    assert rlred(["status", str(tmp_path / "nowhere")]) == 2
    assert rlred(["status", str(tmp_path)]) == 2 and "holds no run" in capsys.readouterr().err
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "checkpoint-3").mkdir()
    state = {"global_step": 3, "max_steps": 9, "log_history": [{"reward": 0.25, "step": 3}]}
    (tmp_path / "checkpoint-3" / "trainer_state.json").write_text(json.dumps(state))
    (tmp_path / heartbeat.NAME).write_text("{")  # no JSON
    assert rlred(["status", str(tmp_path)]) == 0
    assert "unknown, training, step 3 of 9 (33 %)" in (told := capsys.readouterr().out) and "reward 0.25" in told


def test_a_clock_that_jumps_changes_no_rate(tmp_path, monkeypatch):
    heartbeat.begin(tmp_path)
    state = SimpleNamespace(global_step=1, max_steps=9, is_world_process_zero=True, log_history=[])
    beats = Heartbeat(tmp_path)
    beats.on_train_begin(None, state, None)
    monkeypatch.setattr(time, "time", lambda: 0.0)  # 1970
    beats.on_step_end(None, state, None)
    beats.on_log(None, state, None, logs={"loss": 1.0, "reward": float("nan")})
    record = heartbeat.read(tmp_path)
    assert 0 <= record["seconds_per_step"] < 5 and record["last"] == {"loss": 1.0}
    monkeypatch.undo()
    assert status_of(tmp_path).age >= 0


def filled(folder, sizes: dict[str, int]):
    for name, size in sizes.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"0" * size)
        if "checkpoint" in name:
            (folder / name).with_name("trainer_state.json").write_text("{}")


def test_a_disk_budget_counts_all_and_removes_the_oldest_first(tmp_path, caplog):
    sizes = {f"checkpoint-{step}/notes.txt": 1000 for step in (9, 10, 11)}
    sizes |= {f"completions/completions_{step:05d}.parquet": 100 for step in (8, 9, 100000)}
    filled(tmp_path, {**sizes, "measures/trained.completions.jsonl": 500, "run.json": 10})
    total = size_of(tmp_path)
    assert keep_within(tmp_path, total) == (total, total)
    assert keep_within(tmp_path, total - 150)[1] == total - 200
    assert [path.name for path in completions_of(tmp_path)] == ["completions_100000.parquet"]
    assert keep_within(tmp_path, total - 1000)[1] < total - 1000
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-10", "checkpoint-11"]
    bounded = BoundedFiles(tmp_path, disk_budget=600)
    state = SimpleNamespace(global_step=11, is_world_process_zero=True)
    for _ in range(2):
        bounded.on_save(None, state, None)
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"notes.txt", "trainer_state.json", "trained.completions.jsonl", "run.json"}
    assert (tmp_path / "checkpoint-11").exists() and not (tmp_path / "checkpoint-10").exists()
    assert [record.levelname for record in caplog.records].count("WARNING") == 1


@pytest.mark.parametrize("name, value", [("keep_completions", 0), ("disk_budget_gib", -1.0)])
def test_bounds_below_one_are_refused_before_the_run(name, value):
    with pytest.raises(ValueError, match=f"{name} must be above 0"):
        arguments("l1_exact", "tiny_reasoner", **{name: value})


def test_what_an_atomic_write_has_left_goes(tmp_path):
    for name in (".run.json.a1b2c3d4", ".rows.random.jsonl.________", ".report.html.zzzzzzzz"):
        (tmp_path / name).touch()
    assert len(removable(tmp_path)) == 3


def test_what_could_not_be_removed_is_said(tmp_path, monkeypatch, capsys):
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / ".run.json.a1b2c3d4").touch()
    (tmp_path / "checkpoint-1").mkdir()
    heartbeat.beat(tmp_path, state="finished")
    monkeypatch.setattr("rlred.housekeeping.shutil.rmtree", lambda *args, **kwargs: None)  # as without the right to
    monkeypatch.setattr("pathlib.Path.unlink", lambda *args, **kwargs: None)
    assert rlred(["clean", str(tmp_path), "--yes"]) == 2
    assert "cannot be removed, and " in capsys.readouterr().err

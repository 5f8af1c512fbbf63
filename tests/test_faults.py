"""The fault table of docs/reliability.md: what the user sees of each fault, and what is kept."""

import json
import logging
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.trainer_utils import rotate_checkpoints

from rlred import claims, heartbeat, output
from rlred.data.budgets import BudgetSampler
from rlred.data.models import fingerprint
from rlred.data.prompts import Prompts
from rlred.evaluation.sampling import Sampling
from rlred.evaluation.sweep import complete, stop_ids
from rlred.evaluation.trace_sources import Material, is_chunk, read_traces, sample
from rlred.files import mended_lines, write_json
from rlred.training.callbacks import CheckpointsInOrder
from tests.paths import ROOT
from tests.test_long_runs import start
from tests.test_recipes import SMALL, _flag, arguments, run

# Files ---------------------------------------------------------------------------------------------------------------

LINES = [b'{"a": 1}', b'{"a": 2}', b'{"a": 3}']


@pytest.mark.parametrize(
    "content, kept, lost",
    [
        (b"".join(line + b"\n" for line in LINES), 3, 0),
        (b"", 0, 0),
        (b"\n".join(LINES), 3, 0),  # whole, though its newline was cut off
        (b"\n".join(LINES)[:-3], 2, 0),  # cut off by a crash
        (b"\n".join([LINES[0], b"garbage", LINES[2]]) + b"\n", 1, 2),
        (b"\n".join([LINES[0], b"\0" * 40, LINES[2]]) + b"\n", 1, 2),  # what a power cut leaves on some disks
        (b"\n".join([LINES[0], LINES[1], b'{"a": "\xff\xfe"}']) + b"\n", 2, 1),
        (b"\n".join([b"[1, 2]", LINES[1]]) + b"\n", 0, 2),  # JSON, but not of this kind
        (b"\n".join([LINES[0], b"", LINES[2]]) + b"\n", 1, 2),
    ],
)
def test_a_damaged_line_is_said_and_nothing_is_thrown_away(content, kept, lost, tmp_path, caplog):
    path = tmp_path / "kept.jsonl"
    path.write_bytes(content)
    lines = mended_lines(path, lambda value: isinstance(value, dict))
    assert [json.loads(line) for line in lines] == [{"a": n} for n in range(1, kept + 1)]
    assert path.read_text() == "".join(f"{line}\n" for line in lines)  # it can be appended to
    copies = list(tmp_path.glob("*.damaged-*"))
    if lost:
        assert [copy.read_bytes() for copy in copies] == [content]
        assert (
            f"kept.jsonl: line {kept + 1} is damaged; it and all after it ({lost} lines) are made again" in caplog.text
        )
    else:
        assert not copies and not caplog.records
    assert mended_lines(tmp_path / "nothing.jsonl") == []
    assert mended_lines(tmp_path / "new" / "nothing.jsonl") == [] and (tmp_path / "new").is_dir()  # it can be opened


@pytest.fixture(scope="module")
def small(random_model):
    """A tiny model of random weights and what it samples traces of."""
    model, tokenizer = (kind.from_pretrained(random_model) for kind in (AutoModelForCausalLM, AutoTokenizer))
    questions = [{"question": f"What is {n} + {n}?", "solution": str(2 * n)} for n in range(8)]
    told = {"sampling": Sampling(8, batch_size=4), "weights": fingerprint(model)}
    prompts, sampler = Prompts().fitted(tokenizer), BudgetSampler(low=2, high=8)
    return model, Material(tokenizer, prompts, questions, sampler, frozenset(stop_ids(model, tokenizer)), **told)


def test_traces_behind_a_damaged_line_are_sampled_again_as_they_were(small, tmp_path, caplog):
    model, material = small
    path = tmp_path / "traces.jsonl"
    whole = sample("free", model, material, 12, path, chunk=4)
    assert read_traces(path.read_text().splitlines(), material.weights) == (whole, 12)
    lines = path.read_text().splitlines()
    for damage in ("{garbage", "null", json.dumps({"sampled": 8, "traces": [{"question": "?"}]})):
        assert damage == "{garbage" or not is_chunk(json.loads(damage))
        path.write_text("\n".join([lines[0], damage, lines[2]]) + "\n")
        caplog.clear()
        assert sample("free", model, material, 12, path, chunk=4) == whole
        assert "traces.jsonl: line 2 is damaged" in caplog.text and path.read_text().splitlines() == lines
    assert len(list(tmp_path.glob("traces.jsonl.damaged-*"))) == 3


def test_traces_of_another_model_are_refused(small, tmp_path):
    model, material = small
    path = tmp_path / "traces.jsonl"
    sample("free", model, material, 4, path, chunk=4)
    chunk = json.loads(path.read_text())
    path.write_text(json.dumps({**chunk, "weights": "0123456789abcdef"}) + "\n")
    with pytest.raises(ValueError, match="holds traces of another model .*0123456789abcdef.* move the file away"):
        sample("free", model, material, 4, path, chunk=4)
    del chunk["weights"]  # an older version's
    path.write_text(json.dumps(chunk) + "\n")
    assert sample("free", model, material, 4, path, chunk=4) == chunk["traces"]


def test_completions_behind_a_damaged_line_are_sampled_again_as_they_were(small, tmp_path, caplog):
    model, material = small
    path, prompts = tmp_path / "completions.jsonl", [[5, 6, n] for n in range(12)]
    asked = {"sampling": material.sampling, "path": path}
    whole = complete(model, material.tokenizer, prompts, **asked)
    lines = path.read_text().splitlines()
    for damaged in (["[]", *lines[2:]], ["\0" * 20, *lines[2:]], None):
        path.write_text("\n".join([lines[0], *damaged]) + "\n" if damaged else "\0" * 100 + "\n")
        assert complete(model, material.tokenizer, prompts, **asked) == whole
        assert path.read_text().splitlines() == lines
    assert caplog.text.count("is damaged") == 3
    path.write_text(lines[0].replace('"seed": 0', '"seed": 1') + "\n")
    with pytest.raises(ValueError, match="holds completions of other prompts or settings"):
        complete(model, material.tokenizer, prompts, **asked)


def test_a_fingerprint_tells_models_apart_and_not_ways_of_loading(random_model):
    model = AutoModelForCausalLM.from_pretrained(random_model, dtype=torch.bfloat16)
    own = fingerprint(model)
    assert re.fullmatch("[0-9a-f]{16}", own) and fingerprint(model.float()) == own
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    assert fingerprint(adapted) == own
    with torch.no_grad():
        adapted.merge_and_unload().model.layers[1].mlp.up_proj.weight *= 1.1
    assert fingerprint(model) != own
    assert fingerprint(AutoModelForCausalLM.from_config(model.config)) != own
    with torch.device("meta"):
        assert fingerprint(AutoModelForCausalLM.from_config(model.config)) is None
    assert fingerprint(SimpleNamespace(stops={1})) is None  # an engine


def test_a_run_does_not_go_on_with_another_model(random_model, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(random_model)
    told = {"output_dir": tmp_path / "run", "resume_from_checkpoint": "true", "evaluate": False, "hindsight": False}
    record = {"model": {"model_name_or_path": "another"}, "weights": "0123456789abcdef"}
    write_json(tmp_path / "run" / "run.json", record)
    with pytest.raises(ValueError, match="run holds a run of 'another', whose weights are others; name another output"):
        run(*arguments("l1_exact", random_model, **told), tmp_path)
    assert json.loads((tmp_path / "run" / "run.json").read_text()) == record
    write_json(tmp_path / "run" / "run.json", {**record, "weights": fingerprint(model)})  # moved, and the same
    run(*arguments("l1_exact", random_model, **told, max_steps=1), tmp_path)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["weights"] == fingerprint(model)


# Two runs in one folder ----------------------------------------------------------------------------------------------


def claim_at_once(named: str | None, default, count: int = 6) -> list:
    """What so many processes find that ask for a folder at the same moment and then work there."""
    context = multiprocessing.get_context("fork")
    barrier, done, found = context.Barrier(count), context.Event(), context.Queue()

    def claim():
        barrier.wait()
        found.put(output._claimed(named, None, default))
        done.wait(60)

    processes = [context.Process(target=claim) for _ in range(count)]
    for process in processes:
        process.start()
    told = [found.get(timeout=60) for _ in processes]
    done.set()
    for process in processes:
        process.join()
    return told


def test_of_runs_that_are_started_at_once_in_one_folder_one_works(tmp_path):
    found = claim_at_once(str(tmp_path / "run"), tmp_path / "default")
    assert {folder for folder, _ in found} == {str(tmp_path / "run")}
    problems = [problem for _, problem in found if problem]
    assert len(problems) == 5 and all("is the folder of a run that is at work (process " in one for one in problems)


def test_a_run_of_several_variants_claims_its_folder_as_well(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=lambda: (output.claim(tmp_path / "run"), ready.set(), done.wait(60)))
    other.start()
    try:
        assert ready.wait(60)
        with pytest.raises(ValueError, match=f"is the folder of a run that is at work .process {other.pid}."):
            output.claim(tmp_path / "run")
    finally:
        done.set()
        other.join()
    output.claim(tmp_path / "run")  # which it may go on with now


def test_runs_that_are_started_at_once_without_a_folder_take_one_each(tmp_path):
    found = claim_at_once(None, tmp_path / "l1_maxlen")
    assert [problem for _, problem in found] == [None] * 6
    assert {folder for folder, _ in found} == {
        str(tmp_path / f"l1_maxlen{end}") for end in ("", *map("-{}".format, range(2, 7)))
    }


@pytest.mark.parametrize("works", [True, False])
def test_a_run_on_another_host_is_at_work_as_long_as_it_marks_its_heartbeat(works, tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "ELSEWHERE", 2.0)
    record = {"pid": 7, "born": 1, "host": "elsewhere", "boot": "another", "time": time.time(), "state": "running"}
    write_json(tmp_path / "run" / heartbeat.NAME, record)
    done = threading.Event()

    def mark():
        while works and not done.wait(0.3):
            os.utime(tmp_path / "run" / heartbeat.NAME)

    thread = threading.Thread(target=mark)
    thread.start()
    _, problem = output._claimed(str(tmp_path / "run"), "true", tmp_path)
    done.set()
    thread.join()
    assert problem is None or works
    if works:
        assert problem == (
            "is the folder of a run that is at work (on elsewhere, process 7); wait for its end, or stop it first"
        )


def test_a_run_marks_its_heartbeat_until_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "TOUCH", 0.1)
    monkeypatch.setattr(heartbeat, "_worked_in", [])  # a thread of its own, that soon marks
    heartbeat.begin(tmp_path)
    assert heartbeat.changes(tmp_path, 10)
    heartbeat.beat(tmp_path, state="finished")
    time.sleep(0.3)
    assert not heartbeat.changes(tmp_path, 1)


# The clock -----------------------------------------------------------------------------------------------------------


def checkpoints(folder, *ages: float) -> None:
    """Checkpoints 1, 2, ... that were written so many seconds ago."""
    for step, age in enumerate(ages, 1):
        (folder / f"checkpoint-{step}").mkdir(parents=True)
        os.utime(folder / f"checkpoint-{step}", (time.time() - age,) * 2)


@pytest.mark.parametrize("ages", [(-7200, -3600, 0), (-7200, 60, 0), (120, 60, 0), (0, 0, 0)])
@pytest.mark.parametrize("mended", [True, False])
def test_trap_a_clock_that_is_set_back_costs_the_newest_checkpoint(ages, mended, tmp_path):
    checkpoints(tmp_path, *ages[:-1])
    if mended:
        told = SimpleNamespace(output_dir=str(tmp_path)), SimpleNamespace(is_world_process_zero=True)
        CheckpointsInOrder().on_step_end(*told, SimpleNamespace(should_save=True))
    (tmp_path / "checkpoint-3").mkdir()
    rotate_checkpoints(str(tmp_path), 1, use_mtime=True)  # as transformers' trainer does after each checkpoint
    left = [path.name for path in tmp_path.iterdir()]
    assert (left == ["checkpoint-3"]) == (mended or min(ages) >= 0)


def test_the_age_of_a_heartbeat_is_that_of_a_clock_that_cannot_be_set(tmp_path):
    heartbeat.begin(tmp_path)
    record = heartbeat.read(tmp_path)
    for jump in (-86400, 86400):
        assert heartbeat.age({**record, "time": record["time"] + jump}) < 60
    assert heartbeat.age({**record, "boot": "another", "time": time.time() - 100}) >= 99
    assert heartbeat.age({**record, "boot": "another", "time": time.time() + 100}) == 0.0


def test_no_span_of_time_is_measured_by_the_clock_of_the_day():
    found = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "rlred").rglob("*.py"))
        if re.search(r"\btime\.time\(\)|datetime\.now|perf_counter\(\) - time\.time", path.read_text(encoding="utf-8"))
    ]
    assert found == ["rlred/heartbeat.py", "rlred/training/callbacks.py"]  # moments, for a reader and for files


# Real runs -----------------------------------------------------------------------------------------------------------

QUICK = {**SMALL, "hindsight": False, "evaluate": False, "save_steps": 1}


def recipe(flags: dict, name: str = "l1_maxlen") -> list[str]:
    return [sys.executable, f"recipes/{name}.py", *(word for pair in flags.items() for word in _flag(*pair))]


def environment(*paths) -> dict:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(map(str, (*paths, ROOT)))}


CLOCK = """
import os, time
real = time.time
def jumped():
    return real() - (3e8 if os.path.exists({after!r}) else 0)
time.time = jumped
"""


@pytest.mark.slow
def test_a_run_through_a_jump_of_the_clock_is_whole_and_says_true_minutes(tmp_path):
    folder, faked = tmp_path / "run", tmp_path / "faked"
    faked.mkdir()
    (faked / "sitecustomize.py").write_text(CLOCK.format(after=str(folder / "best" / "best.json")))
    flags = {**QUICK, "evaluate": True, "max_steps": 3, "save_total_limit": 1, "output_dir": folder}
    done = subprocess.run(recipe(flags), cwd=ROOT, env=environment(faked), capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr[-2000:]
    record = heartbeat.read(folder)
    assert record["time"] < record["started"] - 2e8  # it did jump
    assert 0 < record["seconds_per_step"] < 300 and heartbeat.age(record) < 300
    assert 0 < json.loads((folder / "adherence.json").read_text())["cost"]["minutes"] < 30
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-3"]


@pytest.mark.slow
def test_two_real_runs_at_once_in_one_folder_are_one_run_and_one_line(tmp_path):
    told = {**QUICK, "max_steps": 4, "output_dir": tmp_path / "run"}
    runs = [start("l1_maxlen", {**told, "seed": seed}) for seed in (1, 2)]
    said = [run.communicate(timeout=600)[1] for run in runs]
    codes = [run.returncode for run in runs]
    assert sorted(codes) == [0, 2], "".join(said)[-3000:]
    [line] = [line for line in said[codes.index(2)].splitlines() if line.startswith("error: ")]
    assert "is the folder of a run that is at work (process " in line and "Traceback" not in "".join(said)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["training"]["seed"] == 1 + codes.index(0)  # nothing of the other
    assert json.loads((tmp_path / "run" / "trainer_state.json").read_text())["global_step"] == 4


@pytest.fixture
def small_disk(tmp_path):
    """A function that runs a recipe on a disk of so many KiB, and again on a larger one: what each said and left."""
    if subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", str(tmp_path)]).returncode:
        pytest.skip("a file system of a few KiB cannot be mounted here (root?)")

    def on(kib: int, flags: dict):
        disk = tmp_path / "disk"
        disk.mkdir()
        told = {**flags, "output_dir": disk / "run"}
        first, again = recipe(told), recipe({**told, "resume_from_checkpoint": "true"})
        script = tmp_path / "both.py"
        script.write_text(
            "import json, subprocess, shutil, sys\n"
            f"first, again, kept = {first!r}, {again!r}, {str(tmp_path)!r}\n"
            f"subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size={kib}k', 'none', {str(disk)!r}], check=True)\n"
            "one = subprocess.run(first, capture_output=True, text=True)\n"
            f"shutil.copytree({str(disk)!r}, kept + '/after-first')\n"
            f"subprocess.run(['mount', '-o', 'remount,size=64m', {str(disk)!r}], check=True)\n"
            "two = subprocess.run(again, capture_output=True, text=True)\n"
            f"shutil.copytree({str(disk)!r}, kept + '/after-again')\n"
            "print(json.dumps([[done.returncode, done.stderr] for done in (one, two)]))\n"
        )
        words = ["unshare", "--mount", sys.executable, str(script)]
        done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout), tmp_path / "after-first" / "run", tmp_path / "after-again" / "run"

    return on


START = {"num_samples": 64, "max_updates": 2, "batch_size": 8, "probe_every": 2, "num_probe_questions": 2}
START |= {"cooldown_updates": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    "where, kib, flags, there, lacking",
    [
        # the settings and the base's completions are written, what came of them is not
        ("evaluation", 20, {"evaluate": True}, "measures/baseline.asked.json", "measures/baseline.json"),
        (
            "hindsight",
            128,
            {"hindsight": True, "hindsight_settings": json.dumps(START)},
            "hindsight/traces.jsonl",
            "hindsight/hindsight.json",
        ),
    ],
)
def test_a_disk_that_fills_up_is_one_line_and_what_was_sampled_is_kept(where, kib, flags, there, lacking, small_disk):
    told = {**QUICK, **flags, "max_steps": 1, "eval_batch_size": 8}
    [(code, said), (again, after)], before, finished = small_disk(kib, told)
    [line] = [line[line.index("error: ") :] for line in said.splitlines() if "error: " in line]
    print(f"disk full during {where}: {line}")
    assert code == 1 and line.startswith("error: the disk is full; ") or "is the disk full?" in line
    assert "Traceback" not in said and "--resume_from_checkpoint true goes on from its start" in line
    assert (before / there).exists() and not (before / lacking).exists()
    assert again == 0 and "damaged" not in after, after[-2000:]
    assert (finished / lacking).exists() and (finished / "adapter_model.safetensors").exists()
    if where == "hindsight":  # not sampled again
        assert (before / there).read_text() and (finished / there).read_text().startswith((before / there).read_text())


@pytest.mark.slow
def test_a_start_whose_traces_are_damaged_says_so_and_ends_as_it_would_have(tmp_path, caplog):
    told = {**QUICK, "hindsight": True, "hindsight_settings": json.dumps(START), "max_steps": 1}
    folder = tmp_path / "run"
    run(*arguments("l1_maxlen", "tiny_reasoner", **told, output_dir=folder), tmp_path)
    whole = (folder / "hindsight" / "traces.jsonl").read_bytes()
    shutil.copytree(folder, tmp_path / "again")
    again = tmp_path / "again" / "hindsight"
    for path in list(again.iterdir()):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (again / "traces.jsonl").write_bytes(b"\0" * 100 + b"\n" + whole)
    for path in (tmp_path / "again").glob("checkpoint-*"):
        shutil.rmtree(path)
    caplog.set_level(logging.WARNING)
    run(
        *arguments("l1_maxlen", "tiny_reasoner", **told, output_dir=again.parent, resume_from_checkpoint="true"),
        tmp_path,
    )
    assert "traces.jsonl: line 1 is damaged; it and all after it (2 lines) are made again" in caplog.text
    assert (again / "traces.jsonl").read_bytes() == whole
    adapters = [path / "adapter_model.safetensors" for path in (folder, again.parent)]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()

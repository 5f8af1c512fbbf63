"""The curves in the trackers: TRL's own `--report_to`, the same names in each, every reward raw beside shaped."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from transformers import TrainerCallback

from rlred.training.trackers import EVENTS, Guarded, check_trackers
from tests.paths import ROOT
from tests.test_recipes import SMALL, _flag, arguments, run

CURVES = {
    "train/adherence/mean_abs_error",
    "train/adherence/over_budget",
    "train/adherence/batch_rank_correlation",
    "train/adherence/spread_ratio",
    "train/adherence/length_std",
    "train/rewards/by_mode/mean",
    "train/rewards/correctness/mean",  # weight 0: what the shaped reward is made from
    "train/reward",
    "train/entropy",
}


def curves_of_tensorboard(folder) -> set[str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(next(folder.rglob("events.out.*")).parent))
    events.Reload()
    return set(events.Tags()["scalars"])


def curves_of_trackio(folder) -> set[str]:
    code = (
        "import json; from trackio.sqlite_storage import SQLiteStorage as S; "
        "[project] = S.get_projects(); [run] = S.get_runs(project); "
        "print(json.dumps(sorted({name for row in S.get_logs(project, run) for name in row})))"
    )
    environment = {**os.environ, "TRACKIO_DIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "tracker, curves_of",
    [("tensorboard", curves_of_tensorboard), pytest.param("trackio", curves_of_trackio, marks=pytest.mark.slow)],
)
def test_every_tracker_has_the_same_curves(tracker, curves_of, tmp_path):
    pytest.importorskip(tracker)
    flags = {**SMALL, "hindsight": False, "evaluate": False, "report_to": tracker, "output_dir": tmp_path / "run"}
    command = [sys.executable, "recipes/l1_maxlen.py", *(word for pair in flags.items() for word in _flag(*pair))]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRACKIO_DIR": str(tmp_path / "logs")}
    environment["TENSORBOARD_LOGGING_DIR"] = str(tmp_path / "logs")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert CURVES <= curves_of(tmp_path / "logs")


def test_a_tracker_whose_place_is_gone_is_one_warning_and_the_run_goes_on(tmp_path, monkeypatch, caplog):
    pytest.importorskip("tensorboard")
    (tmp_path / "logs").write_text("a file, where a folder is needed")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "logs"))
    flags = {"hindsight": False, "evaluate": False, "report_to": "tensorboard", "log_completions": True}
    run(*arguments("l1_exact", "tiny_reasoner", output_dir=tmp_path / "run", **flags), tmp_path)
    warned = [record.getMessage() for record in caplog.records if "report_to: " in record.getMessage()]
    assert len(warned) == 1 and warned[0].startswith("report_to: tensorboard does not answer (")
    assert (tmp_path / "run" / "adapter_model.safetensors").exists()


class Tracker(TrainerCallback):
    """Answers twice, then its server is gone."""

    def __init__(self):
        self.called = []

    def on_log(self, args, state, control, **kwargs):
        self.called.append(kwargs["logs"])
        if len(self.called) > 2:
            raise ConnectionResetError("the server\nis gone")


def test_a_tracker_that_goes_in_the_middle_is_asked_no_more(caplog):
    tracker, args = Tracker(), SimpleNamespace(report_to=["wandb", "tensorboard"])
    guarded = Guarded("wandb", tracker)
    for step in range(5):
        for event in EVENTS:
            getattr(guarded, event)(args, None, None, logs={"loss": step}, metrics={})
    assert tracker.called == [{"loss": step} for step in range(3)]
    assert [record.getMessage() for record in caplog.records] == [
        "report_to: wandb does not answer (the server is gone); the run goes on without it"
    ]
    assert args.report_to == ["tensorboard"]  # TRL sends its table of completions to these
    assert {"on_log", "on_train_begin", "on_train_end", "on_step_end", "on_save"} <= set(EVENTS)


@pytest.mark.parametrize(
    "told, message",
    [
        (["none"], None),
        ("tensorboard", None),
        (["all"], None),
        (["weights_and_biases"], "there is no such tracker; there are azure_ml"),
        (["dvclive"], "report_to='dvclive': it is not installed"),
    ],
)
def test_a_tracker_that_is_not_there_is_said_before_the_run(told, message):
    if message is None:
        check_trackers(SimpleNamespace(report_to=told))
        return
    with pytest.raises(ValueError, match=message):
        check_trackers(SimpleNamespace(report_to=told))

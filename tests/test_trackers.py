"""The curves in the trackers: TRL's own `--report_to`, the same names in each, every reward raw beside shaped."""

import json
import os
import subprocess
import sys

import pytest

from tests.paths import ROOT
from tests.test_recipes import SMALL, _flag

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

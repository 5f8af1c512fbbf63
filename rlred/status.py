"""`rlred status`: what a run last said of itself, and whether it is still at work."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from rlred.heartbeat import NAME, age, alive, read
from rlred.housekeeping import checkpoints_of, has_ended, in_words, number_of, size_of

ADHERENCE = ("mean_abs_error", "over_budget", "batch_rank_correlation")
SLOW = 10  # a step that takes so many times as long as those before it is said


@dataclass(frozen=True)
class Status:
    """What is known of a run."""

    folder: Path
    state: str
    """running, finished, failed, dead, or unknown (of another host)."""
    record: dict = field(default_factory=dict)
    """Its heartbeat, or what its last checkpoint tells."""
    age: float | None = None
    """Seconds since the heartbeat."""

    @property
    def seconds_left(self) -> float | None:
        """What the training still takes at the last rate; None where that is not known."""
        rate, step, last = (self.record.get(name) for name in ("seconds_per_step", "step", "max_steps"))
        return None if rate is None or not last or step is None else rate * max(0, last - step)


def run_of(folder: Path) -> Path:
    """A folder in which a run has left something. Raises `ValueError` for any other."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; name the output folder of a run")
    if not any((folder / name).exists() for name in (NAME, "run.json", "adapter_model.safetensors")):
        raise ValueError(f"{folder}: holds no run ({NAME} and run.json are missing); name the output folder of one")
    return folder


def status_of(folder: Path) -> Status:
    """The status of a run; of one without a heartbeat (an older version's) what its files tell."""
    record = read(folder)
    if record is None:
        state = "finished" if has_ended(folder) else "unknown"
        return Status(folder, state, _from_files(folder))
    state = record.get("state")
    if state not in ("finished", "failed"):
        there = alive(record)
        state = "unknown" if there is None else "running" if there else "dead"
    return Status(folder, state, record, age(record))


def _from_files(folder: Path) -> dict:
    """Step, last step and figures from the trainer's state, of the folder or of its last checkpoint."""
    places = [folder, *reversed(checkpoints_of(folder))]
    for place in places:
        try:
            state = json.loads((place / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        logs = [entry for entry in state.get("log_history", []) if "reward" in entry]
        told = {"step": state.get("global_step"), "max_steps": state.get("max_steps"), "stage": "training"}
        return told | ({"first": logs[0], "last": logs[-1]} if logs else {})
    return {}


def duration(seconds: float) -> str:
    """A span of time for a reader.

    >>> duration(42), duration(3600 * 5 + 59), duration(86400 * 2 + 3600)
    ('42 s', '5 h 0 min', '2 d 1 h')
    """
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return f"{days} d {hours % 24} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"


def described(status: Status) -> str:
    """The lines that `rlred status` prints."""
    record, lines = status.record, [f"{status.folder}: {_headline(status)}"]
    if "pid" in record:
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.get("started", 0)))
        lines.append(
            f"  process    {record['pid']} on {record['host']}, since {began}; heartbeat {duration(status.age)} ago"
        )
    if status.state == "failed" and record.get("error"):
        lines.append(f"  error      {record['error']}")
    if figures := _figures(record):
        lines.append(f"  so far     {figures}")
    checkpoints = checkpoints_of(status.folder)
    last = f", the last checkpoint of step {number_of(checkpoints[-1])}" if checkpoints else ""
    lines.append(f"  disk       {in_words(size_of(status.folder))} in the folder{last}")
    lines += [f"  warning    {one['text']}" for one in record.get("warnings", [])[-5:]]
    if status.state in ("dead", "failed"):
        lines.append(f"  go on      --output_dir {status.folder} --resume_from_checkpoint true, {_from(status.folder)}")
    return "\n".join(lines)


def _headline(status: Status) -> str:
    record, said = status.record, [status.state]
    if status.state in ("running", "unknown", "dead") and record.get("stage"):
        said.append(record["stage"])
    if record.get("step") is not None and record.get("max_steps"):
        share = 100 * record["step"] / record["max_steps"]
        said.append(f"step {record['step']} of {record['max_steps']} ({share:.0f} %)")
    rate = record.get("seconds_per_step")
    if rate is not None:
        said.append(f"{rate:.3g} s per step")
    if status.state in ("running", "unknown"):
        if status.seconds_left is not None:
            said.append(f"about {duration(status.seconds_left)} left in this stage")
        if rate and status.age and status.age > max(60.0, SLOW * rate):
            said.append(f"no sign of life for {duration(status.age)}")
    return ", ".join(said)


def _figures(record: dict) -> str:
    """Reward and adherence of the last log, with those of the first."""
    first, last = record.get("first") or {}, record.get("last") or {}
    names = ("reward", *(f"adherence/{name}" for name in ADHERENCE), "completions/mean_length")
    told = [(name.rpartition("/")[2], first.get(name), last[name]) for name in names if last.get(name) is not None]
    return ", ".join(
        f"{name} {now:.3g}" + (f" (first {then:.3g})" if then is not None else "") for name, then, now in told
    )


def _from(folder: Path) -> str:
    from rlred.output import last_checkpoint  # here: it imports TRL, which a running run need not wait for

    found = last_checkpoint(folder)
    return f"from {found}" if found else "from its start: no checkpoint was written to its end"

"""The folder of a run: found or made before the first step, never written over, gone on with when asked."""

import errno
import json
import logging
import re
import sys
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError, safe_open
from trl import GRPOConfig

from rlred import hosts
from rlred.claims import NOTE, at_work
from rlred.files import locked
from rlred.heartbeat import beat, begin, read
from rlred.housekeeping import checkpoints_of

logger = logging.getLogger(__name__)

# What requests and httpx call a server that is gone, or breaks off or fails again and again.
UNANSWERED = ("ConnectionError", "ConnectError", "ConnectTimeout", "ReadTimeout", "RetryError", "ChunkedEncodingError")

# What gloo, torch's store and NCCL say where the process at the other end is gone, or is not reached any more.
PEER_GONE = re.compile(
    r"gloo.*(closed by peer|reset by peer|Broken pipe|No route to host|unreachable|Timed out|timed out)"
    r"|ncclRemoteError|The client socket has (failed to connect|timed out)|failed to recv, got 0 bytes",
    re.DOTALL,
)

WAITED = re.compile(
    r"gloo.*Timed out waiting \d+ms", re.DOTALL
)  # what gloo says after ddp_timeout; NCCL ends the process


def prepare_output_dir(training: GRPOConfig, default: Path) -> Path:
    """The folder of this run, made by the main process; a finished run is never written over.

    Without `--output_dir` the first free of `default`, `default-2`, ... is taken. Raises `ValueError` for a named
    folder that already holds a run, unless it is to be resumed.
    """
    state = PartialState()
    chosen: list = [None, None]  # the folder, and what is the matter with it
    resume = resume_of(training)
    if resume and resume != "true" and not Path(resume).is_dir():
        raise ValueError(f"resume_from_checkpoint={resume!r} is not a folder; give a checkpoint's folder, or true")
    if state.is_main_process:
        chosen = _claimed(training.output_dir, resume, default)
    broadcast_object_list(chosen)
    if chosen[1] is not None:
        raise ValueError(f"output_dir={chosen[0]!r} {chosen[1]}")
    training.output_dir, folder = chosen[0], Path(chosen[0])
    if state.is_main_process:
        logger.info("output: %s", folder)
    if hosts.several():
        hosts.check_shared(folder, lambda: read(folder))
        hosts.watch(lambda why: _end(training, why))
    return folder


def claim(folder: Path) -> None:
    """Makes a folder this run's own, whatever lies there. Raises `ValueError` where another run is at work in it."""
    told = [None]
    if PartialState().is_main_process:
        told = _claimed(str(folder), "true", folder)[1:]
    broadcast_object_list(told)
    if told[0] is not None:
        raise ValueError(f"output_dir={str(folder)!r} {told[0]}")


def _claimed(named: str | None, resume: str | None, default: Path) -> list:
    """The folder of a run and what is the matter with it; where nothing is, it is this run's from now on.

    Of two runs that are started at once, one looks after the other has begun.
    """
    parent = _chosen(named, None, default).parent
    parent.mkdir(parents=True, exist_ok=True)
    with locked(parent):
        chosen = _chosen(named, resume, default)
        problem = _problem_of(chosen, resume)
        if problem is None:
            chosen.mkdir(exist_ok=True)
            begin(chosen)
    return [str(chosen), problem]


def _end(training: GRPOConfig, why: str) -> None:
    """Says why a run ends that cannot end by itself, and keeps it."""
    sys.stderr.write(f"error: {why}; {resume_hint(training)}\n")
    beat(Path(training.output_dir), state="failed", error=why)


def check_output_dir(training: GRPOConfig, default: Path) -> None:
    """Raises the `ValueError`s of `prepare_output_dir`, and makes no folder."""
    resume = resume_of(training)
    folder = _chosen(training.output_dir, resume, default)
    if problem := _problem_of(folder, resume):
        raise ValueError(f"output_dir={str(folder)!r} {problem}")


def _chosen(named: str | None, resume: str | None, default: Path) -> Path:
    """The folder that is named, or gone on with, or the first that is free."""
    if named in (None, "trainer_output"):
        return _resumed_folder(resume, default) if resume else _free_folder(default)
    return Path(named)


def _problem_of(folder: Path, resume: str | None) -> str | None:
    """Why a run cannot work in a folder; None where it can."""
    if where := _at_work(folder):
        return f"is the folder of a run that is at work ({where}); wait for its end, or stop it first"
    if not resume and holds_run(folder):
        return "already holds a run; name another folder, or pass --resume_from_checkpoint true to go on with it"
    return None


def _at_work(folder: Path) -> str | None:
    """The process of another run, or of a command, that works in a folder, in words; None where there is none."""
    return at_work(folder) or at_work(folder, NOTE)


def resume_of(training: GRPOConfig) -> str | None:
    """`--resume_from_checkpoint` as "true", a folder, or None."""
    resume = str(training.resume_from_checkpoint or "false")
    return {"true": "true", "false": None}.get(resume.lower(), resume)


def holds_run(folder: Path) -> bool:
    """Whether a run has left something worth keeping in a folder."""
    return folder.is_dir() and any((folder / name).exists() for name in ("run.json", "adapter_model.safetensors"))


def _free_folder(default: Path) -> Path:
    folder, number = default, 1
    while holds_run(folder) or _at_work(folder):
        number += 1
        folder = default.with_name(f"{default.name}-{number}")
    return folder


def _resumed_folder(resume: str, default: Path) -> Path:
    if resume != "true":
        return Path(resume).parent
    folder = _free_folder(default)
    names = [default, *(default.with_name(f"{default.name}-{n}") for n in range(2, 1000))]
    before = [name for name in names[: names.index(folder)] if holds_run(name)]
    if not before:
        raise ValueError(f"resume_from_checkpoint={resume!r}: there is no run in {default} to go on with")
    return before[-1]


def checkpoint_of(training: GRPOConfig) -> str | None:
    """The checkpoint to resume from: the one that is named, or the last of the output folder, if there is one."""
    resume = resume_of(training)
    if resume is None:
        return None
    if resume == "true":
        # A run that was stopped before its first checkpoint goes on from its hindsight adapter.
        return last_checkpoint(Path(training.output_dir))
    if not is_whole(Path(resume)):
        raise ValueError(
            f"resume_from_checkpoint={resume!r} is not a whole checkpoint; name an earlier one, or give true to go on "
            "from the last whole one"
        )
    return resume


def last_checkpoint(folder: Path) -> str | None:
    """The last checkpoint in a folder that was written to its end; those that a crash cut short are passed over."""
    for path in reversed(checkpoints_of(folder)):
        if is_whole(path):
            return str(path)
        logger.warning("%s was not written to its end, and is not resumed from", path)
    return None


def is_whole(checkpoint: Path) -> bool:
    """Whether every file of a checkpoint is there to its last byte. The trainer writes `trainer_state.json` last."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        for path in checkpoint.rglob("*.safetensors"):
            safe_open(path, framework="pt")
        return all(zipfile.is_zipfile(path) for ending in ("*.pt", "*.pth") for path in checkpoint.rglob(ending))
    except (OSError, ValueError, SafetensorError):
        return False


def external_failure(error: BaseException | None) -> str | None:
    """What outside this program ended a run: a full disk, a server or a process that is gone; None for all else.

    >>> external_failure(OSError(errno.ENOSPC, "No space left on device"))
    'the disk is full'
    >>> external_failure(KeyError("budget")) is None
    True
    """
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            return "the disk is full"
        if "inline_container" in str(error):  # all that torch.save says of a write that failed
            return "torch could not write a file (is the disk full?)"
        if isinstance(error, ConnectionError) or type(error).__name__ in UNANSWERED:
            return f"a server does not answer ({_address(error) or str(error).splitlines()[0][:160]}); start it again"
        if type(error).__name__ == "WeightsLost":  # rlred/evaluation/vllm_restart.py
            return str(error)
        if isinstance(error, RuntimeError) and WAITED.search(str(error)):
            waited = "another process of this run was waited for longer than ddp_timeout"
            return f"{waited}; it is gone, or it works alone for longer, and then --ddp_timeout is too small"
        if isinstance(error, RuntimeError) and PEER_GONE.search(str(error)):
            named = re.search(r"\[([\d.]+|[\da-f:]*::[\da-f:]*)\]:\d+", str(error))
            where = f" on the host {named[1]}" if named else ""
            return f"another process of this run{where} is gone, or is not reached any more"
        if type(error) is Exception and str(error).startswith("Request failed: "):  # all that TRL's vLLM client says
            return f"the vLLM server cannot do what it is asked ({' '.join(str(error).split())[:200]})"
        error = error.__cause__ or error.__context__
    return None


def _address(error: BaseException) -> str | None:
    """Scheme, host and port of the request that failed, where the error of `requests` carries it."""
    url = getattr(vars(error).get("request"), "url", None)
    return url and "://".join(urlsplit(url)[:2])


def resume_hint(training: GRPOConfig) -> str:
    """Where a run that broke off can be taken up."""
    found = last_checkpoint(Path(training.output_dir)) if training.output_dir else None
    start = f"from {found}" if found else "from its start: no checkpoint was written to its end"
    return f"when that is mended, --output_dir {training.output_dir} --resume_from_checkpoint true goes on {start}"

"""The folder of a run: found or made before the first step, never written over, gone on with when asked."""

import logging
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers.trainer_utils import get_last_checkpoint
from trl import GRPOConfig

logger = logging.getLogger(__name__)


def claim_output(training: GRPOConfig, default: Path) -> Path:
    """The folder of this run, made by the main process; a finished run is never written over.

    Without `--output_dir` the first free of `default`, `default-2`, ... is taken. Raises `ValueError` for a named
    folder that already holds a run, unless it is to be resumed.
    """
    state = PartialState()
    chosen: list = [None]
    resume = resume_of(training)
    if resume and resume != "true" and not Path(resume).is_dir():
        raise ValueError(f"resume_from_checkpoint={resume!r} is not a folder; give a checkpoint's folder, or true")
    if state.is_main_process:
        if training.output_dir in (None, "trainer_output"):
            chosen = [str(_resumed_folder(resume, default) if resume else _free_folder(default))]
        elif not resume and holds_run(Path(training.output_dir)):
            chosen = [None]
        else:
            chosen = [training.output_dir]
        if chosen[0] is not None:
            Path(chosen[0]).mkdir(parents=True, exist_ok=True)
    broadcast_object_list(chosen)
    if chosen[0] is None:
        raise ValueError(
            f"output_dir={training.output_dir!r} already holds a run; name another folder, or pass "
            "--resume_from_checkpoint true to go on with it"
        )
    training.output_dir = chosen[0]
    if state.is_main_process:
        logger.info("output: %s", training.output_dir)
    return Path(training.output_dir)


def resume_of(training: GRPOConfig) -> str | None:
    """`--resume_from_checkpoint` as "true", a folder, or None."""
    resume = str(training.resume_from_checkpoint or "false")
    return {"true": "true", "false": None}.get(resume.lower(), resume)


def holds_run(folder: Path) -> bool:
    """Whether a run has left something worth keeping in a folder."""
    return folder.is_dir() and any((folder / name).exists() for name in ("run.json", "adapter_model.safetensors"))


def _free_folder(default: Path) -> Path:
    folder, number = default, 1
    while holds_run(folder):
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
    if resume is None or resume != "true":
        return resume
    # A run that was stopped before its first checkpoint goes on from its hindsight adapter.
    return get_last_checkpoint(training.output_dir)

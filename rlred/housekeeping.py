"""What a run's folder holds that can go: `rlred clean` and the disk budget of a running run ask here.

Never among it: the adapter, run.json, results and what they were measured on, and the checkpoint to go on from.
"""

import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from rlred.heartbeat import read

logger = logging.getLogger(__name__)

COMPLETIONS = "completions"  # TRL's `log_completions` writes a table there at each log
LEFT_OVER = (".best-new", ".best-old", "partial")  # folders that a crash can leave behind
# Of rlred.files.write_text, and of nothing that a user may have called so.
TEMPORARY = re.compile(r"\.(?P<name>[^.].*\.(?:jsonl?|md|html|txt|yaml|csv|jinja))\.[a-z0-9_]{8}")


@dataclass(frozen=True)
class Removable:
    """A file or folder that can go, how many bytes that frees, and why it is not needed."""

    path: Path
    size: int
    why: str

    def remove(self) -> bool:
        """Removes it, and says whether it is gone; what is gone already is no error."""
        if self.path.is_dir():
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            self.path.unlink(missing_ok=True)
        return not self.path.exists()


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; those that vanish meanwhile count nothing."""
    total = 0
    for one in [path, *path.rglob("*")] if path.is_dir() else [path]:
        try:
            total += one.lstat().st_size if not one.is_dir() else 0
        except OSError:
            pass
    return total


def number_of(path: Path) -> int:
    """The step in a name such as checkpoint-20 or completions_00020.parquet; -1 where there is none.

    >>> number_of(Path("checkpoint-20")), number_of(Path("completions_100000.parquet")), number_of(Path("best"))
    (20, 100000, -1)
    """
    found = re.fullmatch(r".*[-_](\d+)", path.name.removesuffix(".parquet"))
    return int(found[1]) if found else -1


def completions_of(folder: Path) -> list[Path]:
    """The completions tables of a run, the oldest first."""
    return sorted((folder / COMPLETIONS).glob("completions_*.parquet"), key=number_of)


def checkpoints_of(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the oldest first; not a copy that somebody has put beside them by another name."""
    found = (path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name))
    return sorted((path for path in found if path.is_dir()), key=number_of)


def has_ended(folder: Path) -> bool:
    """Whether a run, or a stage with a folder of its own, has saved what it trained for.

    A run that goes on has the weights of its earlier end until it ends again: its heartbeat says so.
    """
    saved = (folder / "adapter_model.safetensors").exists() or (folder / "model.safetensors").exists()
    record = read(folder)
    return saved and (record is None or record.get("state") == "finished")


def is_stage(folder: Path) -> bool:
    """Whether an SFT of a run has worked in a folder, which then leaves a state or checkpoints there."""
    return (folder / "trainer_state.json").exists() or bool(checkpoints_of(folder))


def removable(folder: Path) -> list[Removable]:
    """What can go, in the order in which it should: the oldest completions first, checkpoints last."""
    found = [Removable(path, size_of(path), "completions of a log") for path in completions_of(folder)]
    for path in sorted([*folder.rglob(".*"), *folder.rglob("partial")]):
        named = TEMPORARY.fullmatch(path.name)
        if path.name.startswith(".best-") and not path.with_name("best").exists():
            continue  # cut off between two renames: there is no other copy of the best adapter
        if path.name == "partial" and not is_stage(path.parent):
            continue  # a folder of somebody's own
        if path.is_file() and named or path.is_dir() and path.name in LEFT_OVER:
            found.append(Removable(path, size_of(path), "left behind by a write that was cut off"))
    start = folder / "hindsight"
    if (start / "hindsight.json").exists():
        found += [Removable(path, size_of(path), "the start is finished") for path in checkpoints_of(start)]
    return found + spare_checkpoints(folder)


def spare_checkpoints(folder: Path) -> list[Removable]:
    """All checkpoints of a run that has ended; of another one those before the last whole one."""
    found = checkpoints_of(folder)
    if has_ended(folder):
        return [Removable(path, size_of(path), "the run has ended") for path in found]
    if not found:
        return []
    from rlred.output import last_checkpoint  # here: it imports TRL

    last = last_checkpoint(folder)
    kept = Path(last) if last else found[-1]
    earlier = [path for path in found if number_of(path) < number_of(kept)]
    return [Removable(path, size_of(path), f"{kept.name} is later, and whole") for path in earlier]


def keep_within(folder: Path, most: int) -> tuple[int, int]:
    """Removes what can go, in order, until a folder has at most `most` bytes; its bytes before and after."""
    before = total = size_of(folder)
    for one in removable(folder) if total > most else ():
        one.remove()
        total -= one.size
        if total <= most:
            break
    return before, total


def in_words(size: float) -> str:
    """A number of bytes for a reader.

    >>> in_words(300), in_words(5 * 2**20), in_words(3.25 * 2**30)
    ('300 B', '5.0 MiB', '3.2 GiB')
    """
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} B"

"""`rlred doctor`: what is installed, on which devices, and the traps that stop or mislead a run on this machine.

versions   rlred and what it needs, each against its bounds; extras and what they lack
devices    the processor, the memory, the disk, the accelerators
traps      DeepSpeed's stale lock, `use_cpu` beside DeepSpeed, a full disk, a cache that cannot be written
"""

import os
import platform
import shutil
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from packaging.requirements import Requirement

import rlred
from rlred.housekeeping import in_words
from rlred.train import HERE

STALE = "deepspeed_shm_comm/lock"
LEAST_FREE = 2 * 2**30  # bytes, below which a run of a small model may not end


def requirements() -> dict[str, list[Requirement]]:
    """What the package needs (under "") and what each extra adds, as the installed metadata or pyproject.toml says."""
    project = HERE.parent / "pyproject.toml"
    if project.is_file():  # of a checkout; an editable install may have older metadata
        told = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        groups = {"": told["dependencies"], **told["optional-dependencies"]}
        return {name: [Requirement(text) for text in texts] for name, texts in groups.items()}
    found: dict[str, list[Requirement]] = {"": []}
    for text in distribution("rlred").requires or ():
        requirement = Requirement(text)
        extras = [
            name for name in distribution("rlred").metadata.get_all("Provides-Extra") or () if _is_of(requirement, name)
        ]
        found.setdefault(extras[0] if extras else "", []).append(requirement)
    return found


def _is_of(requirement: Requirement, extra: str) -> bool:
    marker = requirement.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})


def problem_of(requirement: Requirement) -> str | None:
    """What is the matter with an installed package; None where it is there, within its bounds.

    >>> problem_of(Requirement("torch>=1")), problem_of(Requirement("torch<1")).split(" is ")[1]
    (None, 'outside <1')
    """
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement.name} is missing ({requirement.specifier})"
    if not requirement.specifier.contains(found, prereleases=True):
        return f"{requirement.name} {found} is outside {requirement.specifier}"
    return None


def versions() -> tuple[list[str], list[str]]:
    """Lines of a table, and what is wrong with the packages that every run needs."""
    groups = requirements()
    needed = groups.pop("")
    lines = [f"rlred {rlred.__version__}, Python {platform.python_version()}, {platform.platform()}"]
    for requirement in needed:
        lines.append(f"  {problem_of(requirement) or f'{requirement.name} {version(requirement.name)}'}")
    for extra, added in groups.items():
        missing = [problem for problem in map(problem_of, added) if problem]
        lines.append(f"extra {extra}: {'; '.join(missing) or 'complete'}")
    return lines, [problem for problem in map(problem_of, needed) if problem]


def devices() -> list[str]:
    """The processor, the memory, the disk, and what torch sees."""
    import torch

    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    memory, free = in_words(pages), in_words(shutil.disk_usage(".").free)
    lines = [f"cores {len(os.sched_getaffinity(0))}, memory {memory}, disk {free} free"]
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        lines.append(
            f"cuda:{number} {about.name}, {in_words(about.total_memory)}, bf16 {torch.cuda.is_bf16_supported()}"
        )
    if not torch.cuda.device_count():
        built = torch.version.cuda or torch.version.hip
        lines.append("no GPU: runs are on the CPU" + ("" if built is None else f" (torch is built for {built})"))
    return lines


def traps() -> list[str]:
    """What would stop or mislead a run here, each with the way out."""
    return [*stale_locks(), *cpu_beside_deepspeed(), *full_disks()]


def stale_locks() -> list[str]:
    """Locks that a killed build of DeepSpeed's shared-memory operator has left: later runs wait for them for ever.

    One that another process is building under is one too, for as long as it builds (docs/scaling.md).
    """
    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or Path.home() / ".cache" / "torch_extensions")
    return [
        f"{path}: a lock of DeepSpeed's build; every run that uses DeepSpeed on the CPU waits for it. If nothing is "
        "being built, remove it"
        for path in sorted([*root.glob(STALE), *root.glob(f"*/{STALE}")])
    ]


def cpu_beside_deepspeed() -> list[str]:
    """`use_cpu` beside DeepSpeed, in accelerate's default file or in the environment: DDP runs, and nothing is said."""
    told = os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true"
    cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    found = []
    if told and cpu:
        found.append("ACCELERATE_USE_DEEPSPEED and ACCELERATE_USE_CPU are both true in the environment")
    path = _default_config()
    if path.is_file():
        import yaml

        settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        if str(settings.get("distributed_type")).upper() == "DEEPSPEED" and settings.get("use_cpu"):
            found.append(f"{path}: distributed_type is DEEPSPEED and use_cpu is true")
    advice = "accelerate then trains with DDP and says nothing; take one away (docs/scaling.md says how to use the CPU)"
    return [f"{one}: {advice}" for one in found]


def _default_config() -> Path:
    """Where accelerate looks where it is given no file."""
    home = Path(
        os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    )
    return home / "accelerate" / "default_config.yaml"


def full_disks() -> list[str]:
    """Places that are written to and have little room, or cannot be written."""
    cache = _default_config().parents[1]
    found = []
    for path in dict.fromkeys((Path("."), next(one for one in (cache, *cache.parents) if one.exists()))):
        if not os.access(path, os.W_OK):
            found.append(f"{path.resolve()}: cannot be written; set HF_HOME or work in another folder")
        elif (free := shutil.disk_usage(path).free) < LEAST_FREE:
            found.append(f"{path.resolve()}: {in_words(free)} free; a run may fill it (rlred clean RUN makes room)")
    return found

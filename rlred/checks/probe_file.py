"""probe.yaml: what a probe found, for a recipe (`--probe FILE`) and its audit.

    settings    what a recipe takes: budgets, completion cap, hindsight sources
    measured    what the audit reads: lengths by question, correct traces by bin and source

The order is flags > probe > the recipe's YAML: a probe is named for one run, and its numbers were measured on that
run's model, so they stand above what the file says for its own. `hindsight_settings` are merged one by one.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

SETTINGS = (
    "budget_low",
    "budget_high",
    "budget_distribution",
    "eval_budgets",
    "max_completion_length",
    "hindsight_settings",
)
NEEDED = ("model", "max_completion_length", "lengths", "bins")


@dataclass(frozen=True)
class ProbeFile:
    """A probe as runs read it."""

    path: Path
    settings: dict[str, Any]
    model: str
    max_completion_length: int
    """Tokens at which the probe cut a completion."""
    lengths: list[list[int]]
    """Tokens of the free completions by question; one that was cut has the cap."""
    bins: list[dict]
    """`from`, `to`, and `sources`: correct traces that ended by themselves, by source."""

    def __post_init__(self):
        if not isinstance(self.model, str):
            raise ValueError(f"measured.model must be a name, got {self.model!r}")
        if not _whole(self.max_completion_length, 1):
            raise ValueError(f"measured.max_completion_length must be 1 or more, got {self.max_completion_length!r}")
        groups = self.lengths if isinstance(self.lengths, list) else []
        if not groups or not all(isinstance(own, list) and own and all(map(_whole, own)) for own in groups):
            raise ValueError(f"measured.lengths must be lists of tokens, one for each question; got {self.lengths!r}")
        if not isinstance(self.bins, list) or not self.bins or not all(map(_bin, self.bins)):
            raise ValueError(f"measured.bins must be a list of from, to and sources; got {self.bins!r}")
        start = self.settings.get("hindsight_settings", {})
        if not isinstance(start, dict):
            raise ValueError(f"settings.hindsight_settings must be a mapping, got {start!r}")


def _whole(value: object, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _bin(row: object) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("sources"), dict):
        return False
    return all(map(_whole, [row.get("from"), row.get("to"), *row["sources"].values()]))


def read_probe(path: str | Path) -> ProbeFile:
    """The probe in a file, or in probe.yaml of a folder. Raises `ValueError`, one line that begins with `probe`."""
    path = Path(path)
    path = path / "probe.yaml" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"probe: no such file: {path}; make it with rlred probe")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"probe: {path}: not YAML: {' '.join(str(error).split())}") from None
    for name in ("settings", "measured"):
        if not isinstance(found, dict) or not isinstance(found.get(name), dict):
            raise ValueError(f"probe: {path}: has no mapping {name!r}; give the probe.yaml that rlred probe wrote")
    unknown = sorted(set(found["settings"]) - set(SETTINGS), key=str)
    if unknown:
        raise ValueError(f"probe: {path}: settings: {unknown[0]!r} is none of {', '.join(SETTINGS)}")
    missing = [name for name in NEEDED if name not in found["measured"]]
    if missing:
        raise ValueError(f"probe: {path}: measured: {missing[0]!r} is missing; probe the model again")
    try:
        return ProbeFile(path, found["settings"], **{name: found["measured"][name] for name in NEEDED})
    except ValueError as error:
        raise ValueError(f"probe: {path}: {error}") from None

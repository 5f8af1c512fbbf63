"""What the stages of `rlred compress` have in common."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rlred.data.sources import PromptSettings
from rlred.flags import option

LARGE = 2**20  # bytes of a file of traces that is not held in memory
PARTS = ("question", "opening", "thinking", "separator", "answer")


@dataclass(frozen=True, kw_only=True)
class AskedByRatio(PromptSettings):
    """How a ratio is asked for."""

    ratio_format: str = option("words", "Preset, or fields as JSON.", metavar="FORMAT")

    def make_ratio_format(self):
        """The ratio format with the settings of the prompts. Raises `ValueError` for JSON that is broken."""
        from rlred.compression.rows import make_ratio_format
        from rlred.data.prompts import Prompts

        text = self.ratio_format
        try:
            found = make_ratio_format(json.loads(text) if text.startswith("{") else text)
        except json.JSONDecodeError as error:
            raise ValueError(f"--ratio_format: not JSON: {error}") from None
        return replace(found, prompts=Prompts(**self.given()))


def check_output(path: Path) -> None:
    """Raises `ValueError` for a JSONL file to make that is there, or whose report, FILE.json, would take its place."""
    if path.suffix == ".json":
        raise ValueError(f"--output {path}: the report has this name; name the rows {path}l")
    for one in (path, path.with_suffix(".json")):
        must_not_exist("output", one)


def must_not_exist(name: str, path: Path | None) -> None:
    """Raises `ValueError` for a file that would be written over."""
    if path is not None and path.exists():
        raise ValueError(f"--{name} {path} exists and is not written over; name another file")


def read_traces(path: Path, needed: Sequence[str] = PARTS) -> Sequence[dict]:
    """The traces of `rlred compress traces`; those of a large file are read as they are asked for."""
    from rlred.compression.stages import read_lines

    return read_lines(path, needed, at_least=LARGE)

"""Where tests find what is not in this repository."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def real_data(name: str) -> Path:
    """A file of real problems; skips the test where it is absent (set RLRED_DATA to its folder)."""
    folder = Path(os.environ.get("RLRED_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / name).is_file():
        pytest.skip(f"real data is absent: {folder / name}")
    return folder / name


def shared_case(name: str) -> Path:
    """A file of cases that are kept outside this repository; skips the test where it is absent."""
    file = ROOT.parent / "shared" / "cases" / name
    if not file.exists():
        pytest.skip(f"the shared cases are absent: {file}")
    return file

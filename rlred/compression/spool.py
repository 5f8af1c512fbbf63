"""Texts that are made in one order and needed in another: in a file that has no name, with their places in memory."""

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

Place = tuple[int, int]  # where a text begins, and its bytes


class Spool:
    """Texts on disk, in `folder` or where temporary files lie; the file goes with the object.

    >>> spool = Spool()
    >>> places = [spool.add(text) for text in ("first", "second")]
    >>> spool.read(places[1]), spool.read(places[0])
    ('second', 'first')
    """

    def __init__(self, folder: Path | None = None):
        self.file, self.end = tempfile.TemporaryFile(dir=folder), 0  # as long as texts are asked for

    def add(self, text: str) -> Place:
        """Keeps a text; its place."""
        place = self.end, self.file.write(text.encode())
        self.end += place[1]
        return place

    def read(self, place: Place) -> str:
        """The text at a place."""
        self.file.flush()
        return os.pread(self.file.fileno(), place[1], place[0]).decode()

    def row(self, row: dict, texts: Sequence[str] = ("prompt", "completion", "question")) -> dict:
        """A row without its texts, that are kept with it: `line` is the whole of it again."""
        numbers = {name: value for name, value in row.items() if name not in texts}
        return {**numbers, "spooled": self.add(json.dumps(row))}

    def line(self, row: dict) -> str:
        """A row that was kept, as a line of JSON."""
        return self.read(row["spooled"]) + "\n"

"""Griffe's extension: the docstrings of the Python interface as Markdown, doctests as code (`prose` in pages.py)."""

import sys
from pathlib import Path

import griffe

sys.path.insert(0, str(Path(__file__).parent))

from pages import prose


class Docstrings(griffe.Extension):
    """Takes a docstring for text and not for markup, as its writers did."""

    def on_object(self, *, obj, **kwargs) -> None:
        """Is called for every module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = prose(obj.docstring.value)

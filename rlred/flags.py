"""A field of a dataclass that is also a flag of a command line."""

import dataclasses
from typing import Any


def option(default: Any, text: str, **details):
    """A field with its line of `--help`; `details` go to argparse as they are (`metavar`, `choices`)."""
    about = {"help": text, **details}
    if isinstance(default, dict | list):
        return dataclasses.field(default_factory=lambda: default.copy(), metadata=about)
    return dataclasses.field(default=default, metadata=about)

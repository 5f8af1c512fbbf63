"""Flags from a frozen dataclass: the field's name, type, default and help text are all there is to say of a flag.

    option      a field that is a flag; with `positional` an argument that is named by its place
    required    the same without a default
    parse       words of a command line -> an instance; `--help` is made from the docstring and the fields

A field without a help text is no flag. Lists take several words, `bool` takes none, `X | None` is an X. A class that
others inherit from is a group of flags, and the first line of its docstring is their title. In the docstring of a
command the lines that begin with `rlred ` are its examples.
"""

import argparse
import dataclasses
import difflib
import inspect
import re
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlred.names import MODES, SETTINGS

EXAMPLE = re.compile(r"rlred |    ")


def option(default: Any, text: str, **details):
    """A field with its line of `--help`; `details` go to argparse as they are (`metavar`, `choices`)."""
    about = {"help": text, **details}
    if isinstance(default, dict | list):
        return dataclasses.field(default_factory=lambda: default.copy(), metadata=about)
    return dataclasses.field(default=default, metadata=about)


def required(text: str, **details):
    """A field that has to be given; with `positional=True` by its place."""
    return dataclasses.field(metadata={"help": text, **details})


class _Parser(argparse.ArgumentParser):
    """Argparse, whose complaint is one line that begins with the flag."""

    def error(self, message: str):
        raise ValueError(complaint(message))


class _Format(argparse.RawDescriptionHelpFormatter):
    """A line for each flag where it fits."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=34)

    def _format_args(self, action, default_metavar):
        [name] = self._metavar_formatter(action, default_metavar)(1)
        return f"{name} ..." if action.nargs == "+" else super()._format_args(action, default_metavar)


def parse(kind: type, words: Sequence[str], program: str):
    """An instance of the dataclass `kind` from the words of a command line.

    Raises `ValueError`, one line that names the flag, for words that are not understood; `--help` ends the program.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Greet:
    ...     names: list[str] = required("Who.", positional=True)
    ...     times: int = option(1, "How often.", metavar="N")
    >>> parse(Greet, ["Ada", "Max", "--times", "2"], "greet")
    Greet(names=['Ada', 'Max'], times=2)
    >>> parse(Greet, ["Ada", "--time", "2"], "greet")
    Traceback (most recent call last):
    ValueError: --time: there is no such flag; did you mean --times?
    >>> parse(Greet, ["Ada", "--times", "two"], "greet")
    Traceback (most recent call last):
    ValueError: --times: 'two' is not a whole number
    """
    parser = parser_of(kind, program)
    found, unknown = parser.parse_known_args(list(words))
    if unknown:
        raise ValueError(no_such_flag(unknown[0], flags_of(kind)))
    return kind(**vars(found))


def parse_known(kind: type, words: Sequence[str], program: str) -> tuple[Any, list[str]]:
    """The same, and the words that belong to somebody else."""
    found, rest = parser_of(kind, program).parse_known_args(list(words))
    return kind(**vars(found)), rest


def flags_of(kind: type) -> list[str]:
    """The names of the flags of a command."""
    told = [item for item in dataclasses.fields(kind) if "help" in item.metadata]
    return [f"--{item.name}" for item in told if not item.metadata.get("positional")]


def choices_of(kind: type) -> dict[str, list[str]]:
    """The values of each flag that takes only some; those of an argument that is known by its place under ""."""
    told = [item for item in dataclasses.fields(kind) if "choices" in item.metadata]
    return {"" if one.metadata.get("positional") else f"--{one.name}": list(one.metadata["choices"]) for one in told}


def parser_of(kind: type, program: str) -> argparse.ArgumentParser:
    """The parser of a command, with its own flags first and those of each class that it inherits from in a group."""
    about, examples = described(kind)
    shown = [program]
    fields = [item for item in dataclasses.fields(kind) if "help" in item.metadata]
    types_of = typing.get_type_hints(kind)
    for item in fields:
        if item.default is item.default_factory is dataclasses.MISSING:
            name = _metavar(item)
            name += " ..." if _type_of(types_of[item.name])[1] else ""
            shown.append(name if item.metadata.get("positional") else f"--{item.name} {name}")
    parser = _Parser(
        prog=program,
        usage=" ".join([*shown, "[flags]"]),
        description=about,
        epilog="\n".join(["for example:", *(f"  {line}" for line in examples)]) if examples else None,
        formatter_class=_Format,
        allow_abbrev=False,
    )
    groups = {kind: parser}
    for owner in kind.__mro__[:-1]:
        for item in fields:
            if _owner(kind, item.name) is owner:
                if owner not in groups:
                    groups[owner] = parser.add_argument_group(described(owner)[0].splitlines()[0].rstrip("."))
                _add(groups[owner], item, types_of[item.name])
    return parser


def described(kind: type) -> tuple[str, list[str]]:
    """What a docstring says, and its examples."""
    lines = inspect.getdoc(kind).splitlines()
    first = next((place for place, line in enumerate(lines) if line.startswith("rlred ")), len(lines))
    return "\n".join(lines[:first]).strip(), [line for line in lines[first:] if EXAMPLE.match(line)]


def _owner(kind: type, name: str) -> type:
    """The class that brought a field in."""
    return [owner for owner in kind.__mro__ if name in vars(owner).get("__annotations__", {})][-1]


def _add(group, item: dataclasses.Field, hint: Any) -> None:
    details = {name: value for name, value in item.metadata.items() if name not in ("help", "positional")}
    own, several = _type_of(hint)
    positional = item.metadata.get("positional")
    names = [item.name] if positional else [f"--{item.name}"]
    missing = item.default is item.default_factory is dataclasses.MISSING
    default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
    if not missing:
        details["default"] = default
    if not positional:
        details["required"] = missing
    details["help"] = _help(item, None if missing else default)
    if own is bool:
        if default is not False:
            raise TypeError(f"{item.name}: a flag without a value is False where it is not given, not {default!r}")
        group.add_argument(*names, action="store_true", help=details["help"])
        return
    if several:
        details["nargs"] = "+"
    details["metavar"] = _metavar(item)
    group.add_argument(*names, type=READERS.get(own, own), **details)


def _help(item: dataclasses.Field, default: Any) -> str:
    text = item.metadata["help"].rstrip(".").replace("%", "%%")
    choices = item.metadata.get("choices")
    text = f"{text}: {', '.join(choices)}" if choices else text
    said = default is None or default is False or default in ("", []) or "default" in text.lower()
    shown = " ".join(map(str, default)) if isinstance(default, list) else default
    return text if said else f"{text} (default: {shown})"


def _metavar(item: dataclasses.Field) -> str:
    return item.metadata.get("metavar") or item.name.upper()


def _type_of(hint: Any) -> tuple[type, bool]:
    """The type of a value, and whether there may be several."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        [hint] = [part for part in typing.get_args(hint) if part is not types.NoneType]
    if typing.get_origin(hint) is list:
        return typing.get_args(hint)[0], True
    return hint, False


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


READERS = {int: _whole, float: _number, Path: Path}


def complaint(message: str) -> str:
    """Argparse's message, with the flag in front, by one of its names.

    >>> complaint("argument --max_steps/--max-steps: invalid int value: 'x'")
    "--max_steps: invalid int value: 'x'"
    """
    old = re.fullmatch(r"argument (--\w+): invalid choice: '(\w+)' \(choose from .*", message)
    if old and old[2] in MODES:
        return f"{old[1]}: {old[2]!r} is now called {MODES[old[2]]!r}"
    missing = re.fullmatch(r"the following arguments are required: (.+)", message)
    return f"{missing[1]}: required" if missing else re.sub(r"^argument (--\w+)?(/--[\w-]+)*", r"\1", message)


def no_such_flag(word: str, flags: Sequence[str]) -> str:
    """What to say of a word that no flag takes.

    >>> no_such_flag("--max_stepz=3", ["--max_steps", "--seed"])
    '--max_stepz: there is no such flag; did you mean --max_steps?'
    >>> no_such_flag("--high-beta", ["--max_steps", "--beta_solved"])
    '--high-beta is now called --beta_solved'
    """
    word = word.partition("=")[0]
    renamed = SETTINGS.get(word.removeprefix("--").replace("-", "_"))
    if word.startswith("--") and f"--{renamed}" in flags:
        return f"{word} is now called --{renamed}"
    if not word.startswith("-"):
        return f"{word!r}: nothing takes this word; see --help"
    return f"{word}: there is no such flag; {nearest(word, flags)}"


def apart(words: Sequence[str], flag: str) -> list[str]:
    """The words, with `flag=VALUE` as two of them.

    >>> apart(["--config=a=b.yaml", "--seed=1"], "--config")
    ['--config', 'a=b.yaml', '--seed=1']
    """
    return [part for word in words for part in (word.split("=", 1) if word.startswith(f"{flag}=") else [word])]


def no_such_setting(word: str, known: Sequence[str]) -> str:
    """What to say of a setting of a YAML that no recipe takes.

    >>> no_such_setting("--budget_hi", ["budget_low", "budget_high"])
    "no setting is called 'budget_hi'; did you mean budget_high?"
    """
    word = word.removeprefix("--")
    return f"no setting is called {word!r}; {nearest(word, known)}"


def nearest(word: str, known: Sequence[str]) -> str:
    """What to try in place of a word."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else "see --help"

"""The `rlred` command: one file per command, whose flags are made from its frozen dataclass.

A new command is a file here, with a dataclass that has the method `run`, and a line in COMMANDS.
"""

import dataclasses
import logging
import pkgutil
import sys
import warnings

from rlred import __version__
from rlred.cli import completion
from rlred.flags import described, parse
from rlred.names import MODELS, refuse

COMMANDS = {  # a name of one or two words -> its class, imported when it is called or listed
    "train": "rlred.cli.train:Train",
    "evaluate": "rlred.cli.evaluate:Evaluate",
    "generate": "rlred.cli.generate:Generate",
    "table": "rlred.cli.table:Table",
    "report": "rlred.cli.report:Report",
    "export": "rlred.cli.export:Export",
    "serve": "rlred.cli.serve:ServeAdapter",
    "play": "rlred.cli.play:Play",
    "plan": "rlred.cli.plan:PlanRun",
    "probe": "rlred.cli.probe:ProbeModel",
    "doctor": "rlred.cli.doctor:Doctor",
    "status": "rlred.cli.status:Status",
    "clean": "rlred.cli.clean:Clean",
    "reference": "rlred.cli.reference:Reference",
    "completion": "rlred.cli.completion:Completion",
    "compress traces": "rlred.cli.compress_traces:Traces",
    "compress scores": "rlred.cli.compress_scores:Scores",
    "compress rows": "rlred.cli.compress_rows:Rows",
    "compress shots": "rlred.cli.compress_shots:Shots",
    "make tiny_reasoner": "rlred.tiny.makers.tiny_reasoner:MakeReasoner",
    "make tiny_sorter": "rlred.tiny.makers.tiny_sorter:MakeSorter",
    "make tiny_verbose": "rlred.tiny.makers.tiny_verbose:MakeVerbose",
    "make tiny_vlm": "rlred.tiny.makers.tiny_vlm:MakeVLM",
}
FAMILIES = {
    "compress": "chains of thought with fewer words, stage by stage",
    "make": "the embedded models, from nothing",
}


def command_of(name: str) -> type:
    """The class of a command."""
    return pkgutil.resolve_name(COMMANDS[name])


def listing(family: str = "") -> str:
    """The commands, or those of a family, each with the first line of its docstring."""
    lines = ["usage: rlred " + f"{family} COMMAND [flags]".lstrip(), "", "Reasoning length under control.", ""]
    for name in COMMANDS:
        first, _, second = name.partition(" ")
        if family and first == family:
            lines.append(f"  {second:16} {_first_line(command_of(name))}")
        elif not family and not second:
            lines.append(f"  {name:16} {_first_line(command_of(name))}")
    if not family:
        for name, about in FAMILIES.items():
            members = [other.partition(" ")[2] for other in COMMANDS if other.startswith(f"{name} ")]
            lines.append(f"  {name:16} {about}: {', '.join(members)}")
    return "\n".join([*lines, "", f"rlred {f'{family} COMMAND'.lstrip()} --help says more."])


def _first_line(kind: type) -> str:
    return described(kind)[0].splitlines()[0].rstrip(".")


def find(argv: list[str]) -> tuple[str, list[str]]:
    """The name of the command that is called, and its words. Raises `ValueError` where there is no such command."""
    for length in (1, 2):
        name = " ".join(argv[:length])
        if name in COMMANDS:
            return name, argv[length:]
    family = argv[0] if argv and argv[0] in FAMILIES else ""
    own = [name.removeprefix(f"{family} ") for name in COMMANDS if name.startswith(f"{family} ")] if family else []
    known = own or [*(name for name in COMMANDS if " " not in name), *FAMILIES]
    said = argv[1:2] if family else argv[:1]
    if family:
        refuse(said, MODELS, f"{family}: ")
    wrong = f"{said[0]!r}: there is no such command" if said else "name a command"
    raise ValueError(f"{f'{family}: ' if family else ''}{wrong}; there are {', '.join(known)}")


def call(argv: list[str]) -> int:
    """Runs the command that is called, or lists the commands."""
    if argv[:1] == ["completion"] and (words := completion.asked()) is not None:
        print(*words, sep="\n", end="\n" if words else "")  # an empty line would be a word, and no file be offered
        return 0
    if argv[:1] in (["-h"], ["--help"]):
        print(listing())
        return 0
    if argv[:1] in (["-V"], ["--version"]):
        print(f"rlred {__version__}")
        return 0
    if len(argv) > 1 and argv[0] in FAMILIES and argv[1] in ("-h", "--help"):
        print(listing(argv[0]))
        return 0
    name, words = find(argv)
    kind = command_of(name)
    # A command without fields reads its words by itself: those of `train` are accelerate's and the recipe's.
    command = parse(kind, words, f"rlred {name}") if dataclasses.is_dataclass(kind) else kind(words)
    return command.run() or 0


def main(argv: list[str] | None = None) -> int:
    """Runs a command; a wrong value is one clear line and exit status 2, and 1 where something outside ended it."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    # PEFT and transformers tell each other of renamed options; nothing that a user could act on.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    try:
        return call(list(sys.argv[1:] if argv is None else argv))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        from rlred.output import external_failure  # here: it imports TRL

        named = f"{error.filename}: " if error.filename else ""
        print(f"error: {external_failure(error) or f'{named}{error.strerror or error}'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130

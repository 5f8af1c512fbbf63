"""`rlred train NAME`: a recipe, launched by accelerate, from a checkout or from an installed wheel.

    rlred train                                                 lists the recipes
    rlred train l1_maxlen --max_steps 2                         accelerate launch recipes/l1_maxlen.py --max_steps 2
    rlred train --config_file zero2 l1_exact --config my.yaml   flags before the name are those of `accelerate launch`

A recipe's default YAML lies beside its .py. `--config` may name another file, or one that lies there too, without its
folder. `--config_file` may name a file of accelerate_configs/ without folder and ending.

    rlred train --config_file zero2 l1_exact --config my.yaml --audit_only

With `--audit_only` nothing is launched: this process checks settings, questions, rewards and prompts as those of so
many processes, and needs no GPU.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from rlred.flags import apart

HERE = Path(__file__).resolve().parent
EXAMPLES = """for example:
  rlred train l1_maxlen --max_steps 2
  rlred train --config_file zero2 l1_maxlen --config l1_maxlen_r1_1.5b_8gpu"""
HELP = re.compile(r"-h|--help(?:=.*)?")
AUDIT_ONLY = re.compile(r"--audit[_-]only(?:=(.*))?")


def shipped(folder: str) -> Path:
    """`recipes` or `accelerate_configs`: of the checkout, or else of the installed wheel, which has them in rlred/."""
    beside = HERE.parent / folder
    return beside if (HERE.parent / "pyproject.toml").is_file() else HERE / folder


def recipes() -> dict[str, Path]:
    """The scripts of all recipes by name."""
    return {path.stem: path for path in sorted(shipped("recipes").glob("*.py"))}


def listing() -> str:
    """A line for each recipe: its name, and the first line of its docstring."""
    lines = []
    for name, path in recipes().items():
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        lines.append(f"{name:22} {text.splitlines()[0] if text else ''}")
    return "\n".join(lines)


def command_line(argv: Sequence[str]) -> list[str]:
    """The words after `accelerate launch`: the name is replaced by the recipe's script, short names by files.

    For help or an audit alone they are the script's: that flag first, the audit's with the number of processes that
    would have been launched. Raises `ValueError` for a recipe that does not exist.
    """
    from accelerate.commands.launch import launch_command_parser

    known, argv = recipes(), list(argv)
    told = launch_command_parser().parse_args(argv)
    if told.training_script not in known:
        raise ValueError(f"train: no recipe is called {told.training_script!r}; there are {', '.join(known)}")
    place = len(argv) - len(told.training_script_args) - 1
    before, after = argv[:place], argv[place + 1 :]
    before = _found(before, "--config_file", shipped("accelerate_configs"), ".yaml")
    after = _found(apart(after, "--config"), "--config", shipped("recipes"), ".yaml")
    if (place := next((place for place, word in enumerate(after) if HELP.fullmatch(word)), None)) is not None:
        return [str(known[told.training_script]), *after[place:], *after[:place]]
    audited, rest = audit_of(after)
    if audited:
        launched = told.num_processes or _processes_of(before)
        count = launched if audited == 1 else audited
        return [str(known[told.training_script]), "--audit_only", str(count), *rest]
    return [*before, str(known[told.training_script]), *after]


def audit_of(argv: Sequence[str]) -> tuple[int | None, list[str]]:
    """For how many processes an audit alone is asked for, None where it is not; and the other words.

    >>> audit_of(["--seed", "1", "--audit_only"]), audit_of(["--audit_only", "8"]), audit_of(["--seed", "1"])
    ((1, ['--seed', '1']), (8, []), (None, ['--seed', '1']))
    """
    argv = list(argv)
    place = next((place for place, word in enumerate(argv) if AUDIT_ONLY.fullmatch(word)), None)
    if place is None:
        return None, argv
    told, rest = AUDIT_ONLY.fullmatch(argv[place])[1], [*argv[:place], *argv[place + 1 :]]
    if told is None and rest[place : place + 1] and not rest[place].startswith("-"):
        told = rest.pop(place)
    value = (told or "1").lower()
    if value in ("true", "false"):
        return (1 if value == "true" else None), rest
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"--audit_only: {value!r} is no number of processes; give 1 or more, or nothing for one")
    return int(value), rest


def _processes_of(words: list[str]) -> int:
    """How many processes the file of accelerate's settings says that is named; 1 where none is."""
    if "--config_file" not in words[:-1]:
        return 1
    path = Path(words[words.index("--config_file") + 1])
    told = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    return (told.get("num_processes") or 1) if isinstance(told, dict) else 1


def _found(words: list[str], flag: str, folder: Path, ending: str) -> list[str]:
    """The words, with the value of `flag` as a path in `folder` where it is no file by itself."""
    if flag not in words[:-1]:
        return words
    place = words.index(flag) + 1
    candidates = [folder / words[place], folder / f"{words[place]}{ending}"]
    path = next((path for path in candidates if path.is_file()), None)
    if Path(words[place]).is_file() or path is None:
        return words
    return [*words[:place], str(path), *words[place + 1 :]]


def help_text() -> str:
    """What `rlred train --help` prints: how it is called, the recipes, two examples."""
    return f"{__doc__.strip()}\n\n{listing()}\n\n{EXAMPLES}"


def train(argv: Sequence[str]) -> int:
    """Runs a recipe through accelerate; without a name, prints the recipes."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    if not argv or argv[0] in ("-h", "--help"):
        print(help_text())
        return 0
    words = command_line(argv)
    if any(alone.fullmatch(word) for word in words[1:2] for alone in (AUDIT_ONLY, HELP)):
        return subprocess.run([sys.executable, *words]).returncode
    try:
        launch_command(launch_command_parser().parse_args(words))
    except subprocess.CalledProcessError as ended:  # the recipe has said why
        code = ended.returncode
    except ChildFailedError as ended:  # of several processes, the first that failed
        code = ended.get_first_failure()[1].exitcode
    else:
        return 0
    return code if code >= 0 else 128 - code  # of one that a signal has ended, what a shell would say: 137 for SIGKILL

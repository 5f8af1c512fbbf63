"""What `--help` of a recipe prints: its own settings and those that are set most often, on one screen.

--help          this screen, with the values of the recipe's YAML
--help all      every argument, as TRL's parser lists them
--help WORD     the arguments whose names hold the word, each with its whole text
"""

import ast
import dataclasses
import json
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlred.flags import apart
from rlred.runs.arguments import RecipeParser, settings_of

FLAGS = ("--help", "-h")
OWN = 9  # rows of the recipe's own settings; the others are named
# Of these the ones that come before others, where the recipe's YAML sets fewer.
FIRST = (
    "questions",
    "num_questions",
    "wording",
    "reward",
    "budgets",
    "evaluate",
    "num_eval_questions",
    "system_prompt",
)
NAMES = 33  # columns of a flag and its value
# Of the hundreds of TRL's and transformers' arguments those that a run is changed by first.
COMMON = {
    "model_name_or_path": "The base: a folder, a Hub id, or an embedded model.",
    "output_dir": "Folder of the run (default: the first free one of outputs/).",
    "max_steps": "Updates.",
    "learning_rate": "The highest rate of the schedule.",
    "per_device_train_batch_size": "Rows of a forward pass on one device.",
    "gradient_accumulation_steps": "Forward passes of an update.",
    "num_generations": "Rollouts of each prompt.",
    "max_completion_length": "Tokens at which a rollout is cut.",
    "use_vllm": "Sample rollouts with vLLM.",
    "dtype": "Precision of the weights: float32, bfloat16 or auto.",
    "use_cpu": "Train on the CPU.",
    "lora_r": "Rank of the adapter.",
    "save_steps": "Updates between two checkpoints.",
    "resume_from_checkpoint": "true goes on from the last checkpoint of output_dir.",
    "seed": "Of rows, sampling and the adapter.",
}
BESIDE = """\
  --config FILE                     Another YAML of settings; flags stand over it.
  --print_config                    Print what YAML, probe and flags come to, and end.
  --audit_only [N]                  Check the settings, questions and rewards, and end.
  --help all, --help WORD           All arguments, or those named like WORD (lora)."""


def help_asked(argv: Sequence[str]) -> str | None:
    """The word behind `--help`, "" where there is none; None where no help is asked for.

    >>> help_asked(["--seed", "1"]), help_asked(["--help"]), help_asked(["-h", "--seed"]), help_asked(["--help=all"])
    (None, '', '', 'all')
    """
    words = apart(argv, "--help")
    place = next((place for place, word in enumerate(words) if word in FLAGS), None)
    if place is None:
        return None
    following = words[place + 1 : place + 2]
    return following[0] if following and not following[0].startswith("-") else ""


def help_text(recipe: Path, kinds: tuple[type, ...], argv: Sequence[str]) -> str:
    """What `argv`, in which help is asked for, is answered; `kinds` are the recipe's own arguments, then TRL's.

    Raises `ValueError` for a word that is in no name.
    """
    word, argv = help_asked(argv), apart(argv, "--help")
    told = [one for one in argv if one not in (*FLAGS, word)]
    settings = settings_of(recipe.with_suffix(".yaml"), told, kinds)[1]
    if word == "all":
        return everything(recipe, kinds, settings)
    return matching(word, kinds, settings) if word else screen(recipe, kinds, settings)


def screen(recipe: Path, kinds: tuple[type, ...], settings: dict[str, Any]) -> str:
    """The recipe's own settings and the most common of the others, a line each."""
    name, width = recipe.stem, max(80, min(120, shutil.get_terminal_size((100, 24)).columns))
    own = {item.name: item for item in dataclasses.fields(kinds[0])}
    common = {item.name: item for kind in kinds[1:] for item in dataclasses.fields(kind) if item.name in COMMON}
    plain = [one for one in own if one not in COMMON]
    rows = sorted(plain, key=lambda one: (one not in settings, one not in FIRST))[:OWN]
    shown = [one for one in plain if one in rows]
    others = ", ".join(one for one in plain if one not in rows)
    about = (ast.get_docstring(ast.parse(recipe.read_text(encoding="utf-8"))) or "").splitlines()[0]
    lines = [
        f"usage: rlred train {name} [flags]",
        textwrap.shorten(about, width, placeholder=" ..."),
        "",
        "settings of this recipe, with its values:",
        *(_row(own[one], settings, width) for one in shown),
    ]
    if others:
        lines += textwrap.wrap(f"and {others}", width, initial_indent="  ", subsequent_indent="  ")
    both = {**{one: own[one] for one in own if one in COMMON}, **common}
    lines += ["", "most used of the others:"]
    lines += [_row(both[one], settings, width, text) for one, text in COMMON.items() if one in both]
    lines += [*BESIDE.splitlines(), "", "for example:"]
    lines += [
        f"  rlred train {name} --config mine.yaml --audit_only",
        f"  rlred train {name} --config mine.yaml --seed 1",
    ]
    return "\n".join(lines)


def _row(item: dataclasses.Field, settings: dict[str, Any], width: int, text: str | None = None) -> str:
    """A flag with its value and what it says, cut to a line."""
    flag = f"--{item.name} {_value(item, settings)}"
    flag = flag if len(flag) <= NAMES else f"--{item.name} ..."
    text = textwrap.shorten(text or item.metadata.get("help") or "", width - 3 - NAMES, placeholder=" ...")
    return f"  {flag:{NAMES}} {text}".rstrip()


def _value(item: dataclasses.Field, settings: dict[str, Any]) -> str:
    """What a setting is, as a flag takes it; "" for nothing."""
    value = settings.get(item.name, item.default)
    if value is dataclasses.MISSING:
        value = None if item.default_factory is dataclasses.MISSING else item.default_factory()
    if value is None or value in ("", [], {}):
        return ""
    if isinstance(value, list):
        return " ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value, default=str)


def matching(word: str, kinds: tuple[type, ...], settings: dict[str, Any]) -> str:
    """The arguments whose names hold a word, with their values and texts."""
    wanted, width = word.strip("-").replace("-", "_").lower(), shutil.get_terminal_size((100, 24)).columns
    found = {item.name: item for kind in kinds for item in dataclasses.fields(kind) if wanted in item.name.lower()}
    if not found:
        raise ValueError(f"--help {word}: no argument has that in its name; --help all lists every one")
    lines = []
    for name, item in found.items():
        text = " ".join((item.metadata.get("help") or COMMON.get(name, "")).split())
        lines.append(f"  --{name} {_value(item, settings)}".rstrip())
        lines += textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def everything(recipe: Path, kinds: tuple[type, ...], settings: dict[str, Any]) -> str:
    """Every argument, as TRL's parser lists them."""
    parser = RecipeParser(kinds, prog=f"rlred train {recipe.stem}")
    parser.set_defaults_with_config(**{name: value for name, value in settings.items() if name != "env"})
    return f"{parser.format_help()}\nbeside these flags:\n{BESIDE}"

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from rlred.flags import choices_of, flags_of, required

TRAIN = ("--config", "--config_file", "--num_processes", "--audit_only", "--print_config", "--output_dir", "--seed")
LINE = 'complete -o default -C "rlred completion bash" rlred'
# bashcompinit needs compinit, which a new zsh has not run. fish has no `complete -C` of bash's kind.
ZSH = f"""(( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit }}
autoload -Uz bashcompinit && bashcompinit
{LINE}"""
FISH = """function __rlred_words
    set -l words (COMP_LINE=(commandline -cp) rlred completion fish)
    if set -q words[1]
        printf '%s\\n' $words
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c rlred -f -a '(__rlred_words)'"""
SHELLS = {"bash": LINE, "zsh": ZSH, "fish": FISH}


@dataclass(frozen=True)
class Completion:
    """The lines for a shell's own file that make Tab complete commands, recipes and flags.

    Append it: >> ~/.bashrc, >> ~/.zshrc or >> ~/.config/fish/config.fish.

    rlred completion bash
    rlred completion zsh
    """

    shell: str = required("The shell", positional=True, choices=tuple(SHELLS), metavar="SHELL")

    def run(self) -> None:
        """Prints the lines that belong into the shell's own file."""
        print(SHELLS[self.shell])


def asked(environment: Mapping[str, str] = os.environ) -> list[str] | None:
    """What may stand where the cursor is; None where no shell asks. It hands over its line as `complete -C` does."""
    if "COMP_LINE" not in environment:
        return None
    line = environment["COMP_LINE"]
    line = line[: int(environment.get("COMP_POINT", len(line)))]
    try:
        words = shlex.split(line)
    except ValueError:  # within quotes
        return []
    return complete(words[1:] if line[-1:].isspace() else words[1:-1], "" if line[-1:].isspace() else words[-1])


def complete(before: list[str], begun: str) -> list[str]:
    """The words that may follow those `before` and start as the one that is begun.

    >>> complete([], "com"), complete(["compress"], "s"), complete(["export", "outputs/mine"], "--pu")
    (['completion', 'compress'], ['scores', 'shots'], ['--push'])
    """
    return [word for word in sorted(_candidates(before, begun)) if word.startswith(begun)]


def _candidates(before: list[str], begun: str) -> list[str]:
    from rlred.cli import COMMANDS, FAMILIES, command_of

    if not before:
        return [*(name for name in COMMANDS if " " not in name), *FAMILIES]
    if before[0] == "train":
        return _of_train(before[1:], begun)
    if before[0] in FAMILIES and len(before) == 1:
        return [name.partition(" ")[2] for name in COMMANDS if name.startswith(f"{before[0]} ")]
    name = next((name for name in (before[0], " ".join(before[:2])) if name in COMMANDS), None)
    if name is None:
        return []
    kind = command_of(name)
    if begun.startswith("-"):
        return [*flags_of(kind), "--help"]
    return choices_of(kind).get(before[-1] if before[-1].startswith("-") else "", [])


def _of_train(before: list[str], begun: str) -> list[str]:
    """Recipes, and the files that they are shipped with."""
    from rlred.train import recipes, shipped

    folders = {"--config": "recipes", "--config_file": "accelerate_configs"}
    if before and before[-1] in folders:
        return [path.stem for path in shipped(folders[before[-1]]).glob("*.yaml")]
    return list(TRAIN) if begun.startswith("-") else [name for name in recipes() if name not in before]

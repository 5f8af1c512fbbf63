"""What a published folder calls things: no name in it leads to a folder of the machine that made it.

    Base            how the base of an adapter is called
    without_paths   a record of a run with the last names of its paths; remove_paths does so to files

Relative paths (`outputs/run`) stay: they lead nowhere on another machine, and say nothing of this one.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlred.tiny import is_embedded, resolve_model

_CACHED = re.compile(r"models--([^/\\]+?)--([^/\\]+?)[/\\]snapshots[/\\]")


@dataclass(frozen=True)
class Base:
    """The name of a base, and whether others can load it by that name.

    >>> Base.of("org/model"), Base.of("/home/me/.cache/hub/models--org--model/snapshots/1a2b")
    (Base(name='org/model', public=True), Base(name='org/model', public=True))
    >>> Base.of("/home/me/checkpoints/sft-7b"), Base.of("/home/me/checkpoints/sft-7b", "me/sft-7b").name
    (Base(name='sft-7b', public=False), 'me/sft-7b')
    """

    name: str
    public: bool

    @classmethod
    def of(cls, trained_on: str, given: str | None = None) -> "Base":
        """The base's public name where it has one (`given`, a Hub id, a folder of the Hub's cache), or its folder's.

        An embedded model is called as in a checkout, `data/tiny_reasoner` (`rlred.tiny.resolve_model`).
        """
        cached = _CACHED.search(trained_on)
        if given or cached:
            return cls(given or f"{cached[1]}/{cached[2]}", True)
        path = Path(trained_on).expanduser()
        if is_embedded(trained_on) or (is_embedded(path.name) and path.resolve() == Path(resolve_model(path.name))):
            return cls(f"data/{path.name}", False)
        if path.exists() or path.is_absolute() or trained_on.startswith(("./", "../")):
            return cls(path.resolve().name, False)
        return cls(trained_on, True)

    def said(self) -> list[str]:
        """A sentence on where to find a base that has no public name; nothing for one that has."""
        if self.public:
            return []
        if is_embedded(self.name):
            return [f"The base is a model that rlred brings along: a checkout has it in `{self.name}`."]
        return [
            f"The base has no public name: `{self.name}` is what its folder was called. Put the path of your copy in "
            "its place."
        ]


def without_paths(value: Any, renamed: dict[str, str]) -> Any:
    """A value of JSON in which an absolute path is its last name; `renamed` collects what was changed.

    >>> without_paths({"output_dir": "/home/me/out/run", "system_prompt": "/think about it", "n": 1}, {})
    {'output_dir': 'run', 'system_prompt': '/think about it', 'n': 1}
    """
    if isinstance(value, dict):
        return {key: without_paths(one, renamed) for key, one in value.items()}
    if isinstance(value, list):
        return [without_paths(one, renamed) for one in value]
    if isinstance(value, str) and re.fullmatch(r"([A-Za-z]:)?([/\\][^/\\\n]+){2,}[/\\]?", value):
        renamed[value] = re.split(r"[/\\]", value.rstrip("/\\"))[-1]
        return renamed[value]
    return value


def remove_paths(folder: Path, names: tuple[str, ...]) -> None:
    """Writes the records `names` of a folder anew, JSON first and then the tables that quote them, without paths."""
    renamed: dict[str, str] = {}
    records = [folder / name for name in names if (folder / name).is_file()]
    for path in records:
        if path.suffix == ".json":
            told = json.loads(path.read_text(encoding="utf-8"))
            plain = without_paths(told, renamed)
            if plain != told:
                path.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
    for path in records:
        if path.suffix == ".md":
            text = path.read_text(encoding="utf-8")
            for long in sorted(renamed, key=len, reverse=True):
                text = text.replace(long, renamed[long])
            path.write_text(text, encoding="utf-8")

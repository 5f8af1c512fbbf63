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
from urllib.parse import unquote

from rlred.data.models import CACHED
from rlred.tiny import is_embedded, resolve_model

# Keys of a record whose values a model reads or writes, or that find something in what it writes.
WORDS = frozenset(
    "system_prompt wording reference_wording prefix_wording chat_template_kwargs end_of_thinking markers answer_cue "
    "instruction budget_tokens suppress_tokens ratio_format".split()
)
# A path from the root: two names or more, or one that every machine has there. None of its signs is one of LaTeX or of
# a regular expression, but the stop and the plus; a blank may stand in it where it is the whole text.
_NAME, _END = r"[\w.@%+=~#&-]+", r"(?=$|[\s\"'`,;:)\]}])"
_SPACED = rf"{_NAME}(?: +(?!-){_NAME})*(?<!=)"
_ROOTS = "bin|boot|cache|data|datasets|dev|etc|home|lib|media|mnt|models|opt|proc|root|run|scratch|srv|tmp|usr|var|work"
_ROOTS += "|workspace|Users|Volumes"
_DRIVE = r"[A-Za-z]:[/\\]"
_FILE = r"file://[\w.-]*"  # with the host, where it names one
# A share of a Windows network: as a whole text alone, since LaTeX breaks its lines by two of these signs.
_SHARE = rf"\\\\[\w.$-]+(?:\\{_SPACED}){{2,}}"
_WHOLE = re.compile(
    rf"(?:{_FILE})?(?:(?:/{_SPACED}){{2,}}|/(?:{_ROOTS}))/?"
    rf"|(?:{_FILE}/|\\\\[?.]\\)?{_DRIVE}{_SPACED}(?:[/\\]{_SPACED})*[/\\]?"
    rf"|{_FILE}/{_SPACED}/?|{_SHARE}\\?"
)
_WITHIN = re.compile(
    rf"(?:\b{_FILE}|(?<![^\s\"'`=:,;(\[{{])(?!//))(?:(?:/{_NAME}){{2,}}|/(?:{_ROOTS}))/?{_END}"
    rf"|(?:\b{_FILE}/|(?<![^\s\"'`=,;(\[{{])){_DRIVE}{_NAME}(?:[/\\]{_NAME})*[/\\]?{_END}"
)
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_ELSEWHERE = re.compile(r"^file://|^[A-Za-z]:|\\")  # a URL of a file, a drive, a path of Windows


@dataclass(frozen=True)
class Base:
    """The name of a base, whether others can load it by that name, and which revision of it was trained on.

    >>> Base.of("org/model", revision="v2"), Base.of("/home/me/.cache/hub/models--org--model/snapshots/1a2b")
    (Base(name='org/model', public=True, revision='v2'), Base(name='org/model', public=True, revision='1a2b'))
    >>> Base.of("/home/me/checkpoints/sft-7b"), Base.of("/home/me/checkpoints/sft-7b", "me/sft-7b").name
    (Base(name='sft-7b', public=False, revision=None), 'me/sft-7b')
    """

    name: str
    public: bool
    revision: str | None = None
    """A branch, tag or commit on the Hub; None for its newest state."""

    @classmethod
    def of(cls, trained_on: str, given: str | None = None, revision: str | None = None) -> "Base":
        """The base's public name where it has one (`given`, a Hub id, a folder of the Hub's cache), or its folder's.

        An embedded model is called as in a checkout, `data/tiny_reasoner` (`rlred.tiny.resolve_model`). `revision` is
        that of the run: a base that is `given` under another name need not have it. Raises `ValueError` for a path that
        is given.
        """
        if given is not None and not _HUB_ID.fullmatch(given):
            raise ValueError(
                f"--base_model {given}: is no Hub id, by which others find the base; name it as OWNER/NAME"
            )
        cached, revision = CACHED.search(trained_on), None if revision == "main" else revision
        own = f"{cached[1]}/{cached[2]}" if cached else trained_on
        if given or cached:
            told = revision or (cached and cached[3])
            return cls(given or own, True, told if given in (None, own) else None)
        if _ELSEWHERE.search(trained_on):
            return cls(_last_name(trained_on), False)
        path = Path(trained_on).expanduser()
        if is_embedded(trained_on) or (is_embedded(path.name) and path.resolve() == Path(resolve_model(path.name))):
            return cls(f"data/{path.name}", False)
        if path.exists() or path.is_absolute() or trained_on.startswith(("./", "../")):
            return cls(path.resolve().name, False)
        if not _HUB_ID.fullmatch(trained_on):  # a folder of the machine that trained, and not of this one
            return cls(path.name, False)
        return cls(trained_on, True, revision)

    @property
    def code(self) -> str:
        """What `from_pretrained` is called with, as Python.

        >>> print(Base("org/model", True, "v2").code)
        "org/model", revision="v2"
        """
        return json.dumps(self.name) + (f", revision={json.dumps(self.revision)}" if self.revision else "")

    @property
    def flags(self) -> str:
        """The same on the command lines of vLLM and SGLang."""
        return self.name + (f" --revision {self.revision}" if self.revision else "")

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


def _last_name(path: str) -> str:
    r"""What a path of any system is called.

    >>> _last_name(r"\\server\share\my model"), _last_name("file:///home/me/my%20model/"), _last_name("C:model")
    ('my model', 'my model', 'model')
    """
    told = unquote(path) if path.startswith("file:") else path
    names = [name for name in re.split(r"[/\\]|^[A-Za-z]:", told.partition("://")[2] or told) if name]
    return names[-1] if names else "model"


def revision_of(record: dict, config: dict) -> str | None:
    """The revision of the base: as an export has said it in adapter_config.json, or as run.json says of this base.

    >>> told = {"model": {"model_name_or_path": "org/model", "model_revision": "v2"}}
    >>> revision_of(told, {"base_model_name_or_path": "org/model"})
    'v2'
    >>> revision_of(told, {"base_model_name_or_path": "me/copy"})
    """
    model, name = record.get("model") or {}, config["base_model_name_or_path"]
    return config.get("revision") or (model.get("model_revision") if model.get("model_name_or_path") == name else None)


def without_paths(value: Any, renamed: dict[str, str]) -> Any:
    """A value of JSON in which an absolute path is its last name; `renamed` collects what was changed.

    A path may be a whole text, or stand in one; keys of mappings are texts too. What a model reads or writes (`WORDS`)
    stays as it is, whatever it looks like, and so does every text with the signs of LaTeX or of a regular expression.

    >>> without_paths({"output_dir": "/home/me/out/run", "system_prompt": "Put it in /etc/x.", "n": 1}, {})
    {'output_dir': 'run', 'system_prompt': 'Put it in /etc/x.', 'n': 1}
    >>> without_paths(["--questions=/home/me/q.jsonl", "file:///home/me/x", "/no_think", "s3://a/b/c"], {})
    ['--questions=q.jsonl', 'x', '/no_think', 's3://a/b/c']
    """
    if isinstance(value, dict):
        made: dict[str, Any] = {}
        for key, one in value.items():
            plain, number = _plain(key, renamed), 1
            name = plain
            while name in made:  # two folders may have one name; neither of their entries is lost
                number += 1
                name = f"{plain} ({number})"
            made[name] = one if key in WORDS else without_paths(one, renamed)
        return made
    if isinstance(value, list):
        return [without_paths(one, renamed) for one in value]
    return _plain(value, renamed) if isinstance(value, str) else value


def _plain(text: str, renamed: dict[str, str]) -> str:
    """A text in which an absolute path is its last name."""

    def last(found: re.Match) -> str:
        path = found.group()
        renamed[path] = _last_name(path)
        return renamed[path]

    return last(whole) if (whole := _WHOLE.fullmatch(text)) else _WITHIN.sub(last, text)


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
                text = re.sub(rf"(?<![\w/\\.]){re.escape(long)}(?![\w/\\])", lambda _, long=long: renamed[long], text)
            path.write_text(_plain(text, renamed), encoding="utf-8")

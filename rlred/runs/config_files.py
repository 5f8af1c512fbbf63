"""A YAML of settings and the files of defaults that it stands on."""

import json
from pathlib import Path
from typing import Any

import yaml

from rlred.names import SETTINGS, refuse
from rlred.train import shipped

FIELD_BY_FIELD = ("hindsight_settings",)  # a start that is changed in one field is still that of its defaults


def read_config(path: Path) -> dict[str, Any]:
    """The settings of a YAML file over those of the files that its `defaults` names, in their order.

    A later file replaces a setting whole; of `hindsight_settings` it replaces the fields that it names, as a probe and
    a flag do.
    Defaults lie beside the file, in its folder defaults/, or in that of the shipped recipes. They have no defaults of
    their own: one level, so that two files say all. Raises `ValueError` for a file that is missing or no mapping.
    """
    own = _mapping(path)
    merged: dict[str, Any] = {}
    for name in _names(own.pop("defaults", []), path):
        places = [path.parent / f"{name}.yaml", path.parent / "defaults" / f"{name}.yaml"]
        places.append(shipped("recipes") / "defaults" / f"{name}.yaml")
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise ValueError(f"{path}: defaults: no file {name}.yaml beside it, in defaults/ or among the recipes")
        settings = _mapping(found)
        if "defaults" in settings:
            raise ValueError(f"{found}: defaults of defaults; {path} can name both files instead")
        merged = over(merged, settings)
    return over(merged, own)


def over(settings: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """Settings with those of a later file, or of a probe, over them.

    >>> over({"hindsight_settings": {"max_updates": 1, "batch_size": 8}}, {"hindsight_settings": {"max_updates": 2}})
    {'hindsight_settings': {'max_updates': 2, 'batch_size': 8}}
    >>> over({"modes": {"max": 1}}, {"modes": {"exact": 1}})
    {'modes': {'exact': 1}}
    """
    found = settings | later
    for name in FIELD_BY_FIELD:
        groups = [one[name] for one in (settings, later) if isinstance(one.get(name), dict)]
        if len(groups) == 2:
            found[name] = groups[0] | groups[1]
    return found


def field_by_field(settings: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """The flags that name fields of a setting, with the other fields that it has.

    >>> field_by_field({"hindsight_settings": {"batch_size": 8}}, {"hindsight_settings": {"max_updates": 2}, "seed": 1})
    {'hindsight_settings': {'batch_size': 8, 'max_updates': 2}}
    """
    return {name: over(settings, flags)[name] for name in FIELD_BY_FIELD if isinstance(flags.get(name), dict)}


def plain(value: Any) -> Any:
    """A flag's value as a YAML holds it: text that is a JSON mapping as that mapping.

    >>> plain('{"max_updates": 2}'), plain("{2"), plain(3)
    ({'max_updates': 2}, '{2', 3)
    """
    try:
        return json.loads(value) if isinstance(value, str) and value.lstrip().startswith("{") else value
    except json.JSONDecodeError:
        return value  # refused where it is read, with its name


def _mapping(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: must be a mapping of settings, got {found!r}")
    refuse(found, SETTINGS, f"{path}: ")
    return found


def _names(value: Any, path: Path) -> list[str]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path}: defaults must be a name or a list of names, got {value!r}")
    return names

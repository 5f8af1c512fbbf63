"""The parts of the trainer by name: what a YAML's `parts` may hold."""

import pkgutil
from dataclasses import fields

from rlred.names import SETTINGS, refuse
from rlred.rewards.fields import check_fields
from rlred.training.trainer import Part

PARTS = {
    "selection": "rlred.training.token_selection:TokenSelection",
    "think_or_not": "rlred.training.think_or_not:ThinkOrNot",
    "difficulty_kl": "rlred.training.difficulty_kl:DifficultyKL",
    "early_stop": "rlred.training.early_stop:EarlyStop",
    "merged_rollouts": "rlred.training.merged_rollouts:MergedRollouts",
    "group_by_length": "rlred.training.group_by_length:GroupByLength",
    "dynamic_sampling": "rlred.training.dynamic_sampling:DynamicSampling",
    "easy_first": "rlred.training.easy_first:EasyFirst",
    "ddca": "rlred.training.ddca:DDCA",
    "drpo": "rlred.training.drpo:DRPO",
    "difficulty_weight": "rlred.training.difficulty_weight:DifficultyWeight",
}


def make_part(name: str, settings: dict, field: str | None = None) -> Part:
    """A part by its name, or by `module:Class`. Raises `ValueError`, which begins with `field`, for what there is not.

    >>> make_part("selection", {"fraction": 0.5}).fraction
    0.5
    >>> make_part("selection", {"share": 0.5}, "parts.selection")
    Traceback (most recent call last):
    ValueError: parts.selection: no field is called 'share'; there are divide_by, end_of_thinking, fraction, head, keep
    """
    field = field or f"parts.{name}"
    try:
        kind = pkgutil.resolve_name(PARTS.get(name, name if ":" in name else ""))
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{field}: no part is called {name!r}; there are {', '.join(PARTS)}, or module:Class"
        ) from error
    if not isinstance(settings, dict):
        raise ValueError(f"{field} must be a mapping of its settings, {{}} for the defaults; got {settings!r}")
    known = sorted(item.name for item in fields(kind))
    unknown = sorted(set(settings) - set(known))
    refuse(unknown, SETTINGS, f"{field}: ")
    if unknown:
        raise ValueError(f"{field}: no field is called {unknown[0]!r}; there are {', '.join(known)}")
    check_fields(kind, settings, field)
    return kind(**settings)

"""What a YAML may put into the fields of a dataclass: numbers, several of them, mappings, true and false.

`check_fields` reads the annotations, so that a reward, a part and a group of settings are refused in the same words.
"""

import dataclasses
import math
import numbers
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def check_fields(kind: Any, values: Mapping[str, Any], prefix: str) -> None:
    """Raises `ValueError` where one of `values` is none that its field in the dataclass `kind` takes.

    Numbers must be numbers, finite unless the field's default is not, and whole where the annotation is int. What may
    be None may be that. Other annotations are not looked at.

    >>> @dataclasses.dataclass
    ... class Mine:
    ...     alpha: float = 0.1
    ...     weights: dict[str, float] | None = None
    >>> check_fields(Mine, {"alpha": "1e-3"}, "mine")
    Traceback (most recent call last):
    ValueError: mine.alpha must be a number, got '1e-3' (YAML reads it as a text; 1.0e-3 is a number)
    >>> check_fields(Mine, {"weights": ["max"]}, "mine")
    Traceback (most recent call last):
    ValueError: mine.weights must be a mapping, got ['max']
    """
    for item in dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ():
        if item.name not in values:
            continue
        name, value = f"{prefix}.{item.name}", values[item.name]
        union = typing.get_origin(item.type) in (types.UnionType, typing.Union)
        options = set(typing.get_args(item.type)) if union else {item.type}
        if value is None and type(None) in options:
            continue
        options -= {type(None)}
        infinite = isinstance(item.default, float) and math.isinf(item.default)
        if options <= {int, float}:
            _check_number(name, value, whole=float not in options, infinite=infinite)
        elif len(options) == 1:
            _check_one(name, value, options.pop(), infinite)


def _check_one(name: str, value: Any, hint: Any, infinite: bool) -> None:
    """A field of one annotation that is no number."""
    container, kinds = typing.get_origin(hint), _kinds(hint)
    if hint is bool and not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {value!r}")
    if container is dict and not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a mapping, got {value!r}")
    if container in (tuple, list):
        of_numbers = bool(kinds & {int, float})
        if not isinstance(value, tuple | list):
            raise ValueError(f"{name} must be a list{' of numbers' if of_numbers else ''}, got {value!r}")
        for one in _flat(value) if of_numbers else ():
            _check_number(name, one, whole=float not in kinds, infinite=infinite)


def _kinds(hint: Any) -> set:
    """The plain types in an annotation; those of a text's letters are none of numbers."""
    inner = typing.get_args(hint)
    return set().union(*map(_kinds, inner)) if inner else {hint}


def _flat(values: Iterable) -> Iterator:
    for value in values:
        if isinstance(value, tuple | list):
            yield from _flat(value)
        else:
            yield value


def _check_number(name: str, value: Any, *, whole: bool, infinite: bool) -> None:
    kind = "a whole number" if whole else "a number"
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise ValueError(f"{name} must be {kind}, got {value!r}{_hint(value)}")
    if math.isnan(value) or (math.isinf(value) and not infinite):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    if whole and value != int(value):
        raise ValueError(f"{name} must be {kind}, got {value!r}")


def _hint(value: Any) -> str:
    if not (isinstance(value, str) and re.fullmatch(r"[+-]?\d+e[+-]?\d+", value, re.IGNORECASE)):
        return ""
    return f" (YAML reads it as a text; {re.sub('e', '.0e', value, count=1, flags=re.IGNORECASE)} is a number)"

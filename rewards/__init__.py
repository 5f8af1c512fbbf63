"""Rewards for length-controlled reasoning: one idea per file, pure callables for any TRL trainer.

    from rlred.rewards import ExactLength
    GRPOTrainer(..., reward_funcs=ExactLength(alpha=3e-4))

They take what TRL passes (`completions`, `completion_ids` and the dataset's columns by name) and return one float, or
None for "no opinion", per completion. They need math-verify and nothing of rlred.
"""

import dataclasses
import importlib
from collections.abc import Callable

from .adapt_think import AdaptThink
from .base import OLD_PARAMETERS, Reward
from .by_mode import ByMode
from .correctness import Correctness
from .cosine_length import CosineLength
from .difficulty_length import DifficultyLength
from .duplicated_reasoning import DuplicatedReasoning
from .effort_length import EffortLength
from .exact_length import ExactLength
from .exact_match import ExactMatch
from .format_diversity import FormatDiversity
from .gr3 import Gr3
from .group_sigmoid import GroupSigmoid
from .grpo_lead import GrpoLead
from .kimi_length import KimiLength
from .laconic import Laconic
from .lead import Lead
from .length import Length
from .length_bonus import LengthBonus
from .length_efficiency import LengthEfficiency
from .length_mask import LengthMask
from .max_length import MaxLength
from .request_threshold import RequestThreshold
from .shortest_correct import ShortestCorrect
from .slack_length import SlackLength
from .soft_overlong import SoftOverlong
from .solve_rate_penalty import SolveRatePenalty
from .thinkless import Thinkless
from .toggle import Toggle
from .truncation import Truncation
from .turn_cost import TurnCost
from .uncertainty_budget import UncertaintyBudget
from .visual_sparsity import VisualSparsity

# Each by the name of its file: a new reward is a file and its import above.
REWARDS: dict[str, type] = {
    kind.__module__.rpartition(".")[2]: kind
    for kind in list(vars().values())
    if isinstance(kind, type) and issubclass(kind, Reward) and kind is not Reward
}
PARTS = {"correctness": Correctness, "length": Length}  # parameters that are objects themselves


def make_reward(spec: "str | dict") -> Callable:
    """A reward from YAML: its name, or a mapping with `name` and parameters; rewards may nest.

    A dotted name (`my_package.my_reward`) is imported: a class is called with the parameters, a function is used as it
    is. Raises `ValueError` for an unknown name or parameter.

    >>> make_reward({"name": "max_length", "alpha": 0.05}).alpha
    0.05
    >>> make_reward({"name": "exact_length", "preset": "released"}).alpha == 1 / 3000
    True
    """
    if not isinstance(spec, str | dict):
        raise ValueError(f"reward: expected a name or a mapping with a name, got {spec!r}")
    parameters = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = parameters.pop("name", None)
    if name in REWARDS:
        factory = REWARDS[name]
    elif isinstance(name, str) and "." in name:
        factory = _import(name)
    else:
        raise ValueError(
            f"reward: no reward is named {name!r}; there are {', '.join(REWARDS)}, or a dotted import path"
        )
    nested = _rewards_of(factory)
    for key, value in parameters.items():
        if key in OLD_PARAMETERS and name in REWARDS:
            raise ValueError(f"reward: {name}: {key!r} is now called {OLD_PARAMETERS[key]!r}")
        if (isinstance(value, dict) and "name" in value) or (isinstance(value, str) and key in nested):
            parameters[key] = make_reward(value)
        elif key in PARTS and (name in REWARDS or isinstance(value, dict)):
            parameters[key] = _part(key, value)
    preset = parameters.pop("preset", None)
    if not isinstance(factory, type):
        if parameters or preset:
            raise ValueError(f"reward: {name} is a function and takes no parameters, got {sorted(parameters)}")
        return factory
    try:
        return factory(**parameters) if preset is None else factory.preset(preset, **parameters)
    except (AttributeError, KeyError):
        raise ValueError(f"reward: {name} has no preset {preset!r}") from None
    except TypeError as error:
        if preset is not None:
            raise ValueError(f"reward: {name}: the preset {preset!r} fixes {sorted(parameters)}") from None
        raise ValueError(f"reward: {name}: {error}") from None


def _part(key: str, value):
    """The object that counts the length or grades the answers, of its parameters or as it is."""
    if isinstance(value, str) and key == "correctness":
        return make_reward(value)
    if isinstance(value, Length | Reward):
        return value
    if not isinstance(value, dict):
        such = "{count: thinking}" if key == "length" else "{require_end_of_thinking: true}"
        raise ValueError(f"reward.{key} must be a mapping of its settings, such as {such}; got {value!r}")
    known = sorted(item.name for item in dataclasses.fields(PARTS[key]))
    if unknown := sorted(set(value) - set(known)):
        raise ValueError(f"reward.{key}: no field is called {unknown[0]!r}; there are {', '.join(known)}")
    return PARTS[key](**value)


def _rewards_of(factory) -> set[str]:
    """The parameters of a reward that are rewards themselves."""
    found = dataclasses.fields(factory) if dataclasses.is_dataclass(factory) else ()
    return {
        one.name
        for one in found
        if (isinstance(one.default_factory, type) and issubclass(one.default_factory, Reward))
        or one.type == Callable | None
    }


def _import(path: str) -> Callable:
    module, _, attribute = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"reward: cannot import {path!r}: {error}") from None


__all__ = ["Length", "PARTS", "REWARDS", "make_reward", *(kind.__name__ for kind in REWARDS.values())]

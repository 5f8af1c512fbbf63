"""A recipe's YAML without its recipe: whichever kind of run it is of."""

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from trl import GRPOConfig, ModelConfig, SFTConfig

from rlred.compression.arguments import CompressionArguments
from rlred.runs.arguments import (
    SFT_KINDS,
    LengthControlArguments,
    LoraModelConfig,
    RecipeParser,
    RLConfig,
    SFTDefaults,
    parse_elsewhere,
)
from rlred.runs.config_files import read_config
from rlred.runs.visual import VisionArguments

# What a recipe's YAML may be read as, beside LoraModelConfig.
RECIPES = ((LengthControlArguments, RLConfig), (VisionArguments, RLConfig), (CompressionArguments, SFTDefaults))


def read_recipe(config: Path) -> tuple[Any, GRPOConfig | SFTConfig, ModelConfig]:
    """A recipe's own settings, its training and its model, whichever kind of recipe the YAML is of.

    It is read for this machine, which need not have the recipe's devices; `use_cpu` and `bf16` are then those of the
    YAML. A comparison of SFT variants (rho1, upft) has settings that only its recipe knows; those are taken unchecked.
    Raises `ValueError` for a file that is not a mapping, and for a key that no kind of recipe has.
    """
    keys = read_config(config)
    unknown = {kinds: sorted(set(keys) - _names(*kinds, LoraModelConfig)) for kinds in RECIPES}
    kinds = min(unknown, key=lambda kinds: len(unknown[kinds]))
    if not unknown[kinds]:
        return parse_elsewhere(config, [], (*kinds, LoraModelConfig))
    if "variants" not in keys:
        raise ValueError(f"--config {config}: no recipe has the setting {unknown[kinds][0]!r}; take it out")
    parser = RecipeParser(SFT_KINDS)
    parser.set_defaults_with_config(**keys)
    training, model_config = parser.parse_args_into_dataclasses(args=["--use_cpu", "true", "--bf16", "false"])
    arguments = SimpleNamespace(**{name: value for name, value in keys.items() if name not in _names(*SFT_KINDS)})
    training.use_cpu, training.bf16 = (bool(keys.get(name, False)) for name in ("use_cpu", "bf16"))
    return arguments, training, model_config


def _names(*kinds: type) -> set[str]:
    return {item.name for kind in kinds for item in fields(kind)}

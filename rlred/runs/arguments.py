"""What a recipe can be told, beside TRL's GRPOConfig and ModelConfig: one dataclass, from YAML or flags.

Every field says its unit and effect; the help text of `--help` is made from it.
"""

import json
import os
import sys
from argparse import Namespace
from contextvars import ContextVar
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from transformers import TrainingArguments
from transformers.hf_argparser import string_to_bool
from trl import GRPOConfig, ModelConfig, SFTConfig, TrlParser

from rlred.checks.probe_file import read_probe
from rlred.data.budgets import EFFORTS, BudgetSampler, Wording, effort_of, make_wording
from rlred.data.prompts import Prompts, template_settings
from rlred.evaluation.per_prompt_cap import check_per_prompt_cap
from rlred.flags import apart, complaint, no_such_flag, no_such_setting, option
from rlred.names import MODES, SETTINGS, refuse
from rlred.rewards.fields import check_fields
from rlred.runs.config_files import field_by_field, over, plain, read_config
from rlred.runs.devices import OnDevices
from rlred.training.callbacks import StopWhenObeyed
from rlred.training.difficulty_kl import DifficultyKL
from rlred.training.early_stop import EarlyStop
from rlred.training.hindsight_settings import Hindsight
from rlred.training.merged_rollouts import MergedRollouts
from rlred.training.parts import make_part
from rlred.training.target_search import TargetSearch
from rlred.training.think_or_not import ThinkOrNot
from rlred.training.token_selection import TokenSelection
from rlred.training.trainer import Part

MAPPINGS = ("modes", "hindsight_settings", "selection", "think_or_not", "parts", "target_search")
AUDITED: ContextVar[int] = ContextVar("processes of the run that is audited", default=1)


@dataclass
class LengthControlArguments:
    """Questions, budgets, reward, hindsight start and evaluation of a length-control run.

    Fields that say "YAML/JSON" are mappings in YAML and JSON text on the command line.
    """

    questions: str = option(
        "sums", "Training questions: 'sums' (embedded), a local JSON/JSONL/Parquet/CSV file, or a Hub id."
    )
    questions_config: str | None = option(None, "Configuration name of a Hub dataset.")
    questions_split: str = option("train", "Split of the training questions.")
    questions_streaming: bool = option(
        False, "Read num_questions rows of a Hub dataset or a folder of files as they come, and download no more."
    )
    question_column: str | None = option(None, "Column that holds the question; found by its usual names if not given.")
    solution_column: str | None = option(
        None, "Column that holds the gold answer; found by its usual names if not given."
    )
    num_questions: int | None = option(None, "Take this many training questions (default: all; 4096 embedded ones).")

    wording: str = option("l1", "Preset name, or templates per mode as YAML/JSON: {exact: ..., max: ..., free: ...}.")
    system_prompt: str | None = option(None, "System prompt of every question that brings none of its own (`system`).")
    end_of_thinking: str | None = option(
        None, "Text that ends the thinking; '' for a model that has none (default: as tokenizer or reward know it)."
    )
    budget_low: int = option(16, "Smallest budget, in tokens.")
    budget_high: int = option(64, "Largest budget, in tokens.")
    budget_distribution: str = option("uniform", "uniform, log_uniform or choices.")
    budget_choices: list[int] = option([], "The budgets to choose from, for budget_distribution=choices.")
    modes: str = option({"exact": 1.0}, "Weights of the modes exact, max, effort and free, as YAML/JSON.")
    efforts: list[str] = option([], "Efforts to draw from, low, medium, high or numbers (default: effort_low to 1).")
    effort_low: float = option(0.1, "Smallest effort, a share of the question's own length; the largest is 1.")
    budgets_per_question: int = option(2, "Budgets at which a question is asked, side by side, each time it comes up.")

    reward: str = option("by_mode", "Reward name, or a mapping with its name and parameters, as YAML/JSON.")

    selection: str = option(
        {},
        "Train on some tokens only: fields of rlred.training.token_selection.TokenSelection, YAML/JSON; empty: all.",
    )

    think_or_not: str = option(
        {},
        "Learn whether to think: fields of rlred.training.think_or_not.ThinkOrNot, as YAML/JSON; empty: no part in it.",
    )
    parts: str = option({}, "More parts of the trainer (rlred/training/parts.py): names and fields, as YAML/JSON.")
    target_search: str = option(
        {},
        "Search length_bonus's targets: fields of rlred.training.target_search.TargetSearch, YAML/JSON; empty: given.",
    )
    beta_solved: float | None = option(
        None, "KL weight of a group that is always correct, beta being that of one that never is (FAST); empty: beta."
    )

    early_stop_rollouts: bool = option(
        False, "End each rollout where its reward is decided (max_length: delta / alpha past the budget); saves tokens."
    )
    merged_rollouts: bool = option(
        False, "Sample rollouts from weights with the adapter merged in: quicker with transformers, not for vLLM."
    )
    stop_at_correlation: float | None = option(
        None, "End the training once the rollouts' rank correlation of budget and length is this in three logs running."
    )

    adapter: str | None = option(
        None, "LoRA adapter to train on: a folder, Hub id or embedded one; none: a fresh one. Traces stay the base's."
    )
    hindsight: bool = option(True, "Begin with the hindsight start; off, GRPO begins from the base as stock TRL does.")
    hindsight_settings: str = option(
        {}, "Fields of rlred.training.hindsight_settings.Hindsight, as YAML/JSON; those that are named change."
    )

    probe: str | None = option(
        None, "probe.yaml of rlred probe: its budgets, cap and hindsight sources stand over this YAML, under the flags."
    )

    reference_samples: int = option(
        8, "Base completions per question for a reward that needs reference_length, where questions do not bring it."
    )
    reference_wording: str | None = option(None, "Preset name of the wording for those completions (default: wording).")

    evaluate: bool = option(True, "Measure adherence before and after, and write adherence.{json,md,png}.")
    eval_questions: str | None = option(None, "Held-out questions (default: the training source's eval_split).")
    eval_config: str | None = option(None, "Configuration name of a Hub dataset of held-out questions.")
    eval_split: str = option("test", "Split of the held-out questions.")
    num_eval_questions: int = option(64, "Held-out questions; each is asked at every budget in every mode.")
    eval_budgets: list[int] = option([], "Budgets of the sweep (default: seven over the training range).")
    eval_efforts: list[str] = option([], "Efforts of the sweep (default: low, medium, high and ten over the range).")
    eval_modes: list[str] = option([], "Modes of the sweep (default: the mode with the largest weight).")
    eval_temperature: float = option(1.0, "Sampling temperature of the sweep; 0 is greedy.")
    eval_per_prompt_cap: float | None = option(
        None, "End max rows of the sweep at this many times their budget: quicker, and bounds (docs/measures.md)."
    )
    eval_batch_size: int = option(128, "Completions generated at once, in the sweep and in hindsight sampling.")

    def __post_init__(self):
        for name in ("wording", "reward", *MAPPINGS):
            value = getattr(self, name)
            if isinstance(value, str) and value.lstrip().startswith("{"):
                try:
                    setattr(self, name, json.loads(value))
                except json.JSONDecodeError as error:
                    said = f'{name}={value!r}: not JSON ({error}); write it as {{"key": 1}}'
                    raise ValueError(said) from None
        for name in MAPPINGS:
            if not isinstance(getattr(self, name), dict):
                raise ValueError(f"{name} must be a mapping, got {getattr(self, name)!r}")
        for name in ("num_eval_questions", "eval_batch_size", "budgets_per_question", "reference_samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.eval_temperature < 0:
            raise ValueError(f"eval_temperature must be 0 or more, got {self.eval_temperature}")
        refuse(self.eval_modes, MODES, "eval_modes: ")
        for budget in self.eval_budgets:
            if budget < 1:
                raise ValueError(f"eval_budgets must be 1 or more, got {budget}")
        check_per_prompt_cap(self.eval_per_prompt_cap, self.eval_modes or [self.main_mode()], "eval_per_prompt_cap")
        # Made once here, so that a wrong value is reported before anything is loaded.
        self.make_wording(), self.make_sampler(), self.make_hindsight(), self.make_parts(), self.make_stop()
        self.make_target_search(), self.make_reference_wording(), self.make_eval_efforts()

    def make_prompts(self, chat_template_kwargs: dict | None = None, end_of_thinking: str | None = None) -> Prompts:
        """How this run asks: its wording and system prompt, with TRL's `chat_template_kwargs`.

        `end_of_thinking` is what the rewards bring along. Raises `ValueError` where that and the argument differ.
        """
        given = self.end_of_thinking
        if given is not None and end_of_thinking not in (None, given):
            raise ValueError(
                f"end_of_thinking={given!r}, but the reward's correctness says {end_of_thinking!r}; give it once"
            )
        end = end_of_thinking if given is None else given
        settings, markers = template_settings(chat_template_kwargs), self.make_hindsight().markers
        return Prompts(self.make_wording(), self.system_prompt, settings, end, markers=markers)

    def make_wording(self) -> Wording:
        """The wording of this run."""
        return make_wording(self.wording)

    def make_reference_wording(self) -> Wording:
        """The wording in which the reference is sampled."""
        return make_wording(self.reference_wording or self.wording)

    def make_sampler(self) -> BudgetSampler:
        """The budget sampler of this run."""
        return BudgetSampler(
            low=self.budget_low,
            high=self.budget_high,
            distribution=self.budget_distribution,
            choices=tuple(self.budget_choices),
            modes=self.modes,
            efforts=tuple(self.efforts),
            effort_low=self.effort_low,
        )

    def check_markers(self) -> None:
        """Raises `ValueError` for counted thinking in a start whose rows ask for efforts."""
        start = self.make_hindsight()
        if self.hindsight and start.markers and (start.modes or self.modes).get("effort"):
            raise ValueError(
                "hindsight_settings.markers: they count against a number of tokens, and an effort is none; leave out "
                "the markers or the mode effort"
            )

    def make_eval_efforts(self) -> list[float]:
        """The efforts of the sweep, smallest first."""
        told = self.eval_efforts or [*EFFORTS, *self.make_sampler().effort_grid()]
        return sorted({effort_of(effort, "eval_efforts") for effort in told})

    def make_hindsight(self) -> Hindsight:
        """The settings of the hindsight start."""
        return _from_mapping(Hindsight, "hindsight_settings", self.hindsight_settings)

    def make_parts(self) -> list[Part]:
        """What the run's methods change in a GRPO step; empty for plain GRPO."""
        parts: list[Part] = []
        if self.selection:
            parts.append(_from_mapping(TokenSelection, "selection", self.selection))
        if self.think_or_not:
            parts.append(_from_mapping(ThinkOrNot, "think_or_not", self.think_or_not))
        if self.beta_solved is not None:
            parts.append(DifficultyKL(self.beta_solved))
        if self.early_stop_rollouts:
            parts.append(EarlyStop())
        if self.merged_rollouts:
            parts.append(MergedRollouts())
        parts += [make_part(name, {} if settings is None else settings) for name, settings in self.parts.items()]
        kinds = [type(part).__name__ for part in parts]
        twice = [kind for kind in kinds if kinds.count(kind) > 1]
        if twice:
            raise ValueError(f"parts: {twice[0]} is given twice; name it once, here or by its own setting")
        return parts

    def make_target_search(self) -> TargetSearch | None:
        """How the targets of length_bonus are searched for; None for those that are given."""
        return _from_mapping(TargetSearch, "target_search", self.target_search) if self.target_search else None

    def make_stop(self) -> StopWhenObeyed | None:
        """What ends the training early; None for nothing."""
        return None if self.stop_at_correlation is None else StopWhenObeyed(self.stop_at_correlation)

    def main_mode(self) -> str:
        """The mode that is trained most."""
        return max(self.modes, key=self.modes.get)


def _from_mapping(kind: type, name: str, mapping: dict):
    known = {item.name for item in fields(kind)}
    unknown = sorted(set(mapping) - known)
    refuse(unknown, SETTINGS, f"{name}: ")
    if unknown:
        raise ValueError(f"{name}: no field is called {unknown[0]!r}; there are {', '.join(sorted(known))}")
    check_fields(kind, mapping, name)
    return kind(**mapping)


@dataclass
class RLConfig(OnDevices, GRPOConfig):
    """TRL's GRPOConfig with the defaults of this project, where TRL's are wrong for length control."""

    # Rows are made in the order in which they are trained on: the budgets of one question stay neighbours.
    shuffle_dataset: bool | None = option(False, "Whether to shuffle the training rows.")
    # Divided by the group's std, a small bonus is as strong as the answer (docs/methods.md).
    scale_rewards: str = option("none", "What rewards are divided by: group, batch or none.")
    seed: int = option(0, "Seed of rows, rollouts and adapter.")
    keep_completions: int | None = option(100, "Tables of log_completions that are kept, the last ones; empty: all.")
    disk_budget_gib: float | None = option(
        None, "GiB of the whole output folder, above which old completions and checkpoints go; empty: no bound."
    )

    @property
    def world_size(self):
        """The processes of the run; of an audit alone, those of the run that it is of."""
        return max(AUDITED.get(), super().world_size)

    def __post_init__(self):
        super().__post_init__()
        for name in ("keep_completions", "disk_budget_gib"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, or empty for no bound; got {value}")


@dataclass
class SFTDefaults(OnDevices, SFTConfig):
    """TRL's SFTConfig with the defaults of this project."""

    seed: int = option(0, "Seed of rows and adapter.")


@dataclass
class LoraModelConfig(ModelConfig):
    """TRL's ModelConfig with the defaults of this project: an adapter is what a run makes."""

    use_peft: bool = option(True, "Whether to train a LoRA adapter.")
    lora_dropout: float = option(0.0, "LoRA dropout.")


class RecipeParser(TrlParser):
    """TRL's parser, which prints four hundred flags before its complaint; here the complaint is all."""

    def error(self, message):
        raise ValueError(complaint(message))


KINDS = (LengthControlArguments, RLConfig, LoraModelConfig)
SFT_KINDS = (SFTDefaults, LoraModelConfig)


def _told(name: str, argv: list[str], settings: dict[str, Any]) -> str | None:
    """What a flag says, or else the file."""
    for place, word in enumerate(argv):
        if word == f"--{name}":
            return next(iter(argv[place + 1 : place + 2]), None)
        if word.startswith(f"--{name}="):
            return word.partition("=")[2]
    return settings.get(name)


# What a run for a GPU asks of it, and a machine without one refuses when it reads the settings.
OF_DEVICES = ("use_cpu", "bf16", "fp16", "bf16_full_eval", "fp16_full_eval", "tf32")


def parse(default_config: Path, argv: list[str] | None = None, kinds: tuple[type, ...] = KINDS) -> tuple[Any, ...]:
    """The arguments of a recipe, one of each kind: `--config FILE` (default: its own YAML, if it has one), then flags.

    Settings of a `--probe FILE` stand between the two: flags > probe > YAML (rlred/checks/probe_file.py). Of
    `hindsight_settings` each replaces the fields that it names. Raises `ValueError` for a setting that no kind has.
    `--print_config` prints what the three come to, as YAML, and ends the program.
    """
    path, settings, argv = settings_of(default_config, argv, kinds)
    if "--print_config" in argv:
        found = settings | _flags(argv, kinds)
        found.pop("probe", None)  # its settings are among these, and would stand over them once more
        print(yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=120), end="")
        raise SystemExit(0)
    return _instances(path, settings, argv, kinds)


def parse_elsewhere(default_config: Path, argv: list[str], kinds: tuple[type, ...]) -> tuple[Any, ...]:
    """The same on a machine that need not have the devices of the run: they are read, and not looked for."""
    path, settings, argv = settings_of(default_config, argv, kinds)
    known = {item.name for kind in kinds for item in fields(kind)}
    told = {name: _told(name, argv, settings) for name in OF_DEVICES if name in known}
    flags = [word for name in told for word in (f"--{name}", "true" if name == "use_cpu" else "false")]
    found = _instances(path, settings, [*argv, *flags], kinds)
    for part in found:
        for name in told if isinstance(part, TrainingArguments) else ():
            setattr(part, name, string_to_bool(told[name]) if told[name] is not None else False)
    return found


def settings_of(
    default_config: Path, argv: list[str] | None, kinds: tuple[type, ...]
) -> tuple[Path, dict[str, Any], list[str]]:
    """The YAML that is read, its settings with those of a probe, and the flags."""
    argv, path = apart(sys.argv[1:] if argv is None else argv, "--config"), default_config
    if "--config" in argv:
        place = argv.index("--config")
        told = argv[place + 1 : place + 2]
        del argv[place : place + 2]
        path = Path(*told)
        if not told or not path.is_file():
            raise ValueError(f"--config: no such file: {' '.join(told) or '(none given)'}")
    settings = read_config(path) if path != default_config or path.is_file() else {}
    if LengthControlArguments in kinds and (probe := _told("probe", argv, settings)):
        settings = over(settings, read_probe(probe).settings)
    if any(word.startswith("--hindsight") for word in argv):
        for name, value in field_by_field(settings, _flags(argv, kinds)).items():
            argv += [f"--{name}", json.dumps(value, default=str)]  # the last of several is taken
    return path, settings, argv


def _flags(argv: list[str], kinds: tuple[type, ...]) -> dict[str, Any]:
    """The settings that flags give, as a YAML would."""
    names, untold = [item.name for kind in kinds for item in fields(kind)], object()
    words = [word for word in argv if word != "--print_config"]
    found, rest = RecipeParser(kinds).parse_known_args(words, Namespace(**dict.fromkeys(names, untold)))
    if rest:
        raise ValueError(no_such_flag(rest[0], [f"--{name}" for name in names]))
    told = {name: value for name, value in vars(found).items() if value is not untold}
    return {name: plain(value) if name in ("wording", "reward", *MAPPINGS) else value for name, value in told.items()}


def _instances(path: Path, settings: dict[str, Any], argv: list[str], kinds: tuple[type, ...]) -> tuple[Any, ...]:
    """One of each kind, of settings and then of flags."""
    os.environ.update({name: str(value) for name, value in settings.pop("env", {}).items()})
    parser = RecipeParser(kinds)
    unknown = parser.set_defaults_with_config(**settings)
    names = [item.name for kind in kinds for item in fields(kind)]
    if unknown:
        raise ValueError(f"{path}: {no_such_setting(unknown[0], names)}")
    *found, rest = parser.parse_args_into_dataclasses(args=argv, return_remaining_strings=True)
    if rest:
        raise ValueError(no_such_flag(rest[0], [f"--{name}" for name in names]))
    return tuple(found)

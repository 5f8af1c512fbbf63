"""What a compression recipe can be told, beside TRL's SFTConfig and ModelConfig: one dataclass, from YAML or flags."""

import json
from dataclasses import dataclass, fields, replace

from rlred.compression.cut import RATIOS, check_ratio
from rlred.compression.levels import check_levels
from rlred.compression.mixing import DIFFICULTIES, check_difficulty, check_share
from rlred.compression.random_cut import check_cut
from rlred.compression.rows import RatioFormat, make_ratio_format
from rlred.compression.scores import SCORERS
from rlred.data.budgets import Wording
from rlred.data.prompts import Prompts, template_settings
from rlred.flags import option

UNASKED = ("levels", "random_cut")
"""What may stand in a scorer's place and makes rows that ask for no ratio (levels.py, random_cut.py)."""


@dataclass(frozen=True)
class Variant:
    """One way to choose what goes: a scorer, and whether numbers and operators are protected from it; or one of
    `UNASKED`."""

    scorer: str
    protect: bool = True

    @property
    def name(self) -> str:
        """Its name for files and tables."""
        return self.scorer if self.protect else f"{self.scorer}-unprotected"


@dataclass
class CompressionArguments:
    """Questions, traces, scores, rows and evaluation of a compression run."""

    questions: str = option("short_sums", "Training questions: an embedded family, a local file, or a Hub id.")
    questions_config: str | None = option(None, "Configuration name of a Hub dataset.")
    questions_split: str = option("train", "Split of the training questions.")
    questions_streaming: bool = option(
        False, "Read num_questions rows of a Hub dataset or a folder of files as they come, and download no more."
    )
    question_column: str | None = option(None, "Column that holds the question; found by its usual names if not given.")
    solution_column: str | None = option(None, "Column that holds the gold answer; found by its usual names otherwise.")
    num_questions: int | None = option(None, "Take this many training questions (default: all; 4096 embedded ones).")

    traces: str | None = option(None, "File of completions to use in place of sampling them.")
    num_samples: int = option(1, "Completions of each question to sample.")
    trace_temperature: float = option(0.0, "Their temperature; 0 is greedy, as in TokenSkip.")
    max_completion_length: int = option(512, "Tokens at which a completion is cut, in sampling and at every ratio.")

    scorer: str = option(
        "question", f"What scores the thinking: {', '.join(SCORERS)} ('-unprotected' may follow), levels or random_cut."
    )
    scorer_model: str | None = option(None, "Its model (default: the target model; LLMLingua-2's own for llmlingua2).")
    controls: list[str] = option([], "More scorers, each of which trains an adapter of its own to be held against.")
    ratios: list[float] = option(RATIOS, "Shares of the thinking to keep; 1.0 among them.")
    ratios_per_question: int = option(1, "Ratios at which a trace is trained on, drawn at random.")
    tolerance: float = option(0.05, "A trace that misses a ratio by more has no row there.")
    ask_ratio: bool = option(True, "Ask for the ratio in the prompt; off, the model is to find its own length.")
    difficulty: str | None = option(
        None,
        f"Cut easy questions shorter than hard ones, by {' or '.join(DIFFICULTIES)} (LiteCoT); default: at random.",
    )
    short_share: float | None = option(None, "Share of the rows that are cut, the rest whole (default: as they come).")
    reweight_steps: int | None = option(
        None, "Set short_share anew every so many updates by dev accuracy and length (TL;DR); needs ask_ratio false."
    )
    reweight_rate: float = option(4.0, "How much a measurement moves the share's log odds.")
    num_dev_questions: int = option(64, "The last training questions, kept for reweight_steps to measure on.")
    levels: list[float] = option(
        [0.4, 0.2, 0.2, 0.1, 0.1],
        "Probabilities of levels 0 to 4, where 'levels' is the scorer or a control (Dualformer).",
    )
    ratio_format: str = option("words", "Preset (words, tokenskip_qwen, tokenskip_llama3) or fields as YAML/JSON.")
    system_prompt: str | None = option(None, "System prompt of every question that brings none of its own.")
    chat_template_kwargs: str = option({}, "Settings of the chat template, as YAML/JSON: {enable_thinking: false}.")
    end_of_thinking: str | None = option(
        None, "Text that ends the thinking; '' for a model that has none (default: as the tokenizer knows it)."
    )

    evaluate: bool = option(True, "Measure by ratio before and after, and write ratios.{json,md,png}.")
    eval_questions: str | None = option(None, "Held-out questions (default: the training source's eval_split).")
    eval_config: str | None = option(None, "Configuration name of a Hub dataset of held-out questions.")
    eval_split: str = option("test", "Split of the held-out questions.")
    num_eval_questions: int = option(128, "Held-out questions; each is asked at every ratio.")
    eval_ratios: list[float] = option([0.4, 0.3], "Untrained ratios to ask for as well.")
    eval_temperature: float = option(0.0, "Sampling temperature of the evaluation; 0 is greedy.")
    eval_batch_size: int = option(128, "Completions generated at once.")

    def __post_init__(self):
        if isinstance(self.ratio_format, str) and self.ratio_format.lstrip().startswith("{"):
            try:
                self.ratio_format = json.loads(self.ratio_format)
            except json.JSONDecodeError as error:
                raise ValueError(f"ratio_format: not JSON: {error}") from None
        self.chat_template_kwargs = template_settings(self.chat_template_kwargs)
        for ratio in [*self.ratios, *self.eval_ratios]:
            check_ratio(ratio)
        if 1.0 not in self.ratios:
            raise ValueError(f"ratios must hold 1.0, what the others are shares of; got {self.ratios}")
        counts = (
            "num_samples",
            "max_completion_length",
            "ratios_per_question",
            "num_eval_questions",
            "eval_batch_size",
            "num_dev_questions",
        )
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("trace_temperature", "eval_temperature"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        check_difficulty(self.difficulty), check_share("short_share", self.short_share), check_levels(self.levels)
        if self.difficulty == "failures" and self.num_samples == 1 and not self.traces:
            raise ValueError("difficulty=failures: num_samples must be 2 or more, got 1: one sample is always correct")
        if self.reweight_steps is not None:
            self._check_reweighting()
        if self.scorer in UNASKED and not self.controls:
            self._check_unasked()
        self.make_ratio_format(), self.variants()

    def _check_unasked(self) -> None:
        plain = {item.name: item.default for item in fields(type(self))} | {"ratios": RATIOS}
        for name in ("difficulty", "tolerance", *(["short_share"] if self.scorer == "levels" else []), "ratios"):
            if getattr(self, name) != plain[name]:
                raise ValueError(f"{name}: rows of the scorer {self.scorer!r} have no ratio to choose; leave it out")

    def _check_reweighting(self) -> None:
        if self.reweight_steps < 1:
            raise ValueError(f"reweight_steps must be 1 or more, got {self.reweight_steps}")
        if self.short_share is None or self.ask_ratio:
            raise ValueError("reweight_steps: set short_share, to begin with, and ask_ratio to false")
        if not self.reweight_rate > 0:
            raise ValueError(f"reweight_rate must be above 0, got {self.reweight_rate}")
        if min(self.ratios) == 1:
            raise ValueError("reweight_steps: ratios must hold one below 1, got none")
        for variant in self.variants():
            if variant.scorer in UNASKED:
                raise ValueError(
                    f"reweight_steps: rows of the scorer {variant.scorer!r} have no ratio; train them without it"
                )

    def asked_ratios(self) -> list[float]:
        """The ratios that prompts ask for in training; 1.0 is asking for nothing."""
        return self.ratios if self.ask_ratio and self.scorer not in UNASKED else [1.0]

    def make_ratio_format(self, tokenizer=None) -> RatioFormat:
        """How a ratio is asked for, fitted to the tokenizer where there is one yet."""
        settings = (self.system_prompt, self.chat_template_kwargs, self.end_of_thinking)
        found = replace(make_ratio_format(self.ratio_format), prompts=Prompts(Wording(), *settings))
        return found if tokenizer is None else found.fitted(tokenizer)

    def variants(self) -> list[Variant]:
        """The scorer, then the controls."""
        variants = []
        for name in (self.scorer, *self.controls):
            variant = Variant(name.removesuffix("-unprotected"), not name.endswith("-unprotected"))
            if variant.scorer not in SCORERS and name not in UNASKED:
                known = ", ".join((*SCORERS, *UNASKED))
                raise ValueError(f"scorer: none is called {variant.scorer!r}; there are {known}")
            if name == "random_cut":
                check_cut(self.ratios_per_question, self.short_share, self.make_ratio_format())
            if variant in variants:
                raise ValueError(f"controls: {variant.name!r} is named twice")
            variants.append(variant)
        return variants

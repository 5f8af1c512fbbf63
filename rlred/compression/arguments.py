"""What a compression recipe can be told, beside TRL's SFTConfig and ModelConfig: one dataclass, from YAML or flags."""

import json
from dataclasses import dataclass

from rlred.arguments import option
from rlred.compression.cut import check_ratio
from rlred.compression.rows import RatioFormat, make_ratio_format
from rlred.compression.scores import SCORERS


@dataclass(frozen=True)
class Arm:
    """One way to choose what goes: a scorer, and whether numbers and operators are protected from it."""

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
    question_column: str | None = option(None, "Column that holds the question; found by its usual names if not given.")
    solution_column: str | None = option(None, "Column that holds the gold answer; found by its usual names otherwise.")
    num_questions: int | None = option(None, "Take this many training questions (default: all; 4096 embedded ones).")

    traces: str | None = option(None, "File of completions to use in place of sampling them.")
    num_samples: int = option(1, "Completions of each question to sample.")
    trace_temperature: float = option(0.0, "Their temperature; 0 is greedy, as in TokenSkip.")
    max_completion_length: int = option(512, "Tokens at which a completion is cut, in sampling and at every ratio.")

    scorer: str = option("question", f"What scores the thinking: {', '.join(SCORERS)}; '-unprotected' may follow.")
    scorer_model: str | None = option(None, "Its model (default: the target model; LLMLingua-2's own for llmlingua2).")
    controls: list[str] = option([], "More scorers, each of which trains an adapter of its own to be held against.")
    ratios: list[float] = option([1.0, 0.9, 0.8, 0.7, 0.6, 0.5], "Shares of the thinking to keep; 1.0 among them.")
    ratios_per_question: int = option(1, "Ratios at which a trace is trained on, drawn at random.")
    tolerance: float = option(0.05, "A trace that misses a ratio by more has no row there.")
    ratio_format: str = option("words", "Preset (words, tokenskip_qwen, tokenskip_llama3) or fields as YAML/JSON.")

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
        )
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("trace_temperature", "eval_temperature"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        self.make_ratio_format(), self.arms()

    def make_ratio_format(self) -> RatioFormat:
        """How a ratio is asked for."""
        return make_ratio_format(self.ratio_format)

    def arms(self) -> list[Arm]:
        """The scorer, then the controls."""
        arms = []
        for name in (self.scorer, *self.controls):
            arm = Arm(name.removesuffix("-unprotected"), not name.endswith("-unprotected"))
            if arm.scorer not in SCORERS:
                raise ValueError(f"scorer: none is called {arm.scorer!r}; there are {', '.join(SCORERS)}")
            if arm in arms:
                raise ValueError(f"controls: {arm.name!r} is named twice")
            arms.append(arm)
        return arms

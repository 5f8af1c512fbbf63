"""What `rlred evaluate` measures: its flags, checked before anything is loaded. Imports no torch."""

import logging
from dataclasses import dataclass
from pathlib import Path

from rlred.data.budgets import MODES, asks_tokens, effort_of
from rlred.data.models import Loading
from rlred.data.sources import PromptSettings, QuestionSource
from rlred.evaluation.per_prompt_cap import check_per_prompt_cap
from rlred.files import read_record
from rlred.flags import option
from rlred.tiny import QUESTIONS, TINY_SORTER, resolve_adapter, sorting

logger = logging.getLogger(__name__)

BASELINES = ("brevity", "truncation", "s1_forcing")


@dataclass(frozen=True, kw_only=True)
class Evaluation(Loading, PromptSettings, QuestionSource):
    """Models, adapters and budgets.

    Raises `ValueError` for a value out of range.
    """

    model: list[str] = option([], "Folders, Hub ids or embedded ones (default: the adapter's base).")
    adapter: list[str] = option([], "PEFT adapters, measured beside their base.")
    budgets: list[int] = option([], "Tokens to ask for.", metavar="TOKENS")
    efforts: list[str] = option([], "Efforts to ask for: low, medium, high or numbers up to 1.", metavar="EFFORT")
    modes: list[str] = option(["exact"], "How a length is asked for", choices=MODES, metavar="MODE")
    questions: str | None = option(None, "Embedded family, file or Hub id (default: the adapter's, if embedded).")
    split: str = option("test", "Split of the questions.")
    more_questions: list[str] = option([], "Ask the first adapter other questions, too.", metavar="QUESTIONS")
    num_questions: int = option(64, "Number of questions.", metavar="N")
    num_samples: int = option(1, "Completions of each question at each budget.", metavar="N")
    wording: str | None = option(None, "Preset, or templates as JSON (default: the adapter's, or l1).")
    paraphrase: str | None = option(None, "Ask the first adapter in other words, too.", metavar="WORDING")
    out_of_range: bool = option(False, "Also budgets beyond the trained ones.")
    baselines: list[str] = option([], "Also measure the base with", choices=BASELINES, metavar="NAME")
    interruptions: list[float] = option([], "Also cut the thinking after these shares of its tokens.", metavar="SHARE")
    max_completion_length: int | None = option(None, "Default: twice the largest budget.", metavar="TOKENS")
    per_prompt_cap: float | None = option(
        None, "Cut completions of mode max at this many times their budget.", metavar="TIMES"
    )
    require_end_of_thinking: bool = option(False, "An answer without the end of thinking is incorrect.")
    temperature: float = option(1.0, "0 is greedy.", metavar="T")
    batch_size: int = option(128, "Completions generated at once.", metavar="N")
    seed: int = option(0, "Seed of questions and sampling.", metavar="N")
    vllm: bool = option(False, "Generate with vLLM, which must be installed.")

    def __post_init__(self):
        super().__post_init__()
        self.find_questions()
        for name, smallest in (("num_questions", 1), ("num_samples", 1), ("batch_size", 1), ("temperature", 0)):
            if getattr(self, name) < smallest:
                raise ValueError(f"--{name} must be {smallest} or more, got {getattr(self, name)}")
        try:
            object.__setattr__(self, "efforts", [effort_of(effort) for effort in self.efforts])
        except ValueError as problem:
            raise ValueError(f"--efforts: {problem}") from None
        if not self.budgets and asks_tokens(self.modes):
            raise ValueError("--budgets: name the token budgets to ask for, or files with --predictions")
        if ("effort" in self.modes) != bool(self.efforts):
            told = "--efforts: name those to ask for" if "effort" in self.modes else "--efforts needs --modes effort"
            raise ValueError(f"{told}, such as low medium high 0.1 1.0")
        if self.budgets and min(self.budgets) < 1:
            raise ValueError(f"--budgets must be 1 or more, got {min(self.budgets)}")
        if self.max_completion_length is not None and self.max_completion_length < 1:
            raise ValueError(f"--max_completion_length must be 1 or more, got {self.max_completion_length}")
        if self.max_completion_length is None and not self.budgets:
            raise ValueError("--max_completion_length: without --budgets, say where a completion is cut")
        if (self.baselines or self.out_of_range) and not self.budgets:
            raise ValueError("--budgets: baselines and out_of_range are about token budgets; name some")
        for share in self.interruptions:
            if not 0 <= share < 1:
                raise ValueError(f"--interruptions must be shares of the thinking, 0 to below 1, got {share}")
        check_per_prompt_cap(self.per_prompt_cap, self.modes, "--per_prompt_cap")
        if self.per_prompt_cap is not None and self.interruptions:
            raise ValueError("--per_prompt_cap: cuts what --interruptions compares with; leave out one of them")
        if self.adapter and len(self.model) > 1:
            raise ValueError("--model: with --adapter, name the one model that they belong to, or none")
        for name in ("model", "adapter"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"--{name}: the same one is named twice in {getattr(self, name)}")
        if self.vllm and (self.load_in_4bit or self.load_in_8bit):
            bits = "load_in_4bit" if self.load_in_4bit else "load_in_8bit"
            raise ValueError(f"--{bits}: vLLM does not quantise with bitsandbytes here; leave out one of it and --vllm")

    def find_questions(self) -> None:
        """Says which questions are asked where none are named: `family_of` the first adapter or model."""
        if self.questions is None:
            adapter, model = (next(iter(names), None) for names in (self.adapter, self.model))
            object.__setattr__(self, "questions", family_of(adapter, model))


def family_of(adapter: str | None, model: str | None) -> str:
    """The embedded questions of an adapter's run, or those that an embedded model was made for; or else sums.

    An adapter that is not on this machine yet says nothing.

    >>> family_of("l1_exact", None), family_of(None, "tiny_sorter"), family_of(None, "org/model")
    ('sums', 'sorting', 'sums')
    """
    run, config = (_record(adapter, name) for name in ("run.json", "adapter_config.json"))
    arguments = run.get("arguments") or {}
    own = arguments.get("eval_questions") or arguments.get("questions")
    if own in QUESTIONS:
        return own
    base = (model or config.get("base_model_name_or_path") or "").removeprefix("data/")
    found = sorting.FAMILY if base == TINY_SORTER else "sums"
    if own:
        logger.warning("--questions: %s; the run of %s has %s: name it to ask the same", found, adapter, own)
    return found


def _record(adapter: str | None, name: str) -> dict:
    """A record in the folder of an adapter; empty where there is none."""
    path = Path(resolve_adapter(adapter or "")) / name
    return read_record(path) if adapter and path.is_file() else {}

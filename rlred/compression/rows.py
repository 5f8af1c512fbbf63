r"""Rows: traces cut to a ratio, and the one place that words a ratio, for training and for inference.

    RatioFormat    question and ratio -> prompt; thinking and answer -> completion
    RatioCondition a ratio as a sweep asks for it
    make_rows      traces and their scores -> rows (`prompt`, `completion`, both text; `ratio`, `achieved`, ...)
    features       rows -> token ids for TRL's SFTTrainer, the prompt tokenised as it is at inference
    to_alpaca      rows -> LLaMA-Factory's `instruction`, `input`, `output`

A row asks for a ratio that its own text has: a trace that cannot be cut to a ratio, because what may not be cut takes
more, has no row there. TokenSkip (2502.12067) trains on ratios that its compressor was asked for.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from datasets import Dataset

from rlred.compression.cut import Cut, Scores, check_ratio, cut
from rlred.compression.mixing import check_difficulty, check_share, difficulties, mix, wanted_ratio
from rlred.data.budgets import Wording
from rlred.data.prompts import Prompts, prompt_text
from rlred.rewards.correctness import last_boxed

Keep = Callable[[dict], dict]  # such as rlred.compression.spool.Spool.row

_BOXED = "Please reason step by step, and put your final answer within \\boxed{}."


@dataclass(frozen=True)
class RatioFormat:
    r"""How a ratio is asked for, and how a completion is written.

    `user` is the user turn, with `{question}` and `{marker}`; the marker is left out at ratio 1. `prompt` is the text
    around `{user}`, or None for the model's own chat template; `answer`, with `{answer}`, is written in place of the
    model's own answer. `instruction` and `input` split the user turn for the alpaca format. `prompts` bring the system
    prompt, the template's settings and the end of thinking; a text of its own has neither of the first two.

    >>> RATIO_FORMATS["words"].user_turn("1+1?", 0.5).removeprefix(RATIO_FORMATS["words"].user_turn("1+1?", 1.0))
    ' Think within 0.5 of the tokens.'
    >>> RATIO_FORMATS["tokenskip_qwen"].alpaca_input("1+1?", 0.5)
    '1+1?<|eot_id|>0.5<|eot_id|>'
    """

    instruction: str
    input: str
    marker: str
    prompt: str | None = None
    answer: str | None = None
    prompts: Prompts = Prompts()

    def __post_init__(self):
        if self.prompt is not None and (self.prompts.system_prompt or self.prompts.chat_template_kwargs):
            raise ValueError(
                "ratio_format: its prompt is a text of its own, which system_prompt and chat_template_kwargs do not "
                "reach; leave them out, or take a format without a prompt, such as words"
            )

    def fitted(self, tokenizer, prompts: Prompts | None = None) -> "RatioFormat":
        """This format for a tokenizer, with the system prompt and settings of `prompts` where they are given."""
        return replace(self, prompts=(prompts or self.prompts).fitted(tokenizer))

    def alpaca_input(self, question: str, ratio: float) -> str:
        """The question with its marker."""
        check_ratio(ratio)
        marker = "" if ratio == 1 else self.marker.replace("{ratio}", str(float(ratio)))
        return self.input.replace("{marker}", marker).replace("{question}", question)

    def user_turn(self, question: str, ratio: float) -> str:
        """What the user says."""
        return "\n".join(part for part in (self.instruction, self.alpaca_input(question, ratio)) if part)

    def prompt_text(self, question: str, ratio: float, tokenizer, system: str | None = None) -> str:
        """The whole prompt, opened for the completion; `system` is the row's own system text."""
        user = self.user_turn(question, ratio)
        if self.prompt is not None:
            return self.prompt.replace("{user}", user)
        return prompt_text(tokenizer, self.prompts.asked(self.prompts.conversation(user, system)))

    def prompt_ids(self, question: str, ratio: float, tokenizer, system: str | None = None) -> list[int]:
        """The ids of the prompt: special tokens are those of its text, and no others."""
        return tokenizer(self.prompt_text(question, ratio, tokenizer, system), add_special_tokens=False)["input_ids"]

    def completion(self, trace: dict, thinking: str) -> str:
        """A trace with other thinking. Raises `ValueError` where a boxed answer is needed and the trace has none."""
        if self.answer is None:
            return trace["opening"] + thinking + trace["separator"] + trace["answer"]
        answer = last_boxed(trace["answer"] or trace["thinking"])
        if answer is None:
            raise ValueError(f"ratio_format: needs a \\boxed answer, and there is none in {trace['answer']!r}")
        return trace["opening"] + thinking + self.answer.replace("{answer}", answer)


_FINAL = "\n\nThe final answer is: $\\boxed{{answer}}$"
RATIO_FORMATS = {
    "words": RatioFormat("", Wording().free + "{marker}", " Think within {ratio} of the tokens."),
    # TokenSkip's released format (hemingkx/TokenSkip ef02f53), byte for byte. For Qwen the marker is plain text.
    "tokenskip_qwen": RatioFormat(
        _BOXED,
        "{question}{marker}",
        "<|eot_id|>{ratio}<|eot_id|>",
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n"
        "<|im_start|>assistant\n",
        _FINAL,
    ),
    "tokenskip_llama3": RatioFormat(
        _BOXED,
        "{question}\n{marker}",
        "<|eot_id|>{ratio}<|eot_id|>",
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{user}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        _FINAL,
    ),
}


@dataclass(frozen=True)
class RatioCondition:
    """A share of the length at ratio 1, asked for as the format words it. Raises `ValueError` for one outside (0, 1].

    The budget is not known before the question was asked at ratio 1 (rlred/evaluation/predictions.py).
    """

    ratio_format: RatioFormat
    ratio: float
    limit = None
    markers = None

    def __post_init__(self):
        check_ratio(self.ratio)

    @property
    def end_of_thinking(self) -> str | None:
        return self.ratio_format.prompts.end_of_thinking

    def prompt(self, row: dict, tokenizer) -> list[int]:
        return self.ratio_format.prompt_ids(row["question"], self.ratio, tokenizer, row.get("system"))

    def labels(self) -> dict:
        return {"mode": "exact", "budget": None, "ratio": self.ratio}


def ratio_conditions(ratio_format: RatioFormat, ratios: Sequence[float]) -> list[RatioCondition]:
    """Every ratio, largest first; 1.0 is always among them."""
    return [RatioCondition(ratio_format, ratio) for ratio in sorted({1.0, *map(float, ratios)}, reverse=True)]


def make_ratio_format(spec: "str | dict[str, str]") -> RatioFormat:
    """A format from YAML: the name of a preset, or its fields. Raises `ValueError` for others."""
    if isinstance(spec, str):
        if spec not in RATIO_FORMATS:
            raise ValueError(f"ratio_format: no preset named {spec!r}; there are {', '.join(RATIO_FORMATS)}")
        return RATIO_FORMATS[spec]
    for name, holders in (("input", ("{question}", "{marker}")), ("marker", ("{ratio}",))):
        for holder in holders:
            if holder not in spec.get(name, ""):
                raise ValueError(f"ratio_format.{name} needs the placeholder {holder}: {spec.get(name)!r}")
    unknown = set(spec) - {"instruction", "input", "marker", "prompt", "answer"}
    if unknown:
        raise ValueError(f"ratio_format: no field is called {sorted(unknown)[0]!r}")
    return RatioFormat(**{"instruction": "", **spec})


@dataclass(frozen=True)
class Cutting:
    """Which cuts of a trace become rows. Raises `ValueError` for a value out of range.

    Each trace is used at `ratios_per_question` of the ratios that it can be cut to within `tolerance`: drawn at random
    (TokenSkip draws one of its six) or, with `difficulty`, those nearest to what its difficulty wants. Without
    `protect`, numbers and operators go like words: a control. Without `ask_ratio`, no prompt asks for a ratio. With
    `short_share`, rows are left out until that share of them is cut.

    >>> Cutting([0.5, 1]).ratios
    (1.0, 0.5)
    """

    ratios: Sequence[float]
    ratios_per_question: int = 1
    tolerance: float = 0.05
    protect: bool = True
    ask_ratio: bool = True
    difficulty: str | None = None
    short_share: float | None = None
    seed: int = 0

    def __post_init__(self):
        if not self.ratios:
            raise ValueError("ratios is empty; name the shares of the thinking to keep, 1.0 among them")
        for ratio in self.ratios:
            check_ratio(ratio)
        if self.ratios_per_question < 1:
            raise ValueError(f"ratios_per_question must be 1 or more, got {self.ratios_per_question}")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance must be from 0 to below 1, got {self.tolerance}")
        check_difficulty(self.difficulty)
        check_share("short_share", self.short_share)
        object.__setattr__(self, "ratios", tuple(sorted(set(map(float, self.ratios)), reverse=True)))

    def choose(self, reached: list[Cut], how_hard: float | None, rng: random.Random) -> list[Cut]:
        """The cuts of one trace that become rows, of those that reach their ratio."""
        if how_hard is None:
            return rng.sample(reached, min(self.ratios_per_question, len(reached)))
        wanted = wanted_ratio(how_hard, self.ratios)
        return sorted(reached, key=lambda one: abs(one.ratio - wanted))[: self.ratios_per_question]


def make_rows(
    traces: Sequence[dict],
    spans: Sequence[Scores],
    cutting: Cutting,
    tokenizer,
    ratio_format: RatioFormat,
    keep: Keep = dict,
) -> tuple[list[dict], dict]:
    """The rows, and by ratio their number, their mean achieved ratio and how many traces could not be cut to it.

    `keep` says what of a row stays in memory until all are made; its numbers have to.
    Raises `ValueError` for a ratio that no trace can be cut to.
    """
    count, by = counter_of(tokenizer), cutting.difficulty
    rng, rows, missed = random.Random(f"rows/{cutting.seed}"), [], dict.fromkeys(cutting.ratios, 0)
    hard = difficulties(traces, by, count) if by else [None] * len(traces)
    for trace, own, how_hard in zip(traces, spans, hard, strict=True):
        cuts = cut(trace["thinking"], own, cutting.ratios, count, protect=cutting.protect)
        reached = [one for one in cuts if abs(one.achieved - one.ratio) <= cutting.tolerance]
        for one in cuts:
            missed[one.ratio] += one not in reached
        for one in cutting.choose(reached, how_hard, rng):
            row = row_of(trace, one, tokenizer, ratio_format, ask_ratio=cutting.ask_ratio)
            rows.append(keep(row if how_hard is None else {**row, "difficulty": how_hard}))
    for ratio in cutting.ratios:
        if missed[ratio] == len(traces):
            forced = fmean(cut(t["thinking"], s, [1.0], count)[0].forced for t, s in zip(traces, spans, strict=True))
            raise ValueError(
                f"ratios: no trace can be cut to {ratio} within {cutting.tolerance}: numbers, operators and formulas, "
                f"which are never cut, are {forced:.2f} of the tokens; leave that ratio out, or protect nothing "
                "(protect=False, --unprotected)"
            )
    rng.shuffle(rows)
    if cutting.short_share is not None:
        rows = mix(rows, cutting.short_share, rng)
    by_ratio = [{"ratio": ratio, **_about(rows, ratio), "out_of_reach": missed[ratio]} for ratio in cutting.ratios]
    return rows, {"rows": len(rows), "by_ratio": by_ratio}


def counter_of(tokenizer) -> Callable[[str], int]:
    """A function that counts the tokens of a text."""
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def row_of(trace: dict, one: Cut, tokenizer, ratio_format: RatioFormat, *, ask_ratio: bool = True) -> dict:
    """One row, as TRL's prompt and completion, with what it was made from. Asking for ratio 1 is asking for nothing."""
    asked = one.ratio if ask_ratio else 1.0
    return {
        "prompt": ratio_format.prompt_text(trace["question"], asked, tokenizer, trace.get("system")),
        "completion": ratio_format.completion(trace, one.text),
        "question": trace["question"],
        "asked_ratio": asked,
        "ratio": one.ratio,
        "achieved": one.achieved,
        "forced": one.forced,
    }


def _about(rows: Sequence[dict], ratio: float) -> dict:
    own = [row for row in rows if row["ratio"] == ratio]
    about = {"n": len(own), "achieved": fmean(row["achieved"] for row in own) if own else None}
    if own and "difficulty" in own[0]:
        about["difficulty"] = fmean(row["difficulty"] for row in own)
    return about


def features(rows: Sequence[dict], tokenizer) -> Dataset:
    """`input_ids` and `completion_mask`; the completion ends with the end-of-sequence token.

    What a row has `inserted` into its completion (the characters from one place to another) has the mask 0, and so has
    what stands before it. It is tokenised apart from what stands around it, as where a server inserts it into tokens.
    """
    found = []
    for row in rows:
        text = row["completion"]
        start, stop = row.get("inserted") or (0, 0)
        ids, mask = [], []
        parts = ((row["prompt"], 0), (text[:start], 0), (text[start:stop], 0), (text[stop:], 1))
        for part, trained in parts:
            own = tokenizer(part, add_special_tokens=False)["input_ids"] if part else []
            ids += own
            mask += [trained] * len(own)
        found.append({"input_ids": [*ids, tokenizer.eos_token_id], "completion_mask": [*mask, 1]})
    return Dataset.from_list(found)


def to_alpaca(rows: Iterable[dict], ratio_format: RatioFormat) -> Iterator[dict]:
    """Rows in LLaMA-Factory's alpaca format, which joins `instruction` and `input` by a newline."""
    for row in rows:
        yield {
            "instruction": ratio_format.instruction,
            "input": ratio_format.alpaca_input(row["question"], row["asked_ratio"]),
            "output": row["completion"],
        }

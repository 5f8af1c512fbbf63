"""Budgets and efforts: how one is worded, what it asks for, and which rows carry it.

    Wording         the sentence that asks for a length; the only place in rlred that words a budget or an effort
    effort_of       a name (low, medium, high) or a number -> an effort, above 0 and at most 1
    BudgetSampler   draws (mode, budget) pairs from a seeded generator
    ask             question rows -> asked rows: prompt, solution, budget, effort, mode
    check_headroom  the largest budget against the completion cap

What a mode asks for is one value, wherever a pair (mode, budget) is passed: whole tokens in the modes exact and max, an
effort in the mode effort, None in the mode free. A row has it in the column `budget` or in the column `effort`.

Data preparation, training, the hindsight start, evaluation and the report all call `ask` or `Wording.ask`: users of L1
lost the control as soon as the sentence differed by a word (cmu-l3/l1 issue 14).
"""

import json
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from rlred.names import MODES as RENAMED
from rlred.names import refuse

if TYPE_CHECKING:
    from datasets import Dataset

Mode = Literal["exact", "max", "effort", "free"]
MODES: tuple[str, ...] = get_args(Mode)
PLACEHOLDERS = {"exact": "{budget}", "max": "{budget}", "effort": "{effort}", "free": None}  # of a mode's sentence
Amount = int | float | None  # what a mode asks for: tokens, an effort, nothing
# The share of a question's own natural length that a name stands for: the lengths of ThinkDial's three modes
# (2508.18773, "keep 1, .5 and .25 of the chain"). Inkling's .3, .6, .9 and DeepSeek-V4.1's 50, 75, 100 are positions on
# a scale whose tokens they do not publish; these are tokens, so that "low" costs a quarter of "high" by definition.
EFFORTS = {"low": 0.25, "medium": 0.5, "high": 1.0}
DISTRIBUTIONS = ("uniform", "log_uniform", "choices")

_L1_QUESTION = "{question} Let's think step by step and output the final answer within \\boxed{}."


@dataclass(frozen=True)
class Wording:
    r"""The user turn that asks a question, one template per mode.

    `{question}` and `{budget}`, or `{effort}`, are replaced; every other brace (`\boxed{}`) stays as it is. The default
    is L1's (2503.04697) with the word "exactly", as on its project page; the paper and the released checkpoints ask for
    "Think for N tokens.", which is `WORDINGS["l1_released"]`. An effort is written in whole hundredths, as a tokenizer
    reads a whole number best and a chat template can write no other safely; its sentence is ours. `{effort:03}` and
    `{budget:03}` write three digits or more: to a model that reads digit by digit, 10 begins as 100 does, 010 does not.

    Raises `ValueError` for a template without its placeholder, or whose words contradict its mode.

    >>> Wording().ask("What is 2+2?", 64, "max")
    "What is 2+2? Let's think step by step and output the final answer within \\boxed{}. Think for maximum 64 tokens."
    >>> Wording().ask("What is 2+2?", None, "free")
    "What is 2+2? Let's think step by step and output the final answer within \\boxed{}."
    >>> Wording(effort="{question} Effort: {effort} of 100.").ask("What is 2+2?", "low", "effort")
    'What is 2+2? Effort: 25 of 100.'
    >>> Wording(effort="{question} Effort: {effort:03}.").ask("What is 2+2?", 0.1, "effort")
    'What is 2+2? Effort: 010.'
    """

    exact: str = _L1_QUESTION + " Think for exactly {budget} tokens."
    max: str = _L1_QUESTION + " Think for maximum {budget} tokens."
    effort: str = _L1_QUESTION + " Think with effort {effort} of 100."
    free: str = _L1_QUESTION

    def __post_init__(self):
        for mode in MODES:
            template = getattr(self, mode)
            if "{question}" not in template:
                raise ValueError(f"wording.{mode} has no {{question}} placeholder: {template!r}")
            for placeholder in ("{budget}", "{effort}"):
                held = placeholder in template.replace(":03}", "}")
                if held != (placeholder == PLACEHOLDERS[mode]):
                    wanted = "must not contain" if held else "needs"
                    raise ValueError(f"wording.{mode} {wanted} the placeholder {placeholder}: {template!r}")
        if self.exact == self.max:
            raise ValueError(
                "wording.exact and wording.max are the same sentence: the model cannot tell the modes apart"
            )
        # An exact reward under the word "maximum" cost a replication its run (reference: length-control, section 1).
        for mode, contradiction in (
            ("exact", ("maximum", "at most", "no more than")),
            ("max", ("exactly", "precisely")),
        ):
            for word in contradiction:
                if word in getattr(self, mode).lower():
                    raise ValueError(f"wording.{mode} says {word!r}, which asks for the other mode")

    def ask(self, question: str, budget: Amount | str, mode: Mode) -> str:
        """The text of the user turn. Raises `ValueError` when budget and mode do not go together."""
        check_budget(budget, mode)
        text = getattr(self, mode)
        if mode != "free":
            # The budget first: a question that happens to contain "{budget}" keeps its own text.
            value = hundredths(effort_of(budget)) if mode == "effort" else budget
            name = PLACEHOLDERS[mode]
            text = text.replace(name[:-1] + ":03}", f"{value:03}").replace(name, str(value))
        return text.replace("{question}", question)

    def turns(self, row: dict, budget: Amount, mode: Mode) -> list[dict]:
        """The conversation that asks a row, with its own `system` text; `rlred.data.prompts` knows of more."""
        system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
        return [*system, {"role": "user", "content": self.ask(row["question"], budget, mode)}]


WORDINGS = {
    "l1": Wording(),
    "l1_released": Wording(exact=_L1_QUESTION + " Think for {budget} tokens."),
    # Thinking switched on and off in the prompt, in Qwen3's words.
    "think": Wording(free=_L1_QUESTION + " /think"),
    "no_think": Wording(free=_L1_QUESTION + " /no_think"),
    # To see how far the control hangs on L1's sentence: nothing is trained on this one.
    "paraphrase": Wording(
        exact=_L1_QUESTION + " Use {budget} tokens for your thinking, neither more nor fewer.",
        max=_L1_QUESTION + " Your thinking may take up to {budget} tokens.",
        effort=_L1_QUESTION + " Put {effort} percent of your usual work into it.",
    ),
}


def make_wording(spec: "str | dict[str, str] | Wording") -> Wording:
    """A wording from YAML: the name of a preset, or templates (those left out keep L1's text).

    >>> make_wording({"exact": "{question} Use exactly {budget} tokens."}).ask("1+1?", 20, "exact")
    '1+1? Use exactly 20 tokens.'
    """
    if isinstance(spec, Wording):
        return spec
    if isinstance(spec, str):
        if spec not in WORDINGS:
            raise ValueError(f"wording: no preset named {spec!r}; there are {', '.join(WORDINGS)}, or give templates")
        return WORDINGS[spec]
    refuse(spec, RENAMED, "wording: ")
    unknown = set(spec) - set(MODES)
    if unknown:
        raise ValueError(f"wording: unknown mode {sorted(unknown)[0]!r}; templates are named {', '.join(MODES)}")
    for mode, template in spec.items():
        if not isinstance(template, str):
            raise ValueError(f"wording.{mode} must be a text with {{question}}, got {template!r}")
    return Wording(**spec)


def wording_flag(text: str, flag: str = "--wording") -> str | dict[str, str]:
    """What a flag says of a wording: JSON templates, or a preset's name. Raises `ValueError` for JSON that is broken.

    >>> wording_flag("l1"), wording_flag('{"free": "{question}"}')
    ('l1', {'free': '{question}'})
    """
    if not text.lstrip().startswith("{"):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{flag} {text!r} is not JSON: {error}; give a preset's name, or templates as "
            '{"max": "{question} ... {budget} tokens"}'
        ) from None


def effort_of(value: Any, field: str = "effort") -> float:
    """An effort from a name or a number, also as text: above 0, at most 1. Raises `ValueError` for anything else.

    >>> effort_of("low"), effort_of("0.3"), effort_of(1)
    (0.25, 0.3, 1.0)
    """
    told = EFFORTS.get(value.strip().lower(), value) if isinstance(value, str) else value
    try:
        effort = None if isinstance(told, bool) else float(told)
    except (TypeError, ValueError):
        effort = None
    if effort is None or not 0 < effort <= 1:
        raise ValueError(f"{field} must be {', '.join(EFFORTS)}, or a number above 0 and at most 1; got {value!r}")
    return effort


def hundredths(effort: float) -> int:
    """An effort as it is written: whole hundredths, at least one. Chat templates compute the same.

    >>> hundredths(0.25), hundredths(0.125), hundredths(0.001), hundredths(1.0)
    (25, 13, 1, 100)
    """
    return max(1, int(100 * effort + 0.5))


def effort_name(effort: float) -> str:
    """An effort for readers: its number, and its name where it has one.

    >>> effort_name(0.25), effort_name(0.3)
    ('0.25 (low)', '0.3')
    """
    name = next((name for name, value in EFFORTS.items() if value == effort), None)
    return f"{effort:g} ({name})" if name else f"{effort:g}"


def asks_tokens(modes: Iterable[str]) -> bool:
    """Whether any of these modes asks for a number of tokens.

    >>> asks_tokens(["effort", "free"]), asks_tokens(["effort", "max"])
    (False, True)
    """
    return any(PLACEHOLDERS[mode] == "{budget}" for mode in modes)


def check_budget(budget: Amount | str, mode: Mode) -> None:
    """Raises `ValueError` unless `budget` is what `mode` asks for: tokens, an effort, or None in the mode free."""
    refuse([mode], RENAMED, "mode: ")
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if mode == "free":
        if budget is not None:
            raise ValueError(f"budget must be None where mode is 'free', got {budget!r}")
    elif mode == "effort":
        effort_of(budget)
    elif isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
        raise ValueError(f"budget must be a whole number of tokens, 1 or more, where mode is {mode!r}; got {budget!r}")


@dataclass(frozen=True)
class BudgetSampler:
    """Draws (mode, budget) pairs.

    `uniform` draws whole numbers in [low, high]; `log_uniform` draws exp(U(log low, log high)), rounded, so that each
    doubling is as likely as the next; `choices` draws from a list. `modes` are weights and need not sum to one. In the
    mode effort it draws whole hundredths in [effort_low, 1], or from `efforts`, names or numbers.

    Raises `ValueError` for an empty range, an unknown distribution or mode, or weights that cannot be drawn from.

    >>> sampler = BudgetSampler(low=16, high=80, modes={"exact": 1, "max": 1})
    >>> [sampler.draw(random.Random(seed)) for seed in range(3)]
    [('max', 69), ('exact', 24), ('max', 23)]
    """

    low: int = 16
    high: int = 80
    distribution: str = "uniform"
    choices: tuple[int, ...] = ()
    modes: dict[str, float] = field(default_factory=lambda: {"exact": 1.0})
    efforts: tuple[float, ...] = ()
    effort_low: float = 0.1

    def __post_init__(self):
        object.__setattr__(self, "efforts", tuple(effort_of(effort, "efforts") for effort in self.efforts))
        effort_of(self.effort_low, "effort_low")
        if self.distribution not in DISTRIBUTIONS:
            raise ValueError(
                f"budget_distribution must be one of {', '.join(DISTRIBUTIONS)}, got {self.distribution!r}"
            )
        if self.distribution == "choices":
            if not self.choices:
                raise ValueError("budget_choices is empty, but budget_distribution is 'choices'")
            for budget in self.choices:
                check_budget(budget, "exact")
        else:
            check_budget(self.low, "exact")
            check_budget(self.high, "exact")
            if self.low >= self.high:
                raise ValueError(f"budget_low must be below budget_high, got {self.low} and {self.high}")
        refuse(self.modes, RENAMED, "modes: ")
        for mode, weight in self.modes.items():
            if mode not in MODES:
                raise ValueError(f"modes: must be among {', '.join(MODES)}, got {mode!r}")
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                raise ValueError(f"modes: the weight of {mode!r} must be a number, 0 or more, got {weight!r}")
        if not any(self.modes.values()):
            raise ValueError(f"modes: at least one needs a weight above 0, got {self.modes!r}")

    @property
    def bounds(self) -> tuple[int, int]:
        """The smallest and the largest budget that can be drawn."""
        if self.distribution == "choices":
            return min(self.choices), max(self.choices)
        return self.low, self.high

    def within(self, low: int, high: int) -> "BudgetSampler":
        """The same, of budgets from `low` to `high` alone. Raises `ValueError` where none is left.

        >>> BudgetSampler(16, 80).within(24, 200).bounds
        (24, 80)
        """
        choices = tuple(budget for budget in self.choices if low <= budget <= high)
        if self.choices and not choices:
            raise ValueError(f"budget_choices: none of {list(self.choices)} lies from {low} to {high}")
        return replace(self, low=max(self.low, low), high=min(self.high, high), choices=choices)

    def grid(self, n: int = 6) -> list[int]:
        """`n` budgets that cover the range for an evaluation sweep, evenly spaced (in log space for `log_uniform`).

        >>> BudgetSampler(low=16, high=80).grid(5)
        [16, 32, 48, 64, 80]
        """
        if self.distribution == "choices":
            return sorted(set(self.choices))
        low, high = self.bounds
        steps = [i / (n - 1) for i in range(n)]
        if self.distribution == "log_uniform":
            return sorted({round(low * (high / low) ** step) for step in steps})
        return sorted({round(low + (high - low) * step) for step in steps})

    def effort_grid(self, n: int = 10) -> list[float]:
        """The efforts to choose from, or else `n` of them, evenly spaced over the range and in whole hundredths.

        >>> BudgetSampler().effort_grid(4), BudgetSampler(efforts=("high", "low")).effort_grid()
        ([0.1, 0.4, 0.7, 1.0], [0.25, 1.0])
        """
        if self.efforts:
            return sorted(set(self.efforts))
        low = hundredths(self.effort_low)
        return sorted({round(low + (100 - low) * i / (n - 1)) / 100 for i in range(n)})

    def draw(self, rng: random.Random) -> tuple[str, Amount]:
        """One (mode, budget) pair; what the mode asks for, which is None for mode `free`."""
        mode = rng.choices(list(self.modes), weights=list(self.modes.values()))[0]
        if mode == "effort":
            return mode, rng.choice(self.efforts) if self.efforts else rng.randint(
                hundredths(self.effort_low), 100
            ) / 100
        return mode, None if mode == "free" else self.budget(rng)

    def budget(self, rng: random.Random, least: int = 1) -> int | None:
        """A budget of at least so many tokens; None where there is none.

        >>> BudgetSampler(low=16, high=80).budget(random.Random(0), least=80)
        80
        """
        if self.distribution == "choices":
            fitting = [budget for budget in self.choices if budget >= least]
            return rng.choice(fitting) if fitting else None
        low = max(self.low, least)
        if low > self.high:
            return None
        if self.distribution == "log_uniform":
            return round(math.exp(rng.uniform(math.log(low), math.log(self.high))))
        return rng.randint(low, self.high)


def ask(questions: Iterable[dict], prompts, asked: Iterable[tuple[str, Amount]]) -> Iterator[dict]:
    """Question rows and (mode, budget) pairs, zipped to asked rows; every other column is carried along.

    `prompts` are `rlred.data.prompts.Prompts`, fitted to the tokenizer, or a `Wording` alone.
    """
    for row, (mode, budget) in zip(questions, asked, strict=True):
        yield {**row, "prompt": prompts.turns(row, budget, mode), **labels(mode, budget)}


def labels(mode: str, budget: Amount) -> dict:
    """The columns that say what a row was asked for.

    >>> labels("max", 32), labels("effort", 0.5)
    ({'budget': 32, 'effort': None, 'mode': 'max'}, {'budget': None, 'effort': 0.5, 'mode': 'effort'})
    """
    effort = mode == "effort"
    return {"budget": None if effort else budget, "effort": effort_of(budget) if effort else None, "mode": mode}


def training_rows(
    questions: "Dataset",
    prompts,
    sampler: BudgetSampler,
    *,
    num_rows: int,
    budgets_per_question: int = 1,
    seed: int = 0,
) -> "Dataset":
    """Asked rows for a whole training run, in the order in which they are to be trained on.

    Questions are shuffled anew each epoch and every visit draws fresh budgets; the `budgets_per_question` rows of one
    visit are neighbours, so that one rollout batch compares the same question at several budgets. The rows are a pure
    function of the arguments: a resumed run, or another process, sees the same budgets for the same rows. Train on
    them with `shuffle_dataset=False`. `prompts` are those of `ask`. A row is made when it is read
    (`list(rows)`, not `rows.to_list()`, which shows the table of numbers behind it; add columns to the questions).

    Raises `ValueError` for no questions or counts below 1.
    """
    for name, value in (("num_rows", num_rows), ("budgets_per_question", budgets_per_question)):
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, got {value}")
    if len(questions) == 0:
        raise ValueError("there are no questions to ask")
    from rlred.data.asked import Schedule, asked_dataset  # here: commands whose flags name the modes wait for neither

    schedule = Schedule(sampler, len(questions), num_rows, budgets_per_question, seed)
    return asked_dataset(questions, prompts, schedule)


def check_headroom(largest_budget: int, max_completion_length: int, minimum: float = 1.1) -> None:
    """Raises `ValueError` unless the completion cap leaves room to see a model run over its largest budget.

    A completion cut at the cap cannot be longer than the cap: with cap = budget the over-budget rate is zero by
    construction and a maximum reward has nothing to learn from. L1 left 96 tokens over 4000 (2 %).
    """
    needed = math.ceil(minimum * largest_budget)
    if max_completion_length < needed:
        raise ValueError(
            f"max_completion_length={max_completion_length} leaves no headroom over the largest budget "
            f"({largest_budget}); set it to {needed} or more, or lower the budgets"
        )

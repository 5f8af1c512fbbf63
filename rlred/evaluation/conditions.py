"""What a question is asked for: a sweep asks every question under every condition, and a table has a line for each.

    Condition           what a sweep asks of one
    BudgetCondition     a budget or an effort in a mode, or nothing (`free`)
    budget_conditions   the conditions of a table of modes, budgets and efforts

A ratio is another one (rlred/compression/rows.py). A condition is a frozen value: it makes the prompt of a row and
says which labels the outcome carries; it knows nothing of models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rlred.data.budgets import Amount, Wording, labels
from rlred.data.markers import Markers
from rlred.data.prompts import Prompt, Prompts, as_prompts
from rlred.evaluation.per_prompt_cap import limit_of


class Condition(Protocol):
    """What a question is asked for."""

    @property
    def end_of_thinking(self) -> str | None:
        """The text that ends the thinking; None where nobody said."""

    @property
    def markers(self) -> Markers | None:
        """The markers that are no part of what a completion says (rlred/data/markers.py)."""

    @property
    def limit(self) -> int | None:
        """Tokens at which a completion may be ended early; None for the cap that all share."""

    def prompt(self, row: dict, tokenizer) -> Prompt:
        """The prompt that asks a question row."""

    def labels(self) -> dict:
        """What its outcomes are grouped by: `mode`, `budget`, and `effort` or `ratio` where that was asked for."""


@dataclass(frozen=True)
class BudgetCondition:
    """What a mode asks for: a budget, or an effort in the mode effort; without one, the question alone.

    `worded` is the budget that the prompt names, where it is another than the one that the outcome is held against:
    the control that has learned a length, but not to listen. `limit` ends a completion early
    (rlred/evaluation/per_prompt_cap.py).

    >>> BudgetCondition(Prompts(), "max", 32).labels()
    {'mode': 'max', 'budget': 32}
    >>> BudgetCondition(Prompts(), "effort", 0.5).labels()
    {'mode': 'effort', 'budget': None, 'effort': 0.5}
    """

    prompts: Prompts
    mode: str = "free"
    budget: Amount = None
    worded: Amount = None
    limit: int | None = None

    @property
    def end_of_thinking(self) -> str | None:
        return self.prompts.end_of_thinking

    @property
    def markers(self) -> Markers | None:
        return self.prompts.markers

    def prompt(self, row: dict, tokenizer) -> Prompt:
        budget = self.budget if self.worded is None else self.worded
        return self.prompts.asked(self.prompts.turns(row, budget, self.mode))

    def labels(self) -> dict:
        told = labels(self.mode, self.budget)
        return {name: told[name] for name in ("mode", "budget", *(("effort",) if self.mode == "effort" else ()))}


def budget_conditions(
    prompts: Prompts | Wording,
    budgets: Sequence[int] = (),
    modes: Sequence[str] = ("exact",),
    *,
    efforts: Sequence[float] = (),
    constant_budget: int | None = None,
    constant_effort: float | None = None,
    per_prompt_cap: float | None = None,
) -> list[BudgetCondition]:
    """Every mode at every budget, the mode `effort` at every effort; the mode `free` has none and comes once.

    `prompts` say how a question is asked, fitted to the tokenizer; a `Wording` alone asks without system prompt and
    template settings. With `constant_budget` or `constant_effort`, every prompt asks for that one. With
    `per_prompt_cap`, rows that ask for a maximum end at that many times it.

    >>> [(one.mode, one.budget) for one in budget_conditions(Wording(), [16, 32], ["max", "free"])]
    [('max', 16), ('max', 32), ('free', None)]
    """
    prompts = as_prompts(prompts)
    amounts, constants = {"free": [None], "effort": efforts}, {"free": None, "effort": constant_effort}
    return [
        BudgetCondition(
            prompts,
            mode,
            budget,
            worded=constants.get(mode, constant_budget),
            limit=limit_of(mode, budget, per_prompt_cap),
        )
        for mode in modes
        for budget in amounts.get(mode, budgets)
    ]


def free(prompts: Prompts | Wording) -> list[BudgetCondition]:
    """The one condition that asks for nothing."""
    return budget_conditions(prompts, modes=["free"])

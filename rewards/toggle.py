"""Toggle (Kimi K2.5): a budget of the question's own that comes and goes by phases, and waits for accuracy."""

from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from .base import Reward
from .correctness import Correctness
from .groups import check_group_size, groups_of
from .length import Length


@dataclass(frozen=True)
class Toggle(Reward):
    r"""Correctness, in every other phase only within a budget that the question's own correct answers set.

    At optimiser step t, for a group of mean correctness p and a completion of n tokens,

        r = c * [p < accuracy or n <= budget]    where floor(t / every) is even
        r = c                                    where it is odd

    `budget` is the `quantile` of the lengths of the reference model's correct answers to the question, taken once: the
    column `reference_correct_lengths`, which `rlred reference` (or the run itself) makes. A question that the reference
    never answered correctly has no budget. The odd phases keep a model from unlearning to use more tokens where it may.

    Range: [0, 1]. A row whose solution cannot be parsed is None. Raises `ValueError` for an accuracy or quantile
    outside [0, 1], `every` below 1, groups of one, and rows without the column.

    Source: Kimi K2.5 (2602.02276), section 4.4.2, second-hand: the rule is from notes on the report, which show neither
    the threshold, the percentile nor the length of a phase. The defaults are ours.

    >>> reward = Toggle(quantile=1.0)
    >>> rows = {"solution": ["4"] * 2, "reference_correct_lengths": [[12, 20]] * 2}
    >>> reward(["q"] * 2, ["\\boxed{4}"] * 2, [[0] * 20, [0] * 21], **rows)
    [1.0, 0.0]
    """

    accuracy: float = 0.5
    quantile: float = 0.75
    every: int = 20
    group_size: int | None = None
    correctness: Correctness = field(default_factory=Correctness)
    length: Length = field(default_factory=Length)

    __name__ = "toggle"
    needs = ("solution", "reference_correct_lengths")
    group_relative = True

    def __post_init__(self):
        super().__post_init__()
        for name in ("accuracy", "quantile"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"toggle.{name} must be between 0 and 1, got {getattr(self, name)!r}")
        if self.every < 1:
            raise ValueError(f"toggle.every must be 1 or more, got {self.every!r}")
        check_group_size("toggle", self.group_size)

    def is_budgeted(self, step: int) -> bool:
        """Whether the budget holds at an optimiser step.

        >>> [Toggle(every=2).is_budgeted(step) for step in range(5)]
        [True, True, False, False, True]
        """
        return step // self.every % 2 == 0

    def __call__(
        self,
        prompts,
        completions,
        completion_ids,
        solution,
        reference_correct_lengths=None,
        trainer_state=None,
        **kwargs,
    ) -> list[float | None]:
        if reference_correct_lengths is None or any(lengths is None for lengths in reference_correct_lengths):
            raise ValueError(
                "toggle needs the column 'reference_correct_lengths' in every row; `rlred reference` makes it"
            )
        grades = self.correctness(completions, solution=solution)
        rewards, budgeted = list(grades), self.is_budgeted(getattr(trainer_state, "global_step", 0))
        for group in groups_of(prompts, self.group_size):
            known = [grades[index] for index in group if grades[index] is not None]
            lengths = reference_correct_lengths[group[0]]
            if not budgeted or not known or fmean(known) < self.accuracy or not len(lengths):
                continue
            budget = float(np.quantile(lengths, self.quantile))
            for index in group:
                if grades[index] and self.length(completion_ids[index]) > budget:
                    rewards[index] = 0.0
        return rewards

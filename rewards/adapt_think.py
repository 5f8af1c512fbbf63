"""AdaptThink: correctness less the reference's, and a little more for an answer without thinking."""

from dataclasses import dataclass, field

from .base import Reward
from .correctness import Correctness, text_of
from .exact_length import check_non_negative


def skips_thinking(text: str, end_of_thinking: str | None = "</think>") -> bool:
    r"""Whether a completion ends its thinking before it has thought anything; False for a model that has no such end.

    >>> skips_thinking("</think>\\boxed{7}"), skips_thinking("<think>\n\n</think>7"), skips_thinking("3+4=7</think>7")
    (True, True, False)
    """
    if not end_of_thinking:
        return False
    thinking, end, _ = text.partition(end_of_thinking)
    return bool(end) and not thinking.strip().removeprefix(end_of_thinking.replace("/", "", 1)).strip()


@dataclass(frozen=True)
class AdaptThink(Reward):
    r"""Correctness less the reference model's on the question, plus `delta` for every answer without thinking.

    r = c - A_ref + delta * [no thinking], with A_ref the column `reference_accuracy`, which `rlred reference` makes.
    An answer without thinking wins where its accuracy is within `delta` of the thinking one's. It gets `delta` even
    where it is incorrect. The paper takes r itself as the advantage: `think_or_not: {baseline: reward}`.

    Range: [-1, 1 + delta]. A row whose solution cannot be parsed is None. Raises `ValueError` for a negative delta and
    for rows without the column.

    Source: AdaptThink (2505.13417); delta 0.05 in paper and released code.

    >>> rows = {"solution": ["4"] * 2, "reference_accuracy": [0.5] * 2}
    >>> AdaptThink(delta=0.25)(["</think>\\boxed{4}", "2+2</think>\\boxed{4}"], **rows)
    [0.75, 0.5]
    """

    delta: float = 0.05
    correctness: Correctness = field(default_factory=Correctness)

    __name__ = "adapt_think"
    needs = ("solution", "reference_accuracy")

    def __post_init__(self):
        super().__post_init__()
        check_non_negative("adapt_think.delta", self.delta)

    def __call__(self, completions, solution, reference_accuracy=None, **kwargs) -> list[float | None]:
        if reference_accuracy is None or any(value is None for value in reference_accuracy):
            raise ValueError(
                "adapt_think needs the column 'reference_accuracy' in every row; `rlred reference` makes it"
            )
        rewards = []
        grades = self.correctness(completions, solution=solution)
        for grade, text, reference in zip(grades, completions, reference_accuracy, strict=True):
            skipped = skips_thinking(text_of(text), self.correctness.end_of_thinking)
            rewards.append(None if grade is None else grade - reference + self.delta * skipped)
        return rewards

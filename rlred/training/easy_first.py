"""Easy questions first: a run begins on what the base answers most of the time, and goes on with all questions.

Length rewards learn where there is something to compare: of a question that is never answered correctly, a group has no
correct length. 2602.20945 trains on prompts of a pass rate above one half, and sees hard ones alone collapse
(second-hand, from notes on the paper); the order of the two is ours.
"""

import logging
from dataclasses import dataclass

from datasets import Dataset

from rlred.training.trainer import Part

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EasyFirst(Part):
    """For the first `share` of a run's rows, questions with a `reference_accuracy` above `above` alone.

    `rlred reference` makes that column, or the run itself, with `reference_samples` completions of each question. With
    a share of 1 the others are never trained on. Raises `ValueError` for a value out of range, and where no question is
    that easy.

    >>> easy = EasyFirst(above=0.5, share=0.25)
    >>> rows = Dataset.from_list([{"question": name, "reference_accuracy": p} for name, p in (("a", 0.9), ("b", 0.5))])
    >>> [(len(questions), share) for questions, share in easy.phases(rows)]
    [(1, 0.25), (2, 0.75)]
    """

    above: float = 0.5
    """Pass rate above which a question is easy."""
    share: float = 0.5
    """Share of the run's rows that are easy questions alone, at its beginning."""

    needs = ("reference_accuracy",)

    def __post_init__(self):
        if not 0 <= self.above < 1:
            raise ValueError(f"easy_first.above must be 0 or more and below 1, got {self.above!r}")
        if not 0 < self.share <= 1:
            raise ValueError(f"easy_first.share must be above 0 and at most 1, got {self.share!r}")

    def phases(self, questions: Dataset) -> list[tuple[Dataset, float]]:
        rates = questions["reference_accuracy"]
        lacking = sum(not isinstance(rate, int | float) for rate in rates)
        if lacking:
            raise ValueError(
                f"easy_first: {lacking} of {len(rates)} questions have no number in reference_accuracy; "
                "`rlred reference` makes it for all"
            )
        easy = [number for number, rate in enumerate(rates) if rate > self.above]
        if not easy:
            raise ValueError(
                f"easy_first.above={self.above}: none of {len(rates)} questions has a higher pass rate, the highest is "
                f"{max(rates):.2f}; lower it"
            )
        logger.info("easy_first: %d of %d questions, for %g of the rows", len(easy), len(rates), self.share)
        return [(questions.select(easy), self.share), (questions, 1 - self.share)]

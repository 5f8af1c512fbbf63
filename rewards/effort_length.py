"""Effort: full reward within a share of the question's own length, the share being the effort that was asked for."""

from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from .base import Reward
from .correctness import Correctness
from .exact_length import check_non_negative
from .groups import groups_of
from .length import Length, first_length


def natural_length(lengths, quantile: float | None) -> float | None:
    """A question's own length, from the tokens of its correct answers: their `quantile`, or their mean without one.

    None where there is no correct answer.

    >>> natural_length([10, 20, 60], 0.5), natural_length([10, 20, 60], None), natural_length([], 0.5)
    (20.0, 30.0, None)
    """
    if not len(lengths):
        return None
    return float(fmean(lengths) if quantile is None else np.quantile(lengths, quantile))


@dataclass(frozen=True)
class EffortLength(Reward):
    r"""Correctness within a share of the question's own length, `over` beyond it.

    With c 0 or 1, n the completion's tokens, e the row's effort in (0, 1] and T the question's own length,

        r = over + (c - over) * s        s = 1[n <= e * T]                               without alpha
                                         s = clip(alpha * (1 - n / (e * T)) + delta, 0, 1)   with alpha

    so that `over=0` without alpha is e1's rule, c * 1[n <= e * T]. T is, for `of="reference"`, the `quantile` of the
    lengths of the reference model's correct answers (None: their mean), from the column `reference_correct_lengths`,
    which `rlred reference` or the run itself makes; a question that the reference never answered correctly has no T.
    For `of="group"` it is the mean length of the question's completions in the batch, of all its efforts: rows of one
    question stand side by side (`budgets_per_question`), and the column `question_id` tells them from the next.

    A row without an effort, or whose question has no T, is scored by correctness alone; a row whose solution cannot be
    parsed is None. Raises `ValueError` for an unknown `of`, a quantile or delta outside [0, 1], an `over` outside
    [-1, 0], a negative alpha, groups of one, and rows without the column.

    Range: [over, 1].

    Source: e1 (2510.27042), `preset: e1`: second-hand, the rule is from the paper's page; its efforts and its running
    mean over training are not shown there, and the mean of a batch stands in for it. Kimi K3's rule (2607.24653,
    section 4.1.2), `preset: kimi_k3`: second-hand from notes on the report, -1 where n > tau_e * b0(question), b0 being
    the cold-start model's; how b0 is estimated and the values of tau_e are not known, and the effort is tau_e here. The
    smooth variant is the ramp of L1-Max (2503.04697, eq 2) with e * T as the budget; quantile 0.75 is ours.

    >>> reward = EffortLength(quantile=1.0)
    >>> rows = {"solution": ["4"] * 3, "effort": [0.5, 0.5, 1.0], "reference_correct_lengths": [[20, 40]] * 3}
    >>> reward(["a", "a", "b"], ["\\boxed{4}"] * 3, [[0] * 20, [0] * 21, [0] * 40], **rows)
    [1.0, 0.0, 1.0]
    """

    of: str = "reference"
    quantile: float | None = 0.75
    over: float = 0.0
    alpha: float | None = None
    delta: float = 0.5
    correctness: Correctness = field(default_factory=Correctness)
    length: Length = field(default_factory=Length)

    __name__ = "effort_length"

    def __post_init__(self):
        super().__post_init__()
        if self.of not in ("reference", "group"):
            raise ValueError(f"effort_length.of must be 'reference' or 'group', got {self.of!r}")
        for name in ("quantile", "delta"):
            value = getattr(self, name)
            if not (value is None and name == "quantile") and not 0 <= value <= 1:
                raise ValueError(f"effort_length.{name} must be between 0 and 1, got {value!r}")
        if not -1 <= self.over <= 0:
            raise ValueError(f"effort_length.over must be between -1 and 0, got {self.over!r}")
        check_non_negative("effort_length.alpha", self.alpha)

    @classmethod
    def preset(cls, name: str) -> "EffortLength":
        """The rule of `e1` (the group's mean, nothing beyond it) or of `kimi_k3` (the reference's, -1 beyond it)."""
        return cls(**{"e1": {"of": "group", "quantile": None}, "kimi_k3": {"quantile": None, "over": -1.0}}[name])

    @property
    def needs(self) -> tuple[str, ...]:
        """The effort, and the reference's lengths where T is of it."""
        return ("solution", "effort", *(("reference_correct_lengths",) if self.of == "reference" else ()))

    @property
    def group_relative(self) -> bool:
        """Whether T is of the question's completions in the batch."""
        return self.of == "group"

    def score(self, correct: float, n: int, effort: float, own: float) -> float:
        """The reward of one completion of `n` tokens to a question whose own length is `own` tokens."""
        limit = effort * own
        if self.alpha is None:
            inside = float(n <= limit + 1e-9)  # 0.7 * 10 is 6.999...
        else:
            inside = min(max(self.alpha * (1 - n / max(limit, 1e-9)) + self.delta, 0.0), 1.0)
        return self.over + (correct - self.over) * inside

    def decided_after(self, row: dict) -> int | None:
        """The tokens after which a completion of this row earns `over` whatever follows.

        None where more tokens can still matter: without an effort or a known T, where only the thinking is counted (it
        may have ended long ago), and for a solution that cannot be parsed, where the reward is None.

        >>> row = {"solution": "4", "effort": 0.5, "reference_correct_lengths": [40]}
        >>> EffortLength().decided_after(row), EffortLength(alpha=2.0).decided_after(row)
        (21, 25)
        """
        effort = row.get("effort")
        own = None if self.group_relative else natural_length(row.get("reference_correct_lengths") or [], self.quantile)
        if effort is None or own is None or self.alpha == 0 or self.length.count != "completion":
            return None
        if not self.correctness.reads(row["solution"]):
            return None
        window = 0.0 if self.alpha is None else self.delta / self.alpha
        return first_length(
            lambda n: n > effort * own + 1e-9 and self.score(1.0, n, effort, own) == self.over,
            effort * own * (1 + window),
        )

    def __call__(
        self,
        prompts,
        completions,
        completion_ids,
        solution,
        effort,
        reference_correct_lengths=None,
        question_id=None,
        **kwargs,
    ) -> list[float | None]:
        grades = self.correctness(completions, solution=solution)
        lengths = [self.length(ids) for ids in completion_ids]
        if self.group_relative:
            owns = self._of_groups(prompts if question_id is None else question_id, lengths)
        elif reference_correct_lengths is None or any(one is None for one in reference_correct_lengths):
            raise ValueError(
                "effort_length needs the column 'reference_correct_lengths' in every row; `rlred reference` makes it"
            )
        else:
            owns = [natural_length(own, self.quantile) for own in reference_correct_lengths]
        return [
            grade if grade is None or asked is None or own is None else self.score(grade, n, asked, own)
            for grade, n, asked, own in zip(grades, lengths, effort, owns, strict=True)
        ]

    @staticmethod
    def _of_groups(questions, lengths: list[int]) -> list[float]:
        """The mean length of each completion's question."""
        owns = [0.0] * len(lengths)
        for group in groups_of(questions):
            mean = fmean([lengths[index] for index in group])
            for index in group:
                owns[index] = mean
        return owns

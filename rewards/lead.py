"""LEAD: correctness and nearness to the question's own length, each relative to the group, weighed by a controller."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, pvariance, stdev

from .base import Reward
from .correctness import Correctness
from .exact_length import check_non_negative
from .groups import check_group_size, groups_of
from .length import Length
from .logged import last_logged

WEIGHT, TARGET = "lead/correctness_weight", "lead/target_weight"  # in the trainer's log


def relative(values: Sequence[float]) -> list[float]:
    """Values less their mean, over their sample std + 1e-6: GRPO's normalisation of one group.

    >>> [round(value, 3) for value in relative([1.0, 0.0])], relative([1.0])
    ([0.707, -0.707], [0.0])
    """
    mean, std = fmean(values), stdev(values) if len(values) > 1 else 0.0
    return [(value - mean) / (std + 1e-6) for value in values]


def spread(groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Mean and std over groups: of the groups' means, with the variance within and between them; 0 where none is.

    >>> spread([[1.0, 0.0], [0.0, 0.0]])[0], round(spread([[1.0, 0.0], [0.0, 0.0]])[1], 4)
    (0.25, 0.433)
    """
    if not groups:
        return 0.0, 0.0
    means = [fmean(group) for group in groups]
    return fmean(means), math.sqrt(fmean([pvariance(group) for group in groups]) + pvariance(means) + 1e-8)


@dataclass(frozen=True)
class Lead(Reward):
    r"""w * z(c) + (1 - w) * z(e), z relative to the group, e = max(-1, 1 - |n - L| / L), w set by a controller.

    L is the mean length of the correct completions of the group, kept within [low, high]; `high` where none is. e
    counts for incorrect answers as well. After every batch the weight of correctness moves towards

        D_c / (D_c + D_e),   D = share of the coefficient of variation * (1 - mean) ** alpha

    by w <- momentum * w + (1 - momentum) * that; the mean of e is brought from [-1, 1] to [0, 1] first, and only
    correct completions count in it. w is `floor` at least. Weight and target are in the trainer's log (`lead/...`),
    which checkpoints keep; a resumed run goes on with its weight. Log every step: of several it sees the average.

    Range: within sqrt(G) of 0 for groups of G; the mean of a group is 0. A row whose solution cannot be parsed is None.
    Raises `ValueError` unless 0 < low <= high, for shares outside [0, 1], a negative alpha, and for groups of one. The
    paper divides by the batch's std as well: `scale_rewards="batch"`.

    Source: LEAD (2605.09806) and its released code: low 1000, high 8000, momentum 0.95, floor 0.3, alpha 1, a first
    weight of 0.5, and the symmetric e of the paper (the code's default is another one). Here a batch is scored with the
    weight of before it, which is the same in every process; the code uses the weight that the batch itself has moved.

    >>> reward = Lead(low=10)
    >>> lengths = [[0] * 10, [0] * 20, [0] * 30]
    >>> values = reward(["q"] * 3, ["\\boxed{4}"] * 3, lengths, solution=["4"] * 3)
    >>> [round(value, 3) for value in values]  # L = 20, e = 0.5, 1, 0.5; all correct, so that z(c) = 0
    [-0.289, 0.577, -0.289]
    """

    low: int = 1000
    high: int = 8000
    alpha: float = 1.0
    momentum: float = 0.95
    floor: float = 0.3
    initial: float = 0.5
    group_size: int | None = None
    correctness: Correctness = field(default_factory=Correctness)
    length: Length = field(default_factory=Length)

    __name__ = "lead"
    needs = ("solution",)
    group_relative = True
    length_factor = "alpha"

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.low <= self.high:
            raise ValueError(f"lead.low must be above 0 and at most lead.high, got {self.low!r} and {self.high!r}")
        check_non_negative("lead.alpha", self.alpha)
        for name in ("momentum", "floor", "initial"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"lead.{name} must be between 0 and 1, got {getattr(self, name)!r}")
        check_group_size("lead", self.group_size)

    def efficiency(self, n: int, target: float) -> float:
        """How near a length is to the target, from 1 down to -1.

        >>> [Lead().efficiency(n, 1000.0) for n in (1000, 500, 1500, 9000)]
        [1.0, 0.5, 0.5, -1.0]
        """
        return max(-1.0, 1 - abs(n - target) / target)

    def weight_at(self, trainer_state) -> float:
        """The weight of correctness before its floor: the last one logged, moved by the target logged with it."""
        logged = last_logged(trainer_state, TARGET)
        if logged is None:
            return self.initial
        entry, steps = logged
        kept = self.momentum**steps
        return kept * entry.get(WEIGHT, self.initial) + (1 - kept) * entry[TARGET]

    def target_weight(self, grades: Sequence[Sequence[float]], efficiencies: Sequence[Sequence[float]]) -> float:
        """D_c / (D_c + D_e): of each group the grades, and of each solved one the efficiencies of what is correct.

        >>> [round(Lead().target_weight(*one), 3) for one in (([[1.0, 0.0]], []), ([[1.0, 1.0]], [[0.5, 1.0]]))]
        [1.0, 0.0]
        """
        (mean_c, std_c), (mean_e, std_e) = spread(grades), spread(efficiencies)
        varied_c, varied_e = std_c / (abs(mean_c) + 1e-8), std_e / (abs(mean_e) + 1e-8)
        share = varied_c / (varied_c + varied_e + 1e-8)
        d_c = share * (1 - min(max(mean_c, 0.0), 1.0)) ** self.alpha
        d_e = varied_e / (varied_c + varied_e + 1e-8) * (1 - (mean_e + 1) / 2) ** self.alpha
        return d_c / (d_c + d_e + 1e-8)

    def __call__(
        self, prompts, completions, completion_ids, solution, trainer_state=None, log_metric=None, **kwargs
    ) -> list[float | None]:
        grades = self.correctness(completions, solution=solution)
        rewards, state = list(grades), self.weight_at(trainer_state)
        weight, graded, efficient = max(state, self.floor), [], []
        for group in groups_of(prompts, self.group_size):
            known = {index: self.length(completion_ids[index]) for index in group if grades[index] is not None}
            if not known:
                continue
            solved = [n for index, n in known.items() if grades[index]]
            target = min(max(fmean(solved), self.low), self.high) if solved else self.high
            own, near = [grades[index] for index in known], [self.efficiency(n, target) for n in known.values()]
            graded.append(own)
            if solved:
                efficient.append([e for e, grade in zip(near, own, strict=True) if grade])
            for index, c, e in zip(known, relative(own), relative(near), strict=True):
                rewards[index] = weight * c + (1 - weight) * e
        if log_metric is not None and graded:
            log_metric(WEIGHT, state)
            log_metric(TARGET, self.target_weight(graded, efficient))
        return rewards

"""Group relative reward rescaling (GR3): the reward is divided by a measure of the length, relative to the group's."""

from dataclasses import dataclass, field
from statistics import fmean

from .base import Reward
from .correctness import Correctness
from .exact_length import check_non_negative
from .groups import check_group_size, groups_of
from .length import Length


@dataclass(frozen=True)
class Gr3(Reward):
    r"""Correctness, divided by 1 + alpha times the length over the group's mean length.

    r = c / (1 + alpha * n / mean(n)), the mean over all completions of the group, correct or not. A product has no
    shortcut: a short incorrect answer gets nothing, whereas an additive penalty lets it win over a long
    one.

    Range: [0, 1]; an answer of the group's mean length has 1 / (1 + alpha). A row whose solution cannot be parsed is
    None. Raises `ValueError` for a negative alpha and for groups of one.

    Source: GR3 (2603.10535), the equation as its readers quote it, second-hand. The paper sets alpha by a calibration
    on advantages that no page shows; 0.33 is the default of an implementation (PR 2169 of prime-rl), second-hand too.

    >>> reward = Gr3(alpha=1.0)
    >>> reward(["q"] * 3, ["\\boxed{4}"] * 2 + ["\\boxed{5}"], [[0] * 10, [0] * 30, [0] * 20], solution=["4"] * 3)
    [0.6666666666666666, 0.4, 0.0]
    """

    alpha: float = 0.33
    group_size: int | None = None
    correctness: Correctness = field(default_factory=Correctness)
    length: Length = field(default_factory=Length)

    __name__ = "gr3"
    needs = ("solution",)
    group_relative = True
    length_factor = "alpha"

    def __post_init__(self):
        super().__post_init__()
        check_non_negative("gr3.alpha", self.alpha)
        check_group_size("gr3", self.group_size)

    def __call__(self, prompts, completions, completion_ids, solution, **kwargs) -> list[float | None]:
        grades = self.correctness(completions, solution=solution)
        rewards = list(grades)
        for group in groups_of(prompts, self.group_size):
            lengths = {index: self.length(completion_ids[index]) for index in group}
            mean = fmean(lengths.values()) or 1.0  # all of them empty
            for index, n in lengths.items():
                if grades[index] is not None:
                    rewards[index] = grades[index] / (1 + self.alpha * n / mean)
        return rewards

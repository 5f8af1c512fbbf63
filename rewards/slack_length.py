"""Slack with an accuracy gate (Short-RL): short correct answers get more, with room, and only while accuracy holds."""

from dataclasses import dataclass, field
from statistics import fmean

from .base import Reward, declared
from .correctness import Correctness
from .exact_length import check_non_negative
from .groups import check_group_size, groups_of
from .length import Length


@dataclass(frozen=True)
class SlackLength(Reward):
    r"""Correctness plus a length reward for correct answers that leaves a slack and closes when accuracy falls.

    For a correct completion, over the lengths of the correct ones of its group: weight * 1/2 where n <= min + slack,
    else weight * (1/2 - (n - min) / (max - min)). Incorrect answers get nothing of it. It is given only in a batch
    whose accuracy is at least the best one logged so far minus `tolerance`. That best is read from the trainer's own
    log (`rewards/correctness/mean`: log what grades here, with weight 0 if need be), which checkpoints keep: a resumed
    run has the same gate. The released code keeps it in a global, and loses it.

    Range: [0, 1 + weight / 2] and down to 1 - weight / 2 for a correct answer. A row whose solution cannot be parsed is
    None. Raises `ValueError` for a negative constant and for groups of one.

    Source: Short-RL (2505.12284) and its released code: slack 100 tokens on mathematics, 200 on logic, tolerance 0.05.

    >>> reward = SlackLength(slack=5)
    >>> lengths = [[0] * 10, [0] * 15, [0] * 30, [0] * 5]
    >>> reward(["q"] * 4, ["\\boxed{4}"] * 3 + ["\\boxed{5}"], lengths, solution=["4"] * 4)
    [1.5, 1.5, 0.5, 0.0]
    """

    slack: int = 100
    weight: float = 1.0
    tolerance: float = 0.05
    group_size: int | None = None
    correctness: Correctness = field(default_factory=Correctness)
    length: Length = field(default_factory=Length)

    __name__ = "slack_length"
    needs = ("solution",)
    group_relative = True
    length_factor = "weight"

    def __post_init__(self):
        super().__post_init__()
        for name in ("slack", "weight", "tolerance"):
            check_non_negative(f"slack_length.{name}", getattr(self, name))
        check_group_size("slack_length", self.group_size)

    def is_open(self, grades: list[float | None], trainer_state) -> bool:
        """Whether the batch is accurate enough for length to count."""
        log = getattr(trainer_state, "log_history", [])
        name = f"rewards/{declared(self.correctness).__name__}/mean"
        best = max((float(entry[name]) for entry in log if entry.get(name) is not None), default=0.0)
        known = [grade for grade in grades if grade is not None]
        return not known or fmean(known) >= best - self.tolerance

    def __call__(
        self, prompts, completions, completion_ids, solution, trainer_state=None, **kwargs
    ) -> list[float | None]:
        grades = self.correctness(completions, solution=solution)
        rewards = list(grades)
        if not self.is_open(grades, trainer_state):
            return rewards
        for group in groups_of(prompts, self.group_size):
            right = {index: self.length(completion_ids[index]) for index in group if grades[index]}
            shortest, longest = min(right.values(), default=0), max(right.values(), default=0)
            for index, n in right.items():
                line = 0.5 if n <= shortest + self.slack else 0.5 - (n - shortest) / (longest - shortest)
                rewards[index] = grades[index] + self.weight * line
        return rewards

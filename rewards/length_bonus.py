"""Length bonus (Laser, Laser-D, Laser-DE): a correct answer within a target length gets more; nothing is taken away."""

from dataclasses import dataclass, field
from statistics import fmean

from .base import Reward
from .correctness import Correctness, boxed_answer, text_of
from .exact_length import check_non_negative
from .groups import check_group_size, groups_of
from .length import Length

LOGGED_TARGETS = ("target_search/easy", "target_search/medium", "target_search/hard")


def repeats(ids: list[int], size: int) -> bool:
    """Whether any run of `size` ids comes twice.

    >>> repeats([1, 2, 3, 1, 2], size=2), repeats([1, 2, 3, 1, 2], size=3)
    (True, False)
    """
    runs = list(zip(*[ids[start:] for start in range(size)], strict=False))
    return len(set(runs)) < len(runs)


@dataclass(frozen=True)
class LengthBonus(Reward):
    r"""1 for a correct answer, `incorrect` or `no_answer` for others; plus `bonus` for a correct one within the target.

    One target is Laser. Three, for easy, medium and hard groups (accuracy at least 2/3, at least 1/3, less), are
    Laser-D. With `explore`, Laser-DE: an incorrect answer *longer* than its target gets the bonus too, if no run of
    `ngram` tokens comes twice in it. Three targets that a search has put into the trainer's log (`target_search/easy`,
    ...), which checkpoints keep, stand in the place of these.

    Range: [no_answer, 1 + bonus]. A row whose solution cannot be parsed is None. Raises `ValueError` for targets below
    1 or neither one nor three of them, a negative bonus, and, with three, for groups of one.

    Source: Laser (2505.15612) and its released code: bonus 0.5, incorrect -0.5, no box -1.

    >>> reward = LengthBonus(targets=(20,))
    >>> reward(["q"] * 3, ["\\boxed{4}"] * 2 + ["\\boxed{5}"], [[0] * 20, [0] * 21, [0] * 9], solution=["4"] * 3)
    [1.5, 1.0, -0.5]
    """

    targets: tuple[int, ...]
    bonus: float = 0.5
    incorrect: float = -0.5
    no_answer: float = -1.0
    explore: bool = False
    ngram: int = 20
    group_size: int | None = None
    correctness: Correctness = field(default_factory=Correctness)
    length: Length = field(default_factory=Length)

    __name__ = "length_bonus"
    needs = ("solution",)
    length_factor = "bonus"

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "targets", tuple(self.targets))
        if len(self.targets) not in (1, 3) or min(self.targets) < 1:
            raise ValueError(
                f"length_bonus.targets must be one length, or three for easy, medium and hard; got {self.targets!r}"
            )
        check_non_negative("length_bonus.bonus", self.bonus)
        if self.ngram < 1:
            raise ValueError(f"length_bonus.ngram must be 1 or more, got {self.ngram!r}")
        check_group_size("length_bonus", self.group_size)

    @property
    def acts_from(self) -> tuple[str, int] | None:
        # Three targets may be searched for before the first step.
        return None if self.group_relative else ("targets", self.targets[0])

    @property
    def group_relative(self) -> bool:
        """Whether a completion's reward depends on its group."""
        return len(self.targets) == 3

    def targets_at(self, trainer_state) -> tuple[int, ...]:
        """The targets that hold: the last ones that a search has logged, which checkpoints keep, or else its own."""
        if self.group_relative:
            for entry in reversed(getattr(trainer_state, "log_history", [])):
                if LOGGED_TARGETS[0] in entry:
                    return tuple(entry[name] for name in LOGGED_TARGETS)
        return self.targets

    def score(self, correct: float, answered: bool, ids: list[int], target: int) -> float:
        """The reward of one completion."""
        n = self.length(ids)
        if correct:
            return 1 + (self.bonus if n <= target else 0.0)
        explored = self.explore and n > target and not repeats(ids, self.ngram)
        return (self.incorrect if answered else self.no_answer) + (self.bonus if explored else 0.0)

    def __call__(
        self, prompts, completions, completion_ids, solution, trainer_state=None, **kwargs
    ) -> list[float | None]:
        targets = self.targets_at(trainer_state)
        grades = self.correctness(completions, solution=solution)
        aims = [targets[0]] * len(grades)
        if self.group_relative:
            for group in groups_of(prompts, self.group_size):
                accuracy = fmean([grades[index] or 0.0 for index in group])
                for index in group:
                    aims[index] = targets[bucket_of(accuracy)]
        answered = [boxed_answer(text_of(text)) is not None for text in completions]
        return [
            grade if grade is None else self.score(grade, box, list(ids), aim)
            for grade, box, ids, aim in zip(grades, answered, completion_ids, aims, strict=True)
        ]


def bucket_of(accuracy: float) -> int:
    """The place of a question's target by the share of its group that is correct: easy, medium, hard.

    >>> bucket_of(4 / 6), bucket_of(0.5), bucket_of(2 / 6), bucket_of(0.3)
    (0, 1, 1, 2)
    """
    return 0 if accuracy >= 2 / 3 else 1 if accuracy >= 1 / 3 else 2

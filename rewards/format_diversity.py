"""Format diversity (ARM's Ada-GRPO): a correct answer in a rare format counts for more, less so as training goes on."""

import math
from collections import Counter
from dataclasses import dataclass, field

from .base import Reward
from .correctness import Correctness, text_of
from .groups import check_group_size, groups_of


@dataclass(frozen=True)
class FormatDiversity(Reward):
    r"""Correctness scaled by how rare the completion's format is in its group.

    r = c * (1 + (G / F - 1) * (1 + cos(pi t / T)) / 2), where G is the size of the group, F how many of it share the
    completion's format, t the optimiser step and T the last one: G / F at first, 1 at the end. It keeps a policy from
    settling on the one format that is correct most often before it has found where the short ones are enough.

    The format of a completion is the first of `markers` that its text contains, or none of them.

    Range: [0, G]. A row whose solution cannot be parsed is None. Raises `ValueError` for no markers and for groups of
    one. Called without `trainer_state`, t is 0.

    Source: ARM (2505.20258), whose formats are `<ANSWER>`, `<COT>`, `<CODE>` and `<LONG_COT>` (the default), after an
    SFT stage that teaches all four.

    >>> reward = FormatDiversity(markers=("check",))
    >>> reward(["q"] * 4, ["check \\boxed{4}", "\\boxed{4}", "\\boxed{4}", "\\boxed{5}"], solution=["4"] * 4)
    [4.0, 1.3333333333333333, 1.3333333333333333, 0.0]
    """

    markers: tuple[str, ...] = ("<ANSWER>", "<COT>", "<CODE>", "<LONG_COT>")
    group_size: int | None = None
    correctness: Correctness = field(default_factory=Correctness)

    __name__ = "format_diversity"
    needs = ("solution",)
    group_relative = True

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "markers", tuple(self.markers))
        if not self.markers or not all(isinstance(marker, str) and marker for marker in self.markers):
            raise ValueError(f"format_diversity.markers must be one text or more, got {self.markers!r}")
        check_group_size("format_diversity", self.group_size)

    def format_of(self, completion) -> str | None:
        """The first marker that a completion contains.

        >>> FormatDiversity().format_of("<COT>3+4=7</COT>"), FormatDiversity().format_of("7")
        ('<COT>', None)
        """
        text = text_of(completion)
        return next((marker for marker in self.markers if marker in text), None)

    def __call__(self, prompts, completions, solution, trainer_state=None, **kwargs) -> list[float | None]:
        step, last = getattr(trainer_state, "global_step", 0), getattr(trainer_state, "max_steps", 0)
        weight = (1 + math.cos(math.pi * step / last)) / 2 if last else 1.0
        formats = [self.format_of(completion) for completion in completions]
        rewards = list(self.correctness(completions, solution=solution))
        for group in groups_of(prompts, self.group_size):
            counts = Counter(formats[index] for index in group)
            for index in group:
                if rewards[index]:
                    rewards[index] *= 1 + (len(group) / counts[formats[index]] - 1) * weight
        return rewards

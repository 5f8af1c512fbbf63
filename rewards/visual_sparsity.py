"""Visual sparsity: a correct answer gets more the fewer visual tokens, and the fewer words, it took."""

from collections import defaultdict
from dataclasses import dataclass, field
from statistics import fmean

from .base import Reward
from .correctness import Correctness
from .exact_length import check_non_negative
from .groups import check_group_size, groups_of
from .length import Length


@dataclass(frozen=True)
class VisualSparsity(Reward):
    r"""Correctness times a bonus for the visual tokens and, with a reference length, the text tokens that were saved.

    r = c * (1 + visual_weight * clip(1 - K/N, 0, 1) + text_weight * clip(1 - T/reference_length, 0, 1)), with c 0 or 1,
    K the visual tokens used (column `visual_tokens`), N those of the full budget (`full_visual_tokens`) and T the
    completion's tokens (column `text_tokens`, where some of them are visual). An incorrect answer is rewarded with
    nothing; a budget above N (low resolution first, then high) gets no bonus and has no penalty.

    `assigned=True` is for budgets that the rollout did not choose (a ladder of keep ratios within a group). There a
    plain bonus penalises a correct answer at the full budget for what it was given. So each reward is centred on the
    mean of its rung, the rollouts of the group with the same K: r - mean(r of the rung).

    Range: [0, 1 + visual_weight + text_weight], or minus to plus that, when assigned. None where the solution cannot be
    parsed. Raises `ValueError` for a negative weight, weights above 0.5 in sum (a third of the answers could go),
    a text weight without a reference length, rows without the two columns, and for assigned rungs of one rollout. Needs
    `scale_rewards="none"`: divided by the group's std, the bonus is as strong in an all-correct group as the answer is
    in a mixed one, and the policy takes the fewest tokens for everything.

    Source: after Sparsity Forcing (2504.18579), which rewards correctness and the share of tokens saved, without
    published weights; product, clips and centring are ours. 0.2 learned in our experiments (docs/LOG.md).

    >>> reward = VisualSparsity(visual_weight=0.2)
    >>> rows = {"solution": ["4"] * 2, "visual_tokens": [16, 4], "full_visual_tokens": [64, 64]}
    >>> reward(["q"] * 2, ["\\boxed{4}", "\\boxed{5}"], [[0] * 20, [0] * 8], **rows)
    [1.15, 0.0]
    """

    visual_weight: float = 0.2
    text_weight: float = 0.0
    reference_length: int | None = None
    assigned: bool = False
    group_size: int | None = None
    correctness: Correctness = field(default_factory=Correctness)
    length: Length = field(default_factory=Length)

    __name__ = "visual_sparsity"
    needs = ("solution", "visual_tokens", "full_visual_tokens")

    def __post_init__(self):
        super().__post_init__()
        check_non_negative("visual_sparsity.visual_weight", self.visual_weight)
        check_non_negative("visual_sparsity.text_weight", self.text_weight)
        check_group_size("visual_sparsity", self.group_size)
        if self.reference_length is not None and self.reference_length < 1:
            raise ValueError(f"visual_sparsity.reference_length must be 1 or more, got {self.reference_length!r}")
        if self.visual_weight + self.text_weight > 0.5:
            raise ValueError(
                "visual_sparsity.visual_weight + text_weight must be at most 0.5, got "
                f"{self.visual_weight + self.text_weight:g}"
            )
        if self.text_weight and self.reference_length is None:
            raise ValueError(
                "visual_sparsity.text_weight needs reference_length, the tokens of a usual answer (1 or more), got "
                f"{self.reference_length!r}"
            )

    @classmethod
    def preset(cls, name: str) -> "VisualSparsity":
        """`chosen` budgets (a gate; the default) or an assigned `ladder`."""
        return cls(assigned={"chosen": False, "ladder": True}[name])

    @property
    def group_relative(self) -> bool:
        """Whether a completion is compared with its group."""
        return self.assigned

    def score(self, correct: float, visual: int, full: int, text: int) -> float:
        """The reward of one completion."""
        saved = min(max(1 - visual / full, 0.0), 1.0)
        brief = max(1 - text / self.reference_length, 0.0) if self.text_weight else 0.0
        return correct * (1 + self.visual_weight * saved + self.text_weight * brief)

    def __call__(
        self,
        prompts,
        completions,
        completion_ids,
        solution,
        visual_tokens=None,
        full_visual_tokens=None,
        text_tokens=None,
        **kwargs,
    ) -> list[float | None]:
        for name, column in (("visual_tokens", visual_tokens), ("full_visual_tokens", full_visual_tokens)):
            if column is None or any(value is None for value in column):
                raise ValueError(f"visual_sparsity needs the column {name!r} in every row; a gate's rollouts bring it")
        text_tokens = text_tokens or [self.length(ids) for ids in completion_ids]
        grades = self.correctness(completions, solution=solution)
        rewards = [
            grade if grade is None else self.score(grade, visual, full, text)
            for grade, visual, full, text in zip(grades, visual_tokens, full_visual_tokens, text_tokens, strict=True)
        ]
        return self._centred(prompts, rewards, visual_tokens) if self.assigned else rewards

    def _centred(self, prompts, rewards, visual_tokens) -> list[float | None]:
        centred = list(rewards)
        for group in groups_of(prompts, self.group_size):
            rungs = defaultdict(list)
            for index in group:
                rungs[visual_tokens[index]].append(index)
            for visual, rung in rungs.items():
                if len(rung) < 2:
                    raise ValueError(
                        f"visual_sparsity.assigned needs 2 rollouts or more of each budget in a group, got 1 at "
                        f"{visual} visual tokens; make num_generations a multiple of twice the rungs"
                    )
                known = [rewards[index] for index in rung if rewards[index] is not None]
                for index in rung:
                    if rewards[index] is not None:
                        centred[index] = rewards[index] - fmean(known)
        return centred

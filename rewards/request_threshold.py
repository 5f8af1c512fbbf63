"""VisionThink's threshold: a small penalty on whichever of "answer now" and "show me more" is done too often."""

from dataclasses import dataclass, field

from .base import Reward
from .correctness import Correctness
from .groups import check_group_size, groups_of


@dataclass(frozen=True)
class RequestThreshold(Reward):
    r"""Correctness minus a penalty on correct answers of the kind that the group should do less of.

    r = c - penalty * c * [direct] where r_G < threshold, and c - penalty * c * [requested] where r_G >= threshold; r_G
    is the share of direct answers (no high resolution asked for) among the correct ones of the group. Where hardly any
    correct answer was direct, those are luck; where some are, a request was a waste. The column `requested` says
    which rollouts asked for the high resolution.

    `lift=False` is the released code: the penalty on requests is never lifted, so that below the threshold both kinds
    are penalised the same. A group whose correct answers all were requests is then penalised as well.

    Range: [0, 1]. A row whose solution cannot be parsed is None. Raises `ValueError` for a penalty outside [0, 1], a
    threshold outside [0, 1], rows without the column, and groups of one.

    Source: VisionThink (2507.13348), section 3.3, penalty 0.1 and threshold 0.2; the released code differs as above.

    >>> reward = RequestThreshold()
    >>> rows = {"solution": ["4"] * 3, "requested": [False, True, True]}
    >>> reward(["q"] * 3, ["\\boxed{4}", "\\boxed{4}", "\\boxed{5}"], **rows)
    [1.0, 0.9, 0.0]
    """

    penalty: float = 0.1
    threshold: float = 0.2
    lift: bool = True
    group_size: int | None = None
    correctness: Correctness = field(default_factory=Correctness)

    __name__ = "request_threshold"
    needs = ("solution", "requested")
    group_relative = True

    def __post_init__(self):
        super().__post_init__()
        check_group_size("request_threshold", self.group_size)
        for name, value in (("penalty", self.penalty), ("threshold", self.threshold)):
            if not 0 <= value <= 1:
                raise ValueError(f"request_threshold.{name} must be between 0 and 1, got {value!r}")

    @classmethod
    def preset(cls, name: str) -> "RequestThreshold":
        """The rule of the `paper`, or of the `released` code."""
        return cls(lift={"paper": True, "released": False}[name])

    def __call__(self, prompts, completions, solution, requested=None, **kwargs) -> list[float | None]:
        if requested is None or any(value is None for value in requested):
            raise ValueError(
                "request_threshold needs the column 'requested' in every row: true where more was asked for"
            )
        grades = self.correctness(completions, solution=solution)
        rewards = list(grades)
        for group in groups_of(prompts, self.group_size):
            right = [index for index in group if grades[index]]
            lucky = sum(not requested[index] for index in right) < self.threshold * len(right)
            for index in right:
                pays = lucky if not requested[index] else not (lucky and self.lift)
                rewards[index] = grades[index] - self.penalty * pays
        return rewards

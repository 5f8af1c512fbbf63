"""Laser-D's own choice of its three target lengths (2505.15612), on questions that are kept apart for it.

Every so many steps the policy answers the monitor questions. They fall into easy, medium and hard by its accuracy, as
the groups of the reward do. A target is the least length of a grid within which one correct answer of a group can be
expected: coverage * correct >= 1, where coverage is the share of the completions in that difficulty which are no
longer, and correct the fewest correct answers that a group of it may have.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

from rlred.evaluation.shares import gathered
from rlred.rewards import LengthBonus
from rlred.rewards.base import declared, find
from rlred.rewards.length_bonus import LOGGED_TARGETS, bucket_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TargetSearch:
    """Settings of the search; the defaults are the paper's. Raises `ValueError` for a value out of range."""

    num_questions: int = 500
    """Training questions that are kept apart and monitored."""
    every: int = 20
    """Optimiser steps between two searches; the first is before the first step."""
    low: int = 2048
    """Least target, tokens."""
    step: int = 1024
    """Tokens between two lengths of the grid, which ends at max_completion_length."""

    def __post_init__(self):
        for name in ("num_questions", "every", "low", "step"):
            if getattr(self, name) < 1:
                raise ValueError(f"target_search.{name} must be 1 or more, got {getattr(self, name)}")

    def check(self, reward, num_questions: int, longest: int) -> None:
        """Raises `ValueError` for a reward without three targets, or where no question or no grid is left.

        `longest` is the run's max_completion_length.
        """
        # The search asks without a budget: the reward in question is the one that scores such rows.
        if not any(len(part.targets) == 3 for part in find(declared(reward).for_mode("free"), LengthBonus)):
            raise ValueError(
                "target_search needs the reward length_bonus with three targets (Laser-D), to begin with, for the rows "
                "of mode free"
            )
        if self.low >= longest:
            raise ValueError(
                f"target_search.low={self.low} is not below max_completion_length={longest}: no length is left to "
                "choose, and every target would be that; lower it"
            )
        if self.num_questions >= num_questions:
            raise ValueError(
                f"target_search.num_questions={self.num_questions}: there are {num_questions} training questions, and "
                "some must be left to train on"
            )


def choose_targets(
    groups: Iterable[tuple[float, Sequence[int]]], grid: Sequence[int], group_size: int, longest: int
) -> tuple[int, int, int]:
    """The targets for easy, medium and hard questions; `longest` where no length of the grid is enough.

    `groups` are each monitor question's accuracy and the lengths of its completions. The fewest correct answers of a
    group of 8 are 5, 2 and 1, rounded down as in the released code. A question is easy from 2/3 on and medium from 1/3
    on, as `length_bonus` has it; the released search takes these two themselves to the harder side.

    >>> groups = [(1.0, [10, 20, 30, 40, 50]), (0.5, [30, 50]), (0.0, [60, 90])]
    >>> choose_targets(groups, grid=range(10, 91, 10), group_size=8, longest=90)
    (10, 30, 90)
    """
    lengths: tuple[list[int], ...] = ([], [], [])
    for accuracy, own in groups:
        lengths[bucket_of(accuracy)].extend(own)
    correct = (group_size * 2 // 3, group_size // 3, 1)
    targets = [
        next((top for top in grid if own and fewest * sum(n <= top for n in own) >= len(own)), longest)
        for own, fewest in zip(lengths, correct, strict=True)
    ]
    return tuple(targets)


class SearchTargets(TrainerCallback):
    """Puts new targets into the training log before the first step and every so many steps.

    `answer` is a function of the model, or of what `engine_of` gives for it, that returns the outcomes of the monitor
    questions. The targets are logged as `target_search/easy`, ..., where `length_bonus` reads them and a resumed run
    finds its own.
    """

    def __init__(
        self, settings: TargetSearch, answer: Callable[..., list[dict]], engine_of: Callable = lambda model: model
    ):
        self.settings, self.answer, self.engine_of = settings, answer, engine_of

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        if not any(LOGGED_TARGETS[0] in entry for entry in state.log_history):
            self.search(args, state, model)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step % self.settings.every == 0 and state.global_step < state.max_steps:
            self.search(args, state, model)

    def search(self, args, state, model) -> None:
        """Asks the policy, on the main process while the others wait, and logs the targets that come of it."""
        process, found, groups = PartialState(), [None], {}
        with gathered(model):
            engine = self.engine_of(model)
            outcomes = self.answer(engine) if process.is_main_process else []
        if process.is_main_process:
            for outcome in outcomes:
                groups.setdefault(outcome["question_id"], []).append(outcome)
            longest = args.max_completion_length
            found = [
                choose_targets(
                    [
                        (fmean(outcome["correct"] or 0.0 for outcome in group), [o["length"] for o in group])
                        for group in groups.values()
                    ],
                    range(self.settings.low, longest + 1, self.settings.step),
                    args.num_generations,
                    longest,
                )
            ]
        if process.num_processes > 1:
            broadcast_object_list(found)
        targets = dict(zip(LOGGED_TARGETS, found[0], strict=True))
        state.log_history.append({"step": state.global_step, **targets})  # kept in the checkpoints
        logger.info("step %d: targets %s", state.global_step, found[0])

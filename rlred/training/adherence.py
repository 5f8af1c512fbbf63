"""How well the rollouts of every training step kept their budgets, in every tracker.

TRL hands each reward `log_metric`: so a reward that logs is all that is needed, and a plain run is TRL's own
GRPOTrainer. It is not a reward of its own with weight 0: a completion of which no reward has an opinion is left out of
its group by TRL, and a second reward that always has one would bring it back as a 0.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from accelerate.utils import gather_object

from rlred.data.markers import Markers
from rlred.data.prompts import decode, hides_marks, marker_errors
from rlred.evaluation.measures import step_metrics
from rlred.rewards import Length
from rlred.rewards.base import Reward, declared


@dataclass(frozen=True)
class LogsAdherence(Reward):
    """A reward whose calls also log `adherence/*`; its values are those of `reward`, unchanged.

    Rows carry `budget` and `mode`, and `effort` where some ask for one; `question_id` lets the rank correlation compare
    one question's budgets with each other. The metrics are those of `rlred.evaluation.measures.step_metrics`, over the
    rollouts of all processes, and `adherence/stopped`, the share of rollouts that ended at their `rollout_limit`
    (rlred/training/early_stop.py). Those count as `max_completion_length` tokens: lengths cut at the budget would look
    like adherence. `ends` are the ids that end a completion.

    With a `tokenizer`, every reward of the run sees the completion's whole text, whose thinking ends at
    `end_of_thinking` (rlred/data/prompts.py: `decode`), without the `markers` of counted thinking; or the `answer_text`
    that a rollout brings, which is what every measure of pictures grades.
    """

    reward: Callable
    max_completion_length: int
    ends: tuple[int, ...]
    tokenizer: Any = None
    end_of_thinking: str | None = None
    length: Length = Length()
    markers: Markers | None = None

    @property
    def __name__(self):
        return declared(self.reward).__name__

    @property
    def needs(self):
        return declared(self.reward).needs

    @property
    def group_relative(self):
        return declared(self.reward).group_relative

    @property
    def grades(self):
        return declared(self.reward).grades

    def parts(self) -> Iterator[Reward]:
        yield from declared(self.reward).parts()

    def decided_after(self, row: dict) -> int | None:
        return declared(self.reward).decided_after(row)

    def __call__(self, completions, completion_ids, log_metric=None, **columns) -> list[float | None]:
        self._restore_thinking(completions, completion_ids, columns.get("answer_text"))
        if log_metric is not None:
            self._log(completion_ids, log_metric, columns)
        return self.reward(completions=completions, completion_ids=completion_ids, log_metric=log_metric, **columns)

    def _restore_thinking(self, completions: list, completion_ids: list[list[int]], answers: list[str] | None) -> None:
        """Writes the completions' own text, thinking and its end included, into what TRL has decoded, in place.

        TRL leaves special tokens out, and `</think>` can be one; or it takes the thinking apart, where the tokenizer
        has a response template. The list is the one that TRL hands to every reward and to the completions table, and
        this reward is the first: all of them see what every measure sees.
        """
        if self.tokenizer is None:
            return
        texts = answers or self._whole_already(completions)
        if texts is None:
            texts = decode(self.tokenizer, completion_ids, self.end_of_thinking, self.markers)
        elif self.markers:
            texts = [self.markers.strip(text, self.end_of_thinking) for text in texts]
        for number, text in enumerate(texts):
            whole = text if isinstance(completions[number], str) else [{"role": "assistant", "content": text}]
            completions[number] = whole

    def _whole_already(self, completions: list) -> list[str] | None:
        """The texts that TRL has decoded, where nothing of them is left out: long completions take seconds to decode.

        None where special tokens mark the thinking, where a response template has taken texts apart, and for
        completions of several turns.
        """
        apart = any(getattr(self.tokenizer, name, None) for name in ("response_template", "response_schema"))
        if apart or hides_marks(self.tokenizer, self.end_of_thinking):
            return None
        texts = []
        for completion in completions:
            turns = [{"content": completion}] if isinstance(completion, str) else completion
            if len(turns) != 1 or set(turns[0]) - {"role", "content"} or not isinstance(turns[0]["content"], str):
                return None
            texts.append(turns[0]["content"])
        return texts

    def _log(self, completion_ids, log_metric, columns: dict) -> None:
        lengths = [self.length(ids) for ids in completion_ids]
        if "rollout_limit" in columns:
            stopped = [
                len(ids) == limit and ids[-1] not in self.ends
                for ids, limit in zip(completion_ids, columns["rollout_limit"], strict=True)
            ]
            lengths = [self.max_completion_length if cut else n for cut, n in zip(stopped, lengths, strict=True)]
            log_metric("adherence/stopped", sum(stopped) / len(stopped))
        names = ("question_id", "mode", "budget", "effort")
        asked = zip(*(columns.get(name) or [None] * len(lengths) for name in names), strict=True)
        owns = columns.get("reference_correct_lengths") or [None] * len(lengths)
        outcomes = [
            {**dict(zip(names, row, strict=True)), "length": n, "own": fmean(own) if own else None}
            for row, n, own in zip(asked, lengths, owns, strict=True)
        ]
        if self.markers and self.tokenizer is not None:
            for one, ids in zip(outcomes, completion_ids, strict=True):
                told = (one["budget"], self.end_of_thinking, self.markers)
                one["marker_errors"] = marker_errors(self.tokenizer, ids, *told)
        # Every process logs the figures of all rollouts, so that TRL's averaging over processes keeps them as they are.
        for name, value in step_metrics(gather_object(outcomes)).items():
            log_metric(name, value)

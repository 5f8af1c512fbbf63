r"""What a length-controlled adapter is held against: cheaper ways to spend N tokens, on the base, same questions.

    brevity      asked to be brief, in words; the same completion for every budget
    truncation   asked freely; what is longer than N is cut there, with the answer given by then, if any
    s1_forcing   asked freely; cut at N and made to answer, and made to go on ("Wait") while shorter (2501.19393)

Each returns outcomes as `sweep` does, held against a budget in `mode`, so that one table holds them all. The base asked
for the budget, and the adapter asked for one constant length, are `sweep` itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from rlred.data.prompts import DEFAULT_END, end_ids
from rlred.evaluation.conditions import BudgetCondition
from rlred.evaluation.sampling import Grading, Sampling
from rlred.evaluation.sweep import complete, outcomes_of, stop_ids
from rlred.rewards.length import find_end


@dataclass(frozen=True)
class Forcing:
    r"""Texts and limits of budget forcing. Raises `ValueError` for a limit below its least value."""

    end: str = DEFAULT_END
    """Ends the thinking; "" for a model that has no such mark."""
    answer: str = "\\boxed{"
    """Opens the answer, after `end`."""
    wait: str = " Wait"
    """Takes the place of an end that comes too early."""
    max_waits: int = 8
    """Most times that a completion is made to go on."""
    answer_tokens: int = 20
    """Tokens for a forced answer, beside those of `end` and `answer`."""

    def __post_init__(self):
        if self.max_waits < 0 or self.answer_tokens < 1:
            raise ValueError(
                f"forcing: max_waits must be 0 or more and answer_tokens 1 or more, got {self.max_waits} and "
                f"{self.answer_tokens}"
            )


class Baselines:
    """The baselines of one model on one set of questions. Free completions are sampled once and shared.

    `conditions` are those that the model itself is asked: the baselines are held against their budgets, in their mode.
    `folder` keeps what is generated.
    """

    def __init__(
        self,
        model,
        tokenizer,
        questions: Sequence[dict],
        conditions: Sequence[BudgetCondition],
        *,
        sampling: Sampling,
        grading: Grading | None = None,
        forcing: Forcing | None = None,
        folder: Path | None = None,
    ):
        self.model, self.tokenizer, self.questions, self.conditions = model, tokenizer, questions, conditions
        self.asker, self.sampling, self.folder, self.numbers = conditions[0].prompts, sampling, folder, count()
        self.grading = (grading or Grading()).fitted(self.asker.end_of_thinking, tokenizer, self.asker.markers)
        self.forcing = forcing or Forcing(end=self.asker.end)
        self.stops = stop_ids(model, tokenizer)
        self.prompts = [self.asker.ids(tokenizer, row, None, "free") for row in questions]
        self.free = self.complete(self.prompts, sampling)

    def complete(self, prompts: list[list[int]], sampling: Sampling) -> list[list[int]]:
        """Completion ids, kept in the folder under the number of the call."""
        path = self.folder and self.folder / f"baselines.{next(self.numbers)}.completions.jsonl"
        return complete(self.model, self.tokenizer, prompts, sampling, path=path, description="measuring: baselines")

    def brevity(self, request: str = " Be concise: use as few words as you can.") -> list[dict]:
        """Asked in words to be brief."""
        prompts = [self.asker.ids(self.tokenizer, row, None, "free", request) for row in self.questions]
        brief = self.complete(prompts, self.sampling)
        return [one for condition in self.conditions for one in self.outcomes(brief, condition)]

    def truncation(self) -> list[dict]:
        """Free completions, cut at the budget."""
        found = []
        for condition in self.conditions:
            found += self.outcomes([ids[: condition.budget] for ids in self.free], condition)
        return found

    def s1_forcing(self) -> list[dict]:
        """Free completions, forced to the budget from both sides."""
        return [one for condition in self.conditions for one in self.outcomes(self.force(condition.budget), condition)]

    def force(self, budget: int) -> list[list[int]]:
        """Completions that think for about `budget` tokens: cut with an answer, or made to go on."""
        ends = end_ids(self.tokenizer, self.forcing.end)
        closing = self._ids(self.forcing.end + self.forcing.answer)
        room = max(1, budget - len(closing) - 3)  # of thinking; three tokens for the answer itself and its end
        completions = list(self.free)
        for attempt in range(self.forcing.max_waits):
            short = {i: self._thinking(ids, ends) for i, ids in enumerate(completions)}
            short = {i: ids + self._ids(self.forcing.wait) for i, ids in short.items() if len(ids) < room}
            if not short:
                break
            prefixes = [self.prompts[i] + ids for i, ids in short.items()]
            more = self.complete(prefixes, self.sampling.at(seed=self.sampling.seed + 1 + attempt))
            for (i, before), ids in zip(short.items(), more, strict=True):
                completions[i] = before + ids
        long = [i for i, ids in enumerate(completions) if len(ids) > budget or ids[-1] not in self.stops]
        cut = {i: self._thinking(completions[i], ends)[:room] + closing for i in long}
        prefixes = [self.prompts[i] + ids for i, ids in cut.items()]
        shorter = self.sampling.at(max_completion_length=self.forcing.answer_tokens)
        answers = self.complete(prefixes, shorter) if prefixes else []
        for (i, before), ids in zip(cut.items(), answers, strict=True):
            completions[i] = before + ids
        return completions

    def outcomes(self, completions: Sequence[list[int]], condition: BudgetCondition) -> list[dict]:
        """One outcome per question."""
        rows = [{**row, **condition.labels()} for row in self.questions]
        return outcomes_of(rows, completions, tokenizer=self.tokenizer, stops=self.stops, grading=self.grading)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _thinking(self, ids: list[int], ends: Sequence[Sequence[int]]) -> list[int]:
        """The tokens before the end of the thinking; where it does not end, all but the end of the sequence."""
        border = find_end(ids, ends)
        if border is None:
            return ids[:-1] if ids and ids[-1] in self.stops else list(ids)
        return ids[: border[0]]

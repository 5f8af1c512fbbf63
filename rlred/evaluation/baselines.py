r"""What a length-controlled adapter is held against: cheaper ways to spend N tokens, on the base, same questions.

    brevity      asked to be brief, in words; the same completion for every budget
    truncation   asked freely; what is longer than N is cut there and has no answer
    s1_forcing   asked freely; cut at N and made to answer, and made to go on ("Wait") while shorter (2501.19393)

Each returns outcomes as `sweep` does, held against a budget in `mode`, so that one table holds them all. The base asked
for the budget, and the adapter asked for one constant length, are `sweep` itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlred.data.budgets import Wording
from rlred.data.prompts import DEFAULT_END, Prompts, as_prompts, end_ids, tell_end
from rlred.evaluation.sweep import outcomes_of, stop_ids
from rlred.rewards import Correctness, Length
from rlred.rewards.length import find_end

Complete = Callable[..., list[list[int]]]
"""`(prompts, max_completion_length, seed) -> completion ids`: a model with its settings, for instance of `complete`."""


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
    """The baselines of one model on one set of questions. Free completions are sampled once and shared."""

    def __init__(
        self,
        complete: Complete,
        model,
        tokenizer,
        questions: Sequence[dict],
        budgets: Sequence[int],
        *,
        prompts: Prompts | Wording,
        correctness: Correctness,
        length: Length,
        max_completion_length: int,
        mode: str = "exact",
        seed: int = 0,
        forcing: Forcing | None = None,
    ):
        self.complete, self.tokenizer, self.questions, self.budgets = complete, tokenizer, questions, sorted(budgets)
        self.settings, self.mode = as_prompts(prompts), mode
        end = self.settings.end_of_thinking
        self.correctness, self.length = (tell_end(part, end, tokenizer) for part in (correctness, length))
        self.max_completion_length, self.seed = max_completion_length, seed
        self.forcing = forcing or Forcing(end=self.settings.end)
        self.stops = stop_ids(model, tokenizer)
        self.prompts = [self.settings.ids(tokenizer, row, None, "none") for row in questions]
        self.free = complete(self.prompts, max_completion_length, seed)

    def brevity(self, request: str = " Be concise: use as few words as you can.") -> list[dict]:
        """Asked in words to be brief."""
        prompts = [self.settings.ids(self.tokenizer, row, None, "none", request) for row in self.questions]
        brief = self.complete(prompts, self.max_completion_length, self.seed)
        return [one for budget in self.budgets for one in self.outcomes(brief, budget)]

    def truncation(self) -> list[dict]:
        """Free completions, cut at the budget."""
        return [one for budget in self.budgets for one in self.outcomes([ids[:budget] for ids in self.free], budget)]

    def s1_forcing(self) -> list[dict]:
        """Free completions, forced to the budget from both sides."""
        return [one for budget in self.budgets for one in self.outcomes(self.force(budget), budget)]

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
            more = self.complete(prefixes, self.max_completion_length, self.seed + 1 + attempt)
            for (i, before), ids in zip(short.items(), more, strict=True):
                completions[i] = before + ids
        long = [i for i, ids in enumerate(completions) if len(ids) > budget or ids[-1] not in self.stops]
        cut = {i: self._thinking(completions[i], ends)[:room] + closing for i in long}
        prefixes = [self.prompts[i] + ids for i, ids in cut.items()]
        answers = self.complete(prefixes, self.forcing.answer_tokens, self.seed) if prefixes else []
        for (i, before), ids in zip(cut.items(), answers, strict=True):
            completions[i] = before + ids
        return completions

    def outcomes(self, completions: Sequence[list[int]], budget: int) -> list[dict]:
        """One outcome per question."""
        rows = [{**row, "mode": self.mode, "budget": budget} for row in self.questions]
        return outcomes_of(
            rows,
            completions,
            tokenizer=self.tokenizer,
            stops=self.stops,
            correctness=self.correctness,
            length=self.length,
        )

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    @staticmethod
    def _thinking(ids: list[int], ends: Sequence[Sequence[int]]) -> list[int]:
        """The tokens before the end of the thinking; all of them where it does not end."""
        border = find_end(ids, ends)
        return list(ids) if border is None else ids[: border[0]]

"""Cost of tokens, input and turns (prime-rl): what an answer has used, relative to the group, times the solve rate."""

from dataclasses import dataclass, field
from statistics import fmean

from .base import Reward
from .correctness import Correctness
from .exact_length import check_non_negative
from .groups import check_group_size, groups_of
from .length import Length


def turns_of(completion) -> int:
    """The messages of the model in a completion; a text is one.

    >>> turns_of("4"), turns_of([{"role": "assistant"}, {"role": "tool"}, {"role": "assistant"}])
    (1, 2)
    """
    if isinstance(completion, str) or not completion:
        return 1
    messages = [completion] if isinstance(completion, dict) else completion
    return sum(isinstance(message, dict) and message.get("role") == "assistant" for message in messages) or 1


def reads_more(completion) -> bool:
    """Whether a completion holds messages that the model has read and not written, such as a tool's.

    >>> reads_more("4"), reads_more([{"role": "assistant"}, {"role": "tool"}])
    (False, True)
    """
    messages = completion if isinstance(completion, list | tuple) else []
    return any(isinstance(message, dict) and message.get("role") != "assistant" for message in messages)


@dataclass(frozen=True)
class TurnCost(Reward):
    r"""Correctness minus the group's solve rate times what the completion has used, each relative to the group's most.

    r = c - p * (output * n / max(n) + input * i / max(i) + turns * t / max(t)), where p is the share of correct
    completions of the group, n the tokens that the model has written, i those that it has read (prompt and tools'
    messages) and t its turns. A question that is never solved costs nothing.

    t is counted from the messages unless there is a column `turns`. i is the column `input_tokens`; without one, and
    without a tool's message, the completions of a group have read the same prompt, and i / max(i) is 1 for all.

    Range: [-(output + input + turns), 1]. A row whose solution cannot be parsed is None. Raises `ValueError` for a
    negative weight, groups of one, and completions with tools' messages but without the column `input_tokens`.

    Source: the linear length penalty of prime-rl (orchestrator/algo/grpo.py, August 2026): 0.25, 0.1, 0.1.

    >>> reward = TurnCost()
    >>> reward(["q"] * 2, ["\\boxed{4}"] * 2, [[0] * 10, [0] * 20], solution=["4"] * 2, input_tokens=[5, 10])
    [0.725, 0.55]
    """

    output: float = 0.25
    input: float = 0.1
    turns: float = 0.1
    group_size: int | None = None
    correctness: Correctness = field(default_factory=Correctness)
    length: Length = field(default_factory=Length)

    __name__ = "turn_cost"
    needs = ("solution",)
    group_relative = True
    length_factor = "output"

    def __post_init__(self):
        super().__post_init__()
        for name in ("output", "input", "turns"):
            check_non_negative(f"turn_cost.{name}", getattr(self, name))
        check_group_size("turn_cost", self.group_size)

    def __call__(
        self, prompts, completions, completion_ids, solution, input_tokens=None, turns=None, **kwargs
    ) -> list[float | None]:
        if input_tokens is None:
            if self.input and any(map(reads_more, completions)):
                raise ValueError(
                    "turn_cost needs the column 'input_tokens' where completions hold tools' messages; or input 0"
                )
            input_tokens = [1] * len(completions)
        turns = list(map(turns_of, completions)) if turns is None else turns
        used = [
            (self.output, [self.length(ids) for ids in completion_ids]),
            (self.input, input_tokens),
            (self.turns, turns),
        ]
        grades = self.correctness(completions, solution=solution)
        rewards = list(grades)
        for group in groups_of(prompts, self.group_size):
            rate = fmean([grades[index] or 0.0 for index in group])
            scales = [(weight, values, max(1, *(values[index] for index in group))) for weight, values in used]
            for index in group:
                if grades[index] is not None:
                    share = sum(weight * values[index] / most for weight, values, most in scales)
                    rewards[index] = grades[index] - rate * share
        return rewards

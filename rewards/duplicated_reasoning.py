"""Duplicated reasoning (NeMo-RL): an answer that only says the thinking over again gets nothing."""

from dataclasses import dataclass, field

from .base import Reward
from .correctness import Correctness, text_of


@dataclass(frozen=True)
class DuplicatedReasoning(Reward):
    r"""Correctness, and 0 where the answer is the thinking, word for word.

    r = c * [thinking != answer], both without the white space around them. The thinking is what stands before the last
    end of thinking (that of `correctness`), without an opening tag of the same name; or the message's own
    `reasoning_content`. Where there is no end, or one of the two is empty, nothing is duplicated.

    Range: {0.0, 1.0}. A row whose solution cannot be parsed is None.

    Source: `penalize_duplicated_reasoning` of NVIDIA's NeMo-RL (nemo_rl/experience/rollouts.py, August 2026), which
    compares the texts of a reasoning item and of the message after it, and sets the reward to 0.

    >>> reward = DuplicatedReasoning()
    >>> reward(["so \\boxed{4} </think> so \\boxed{4}", "2+2 </think> \\boxed{4}"], solution=["4"] * 2)
    [0.0, 1.0]
    """

    correctness: Correctness = field(default_factory=Correctness)

    __name__ = "duplicated_reasoning"
    needs = ("solution",)

    def duplicates(self, completion) -> bool:
        """Whether the answer of a completion is its thinking.

        >>> texts = ("<think> a </think>a", "a </think> b", "aa", "</think>")
        >>> [DuplicatedReasoning().duplicates(text) for text in texts]
        [True, False, False, False]
        """
        thinking, answer = self._halves(completion)
        return bool(thinking) and thinking == answer

    def _halves(self, completion) -> tuple[str, str]:
        text, end = text_of(completion), self.correctness.end_of_thinking
        message = completion[-1] if isinstance(completion, list | tuple) and completion else completion
        apart = message.get("reasoning_content") if isinstance(message, dict) else None
        if isinstance(apart, str) and apart:
            return apart.strip(), text.strip()
        thinking, _, answer = text.rpartition(end) if end else ("", "", text)
        opening = (end or "").replace("/", "", 1)  # <think>, [THINK]
        return thinking.strip().removeprefix(opening).strip(), answer.strip()

    def __call__(self, completions, solution, **kwargs) -> list[float | None]:
        return [
            0.0 if grade and self.duplicates(completion) else grade
            for grade, completion in zip(self.correctness(completions, solution=solution), completions, strict=True)
        ]

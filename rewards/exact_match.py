"""Exact match: 1 for the correct word, 0 for another; the correctness of questions whose answers are words."""

import re
from dataclasses import dataclass

from .base import Grader
from .correctness import boxed_answer, golds_of, text_of

_DROPPED = re.compile(r"\b(a|an|the)\b|[^\w\s%.-]|[.](?!\d)")


def normal(text: str) -> str:
    """Lower case, without articles, punctuation and double spaces, as VQA's evaluation does it.

    >>> normal(" The Red. "), normal("2.5 m")
    ('red', '2.5 m')
    """
    return " ".join(_DROPPED.sub(" ", text.casefold()).split())


@dataclass(frozen=True)
class ExactMatch(Grader):
    r"""1.0 where the answer is the solution but for case, articles and punctuation, else 0.0; None without a solution.

    The answer is what follows the last `answer_mark` (the whole text where that is empty or missing), or the last
    `\boxed{...}` in it. Stands wherever a reward takes a `correctness`.

    Range: {0.0, 1.0} or None.

    Source: the normalisation of VQA (1505.00468), without its table of number words.

    >>> ExactMatch()(["Red.", "\\boxed{the dot}", "red or blue"], solution=["red", ["dot", "spot"], "red"])
    [1.0, 1.0, 0.0]
    """

    answer_mark: str = "</think>"

    __name__ = "exact_match"

    def grade(self, text: str, solution) -> float | None:
        """The grade of one text; of a list of solutions any is correct."""
        answer = text.rpartition(self.answer_mark)[2] if self.answer_mark else text
        boxed = boxed_answer(answer)
        golds = {normal(gold) for gold in golds_of(solution)} - {""}
        return float(normal(answer if boxed is None else boxed) in golds) if golds else None

    @property
    def end_of_thinking(self) -> str:
        """The text after which the answer stands, by the name that `Correctness` has for it."""
        return self.answer_mark

    def reads(self, solution: str) -> bool:
        """Whether there is a solution, so that every completion gets a grade.

        >>> ExactMatch().reads("red"), ExactMatch().reads(" ")
        (True, False)
        """
        return self.grade("", solution) is not None

    def __call__(self, completions, solution, **kwargs) -> list[float | None]:
        return [self.grade(text_of(text), gold) for text, gold in zip(completions, solution, strict=True)]

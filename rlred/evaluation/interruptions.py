r"""Interruptions: the thinking is ended at a share of its natural length, as a server's hard cut does.

    uninterrupted   the completions of a sweep that ended their thinking by themselves
    interrupt       the first tokens of each thinking, its own end of thinking, and what the model writes from there
    measure         a row for every share X: accuracy, leak and panic

T are the tokens of a natural thinking and a those after its end, in the same completion; a(X) those after a cut.

    accuracy(X)   of what is written after a cut behind the first floor(X T) tokens; at X = 1 nothing was cut
    leak(X)       mean of a(X) - a: thinking that goes on in the answer, in tokens
    leak share    sum of a(X) - a over the sum of T - floor(X T): 1 where as much is written as was cut away
    panic(X)      share of completions that were correct uncut, and are incorrect with an answer no longer than before

Leak and panic as words, and accuracy and length after an interruption at X, are those of 2510.11713 (notes on it were
read); the formulas are ours. The curve needs no oracle: at X = 0 it is what the model knows without thinking.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlred.data.prompts import end_ids, prompt_ids
from rlred.evaluation.conditions import BudgetCondition
from rlred.evaluation.efficiency import mean
from rlred.evaluation.measures import by_question, paired_difference, summary
from rlred.evaluation.sampling import Grading, Sampling
from rlred.evaluation.sweep import complete, outcomes_of, stop_ids
from rlred.rewards.length import find_end


@dataclass(frozen=True)
class Uninterrupted:
    """A completion that ended its thinking by itself, and what it answers."""

    prompt: list[int]
    row: dict
    """The question row with the labels of its condition."""
    outcome: dict
    border: tuple[int, int]
    """The end of thinking goes from one place in the completion's ids to the other."""

    @property
    def answer_length(self) -> int:
        """Tokens after the end of thinking."""
        return len(self.outcome["completion_ids"]) - self.border[1]

    def cut(self, fraction: float) -> int:
        """The tokens of thinking before an interruption."""
        return int(fraction * self.border[0] + 1e-9)

    def given(self, fraction: float) -> list[int]:
        """The ids of the completion up to its end of thinking, which comes early."""
        ids = self.outcome["completion_ids"]
        return [*ids[: self.cut(fraction)], *ids[slice(*self.border)]]


class NothingToCut(ValueError):
    """No completion of a model has ended its thinking."""


def uninterrupted(
    tokenizer, questions: Sequence[dict], conditions: Sequence[BudgetCondition], outcomes: Sequence[dict]
) -> list[Uninterrupted]:
    """The outcomes of a sweep over these questions and conditions that ended their thinking, in its order.

    Raises `NothingToCut` where none did.
    """
    ends, found = end_ids(tokenizer, conditions[0].prompts.end), []
    each = len(outcomes) // (len(questions) * len(conditions))
    asked = [(one, row) for one in conditions for row in questions for _ in range(each)]
    for (condition, row), outcome in zip(asked, outcomes, strict=True):
        border = find_end(outcome["completion_ids"], ends)
        if border is not None:
            prompt = prompt_ids(tokenizer, condition.prompt(row, tokenizer))
            found.append(Uninterrupted(prompt, {**row, **condition.labels()}, outcome, border))
    if not found:
        end = conditions[0].prompts.end
        raise NothingToCut(
            f"--interruptions: none of {len(outcomes)} completions ended its thinking with {end!r}; "
            "raise --max_completion_length, or say with --end_of_thinking what ends it"
        )
    return found


def interrupt(
    model,
    tokenizer,
    natural: Sequence[Uninterrupted],
    fractions: Sequence[float],
    *,
    sampling: Sampling,
    grading: Grading,
    path: Path | None = None,
) -> list[dict]:
    """Outcomes of every completion at every share of its thinking, those that were not cut (share 1) last.

    What is written after a cut ends at the cap of the whole completion. `path` keeps it, so an interrupted measurement
    goes on. An outcome has the `answer_length` beside its `fraction`, and what the same completion had and was uncut:
    `natural_answer_length`, `naturally_correct`; `cut_away` are the tokens of thinking that it lost.
    """
    jobs = [(fraction, one) for fraction in sorted(set(fractions)) for one in natural]
    given = [one.given(fraction) for fraction, one in jobs]
    written = complete(
        model,
        tokenizer,
        [one.prompt + own for (_, one), own in zip(jobs, given, strict=True)],
        sampling,
        limits=[max(1, sampling.max_completion_length - len(own)) for own in given],
        path=path,
        description="measuring: interruptions",
    )
    ids = [[*own, *new] for own, new in zip(given, written, strict=True)]
    told = {"tokenizer": tokenizer, "stops": stop_ids(model, tokenizer), "grading": grading}
    outcomes = outcomes_of([one.row for _, one in jobs], ids, **told)
    outcomes += [one.outcome for one in natural]
    jobs += [(1.0, one) for one in natural]
    lengths = [*map(len, written), *(one.answer_length for one in natural)]
    return [
        {
            **outcome,
            "fraction": fraction,
            "answer_length": length,
            "natural_answer_length": one.answer_length,
            "naturally_correct": one.outcome["correct"],
            "cut_away": one.border[0] - one.cut(fraction),
        }
        for outcome, length, (fraction, one) in zip(outcomes, lengths, jobs, strict=True)
    ]


def panicked(outcome: dict) -> float | None:
    """Whether a cut made a completion answer at once, and incorrectly; None where it was not graded.

    >>> known = {"naturally_correct": 1.0, "natural_answer_length": 4}
    >>> [panicked({**known, "correct": c, "answer_length": n}) for c, n in ((0.0, 4), (0.0, 9), (1.0, 4), (None, 4))]
    [1.0, 0.0, 0.0, None]
    """
    if outcome["correct"] is None or outcome["naturally_correct"] is None:
        return None
    lost = outcome["naturally_correct"] == 1.0 and outcome["correct"] != 1.0
    return float(lost and outcome["answer_length"] <= outcome["natural_answer_length"])


def row(outcomes: Sequence[dict]) -> dict:
    """One line of the table: outcomes that share a mode, a budget and a share of the thinking."""
    leaks = [one["answer_length"] - one["natural_answer_length"] for one in outcomes]
    cut_away = sum(one["cut_away"] for one in outcomes)
    return {
        **{name: outcomes[0][name] for name in ("mode", "budget", "effort", "fraction") if name in outcomes[0]},
        **summary(outcomes),
        "mean_answer_length": mean([one["answer_length"] for one in outcomes]),
        "leak": mean(leaks),
        "leak_share": sum(leaks) / cut_away if cut_away else None,
        "panic": mean([panicked(one) for one in outcomes]),
    }


def measure_interruptions(outcomes: Sequence[dict]) -> list[dict]:
    """A row for every mode and share, each with its accuracy less the uncut one's, paired by question.

    >>> same = {"question_id": 0, "mode": "free", "budget": None, "truncated": False, "cut_away": 30}
    >>> same |= {"natural_answer_length": 4, "naturally_correct": 1.0}
    >>> cut = {**same, "fraction": 0.5, "length": 44, "answer_length": 13, "correct": 0.0}
    >>> [line] = measure_interruptions([cut])
    >>> line["leak"], line["leak_share"], line["panic"]
    (9.0, 0.3, 0.0)
    """
    rows = []
    for mode in dict.fromkeys(one["mode"] for one in outcomes):
        own = [one for one in outcomes if one["mode"] == mode]
        uncut = by_question(one for one in own if one["fraction"] == 1)
        for fraction in dict.fromkeys(one["fraction"] for one in own):
            group = [one for one in own if one["fraction"] == fraction]
            pair = paired_difference(uncut, by_question(group)) if fraction < 1 else None
            rows.append({**row(group), "less_than_uncut": pair})
    return rows

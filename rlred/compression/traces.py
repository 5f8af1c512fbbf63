r"""Traces: the target model's own chains of thought that end in the correct answer, thinking and answer apart.

A trace is a row (`question`, `solution`, `thinking`, ...) whose `opening + thinking + separator + answer` is the
completion, character for character. Chains of others are worse than none: TokenSkip's authors saw Llama-3.1-8B fall
from 86 to 73 % on GSM8K's published solutions (reference: cot-compression, 1.5).
"""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rlred.compression.rows import RatioFormat, ratio_conditions
from rlred.data.golds import solution_of
from rlred.data.prompts import DEFAULT_END, tell_end
from rlred.data.question_table import uniform
from rlred.data.questions import asked_in
from rlred.data.table_files import names_of, read_rows
from rlred.evaluation.prediction_files import at, find_columns, layout_of, samples_of
from rlred.evaluation.predictions import grade
from rlred.evaluation.sampling import Grading, Sampling, Share
from rlred.evaluation.sweep import sweep
from rlred.rewards import Correctness

logger = logging.getLogger(__name__)

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


class Parts(NamedTuple):
    """A completion, taken apart; joined, the parts are the completion."""

    opening: str
    thinking: str
    separator: str
    answer: str


def split_completion(text: str, end: str = DEFAULT_END) -> Parts:
    r"""Thinking and answer.

    The thinking ends at the mark `end`, or else before "The final answer is:", or else before the sentence with the
    last `\boxed`. Where there is none of these, all of it is thinking.

    >>> split_completion("<think>\n3+4=7</think>\\boxed{7}")
    Parts(opening='<think>\n', thinking='3+4=7', separator='</think>', answer='\\boxed{7}')
    >>> split_completion("She pays 3+4=7 dollars. So it is $\\boxed{7}$.")
    Parts(opening='', thinking='She pays 3+4=7 dollars.', separator=' ', answer='So it is $\\boxed{7}$.')
    """
    start = re.escape(end.replace("/", "", 1)) if "/" in end else ""
    opening = re.match(rf"(?:\s*{start}\s*)?" if start else "", text).group()
    body = text[len(opening) :]
    for border in filter(None, (end, "The final answer is:")):
        thinking, found, answer = body.partition(border)
        if found:
            kept = thinking.rstrip()
            between, after = thinking[len(kept) :], answer.lstrip()
            if border == end:
                return Parts(opening, kept, between + border + answer[: len(answer) - len(after)], after)
            return Parts(opening, kept, between, border + answer)
    box = body.rfind("\\boxed")
    if box < 0:
        return Parts(opening, body, "", "")
    starts = [match.span() for match in _SENTENCE_END.finditer(body, 0, box)]
    starts += [match.span() for match in re.finditer(r"\s*\n\s*", body[:box])]
    end, start = max(starts, key=lambda span: span[1], default=(0, 0))
    return Parts(opening, body[:end], body[end:start], body[start:])


def sample_traces(
    model,
    tokenizer,
    questions: Sequence[dict],
    ratio_format: RatioFormat,
    *,
    sampling: Sampling,
    correctness: Correctness | None = None,
    path: Path | None = None,
    share: Share | None = None,
) -> tuple[list[dict], dict]:
    """The correct ones of the model's own completions as traces, and how many were dropped and why.

    The prompt is that of ratio 1. `path` keeps all completions, so that an interrupted sampling goes on, and so that
    several processes can each sample a `share` before one reads them all. Raises `ValueError` when no trace is left.
    """
    num_samples = sampling.num_samples
    if num_samples > 1 and sampling.temperature == 0:
        raise ValueError(f"temperature must be above 0 for num_samples={num_samples}: greedy samples are all the same")
    graded, counts, samples = [], Counter(), Counter()
    for part, own, file in sampling.shards(len(questions), path, share):
        block = list(questions[part])
        counts["sampled"] += len(block) * num_samples
        told = {"sampling": own, "grading": Grading(correctness or Correctness()), "path": file}
        conditions = ratio_conditions(ratio_format, [1.0])
        outcomes = sweep(model, tokenizer, block, conditions, **told, description="sampling traces")
        for row, outcome in zip((row for row in block for _ in range(num_samples)), outcomes, strict=True):
            samples[row["question"]] += 1
            if outcome["truncated"]:
                counts["truncated"] += 1
                continue
            asked = {**row, "asked": ratio_format.user_turn(row["question"], 1.0)}
            parts = split_completion(outcome["completion"], ratio_format.prompts.end)
            graded.append((asked, parts, outcome["correct"]))
    return _kept(graded, samples, counts, "the sampled completions")


def load_traces(path: Path, columns: dict[str, str] | None = None, end: str = DEFAULT_END) -> tuple[list[dict], dict]:
    """Traces from a file of questions and completions (names as in rlred/evaluation/predictions.py), correct ones only.

    `end` is the text that ends the thinking, "" for none.
    A line without a gold answer cannot be graded and is dropped. Raises `ValueError` for a file that cannot be read or
    has no such columns, and when no trace is left.
    """
    raw = read_rows(path)
    layout = layout_of(raw)
    known = find_columns(raw, columns or {}, str(path), layout)
    for name in ("question", "completion", "solution"):
        if name not in known:
            raise ValueError(f"{path}: no column is the {name}; there are {', '.join(names_of(raw))}")
    found, counts = [], Counter(sampled=len(raw))
    for line in raw:
        for values in samples_of({name: at(line, column) for name, column in known.items()}):
            solution = solution_of(values["solution"], all_needed=layout.all_needed)
            row = {"question": asked_in(values["question"]).question, "solution": solution}
            if isinstance(values["completion"], str) and row["question"]:
                found.append((row, values["completion"]))
            else:
                counts["without a question or completion"] += 1
    samples = Counter(row["question"] for row, _ in found)
    correctness = tell_end(Correctness(), end, tokenizer=None)
    graded = [(row, split_completion(text, end), grade(text, row["solution"], correctness)) for row, text in found]
    return _kept(graded, samples, counts, str(path))


def _kept(
    graded: list[tuple[dict, Parts, float | None]], samples: Counter, counts: Counter, source: str
) -> tuple[list[dict], dict]:
    """The correct ones among `graded`; `samples` is how many there were of each question, so that each trace knows the
    `failure_rate` of its question: the share of its samples that were not correct.
    """
    traces, right = [], Counter()
    for row, parts, correct in graded:
        right[row["question"]] += correct == 1
        if correct is None:
            counts["without a gold answer"] += 1
        elif correct != 1:
            counts["incorrect"] += 1
        elif not parts.thinking.strip():
            counts["without thinking"] += 1
        else:
            known = {name: row[name] for name in ("question", "asked", "solution", "level", "system") if name in row}
            traces.append({**known, **parts._asdict()})
    for trace in traces:
        trace["failure_rate"] = 1 - right[trace["question"]] / samples[trace["question"]]
    counts["kept"] = len(traces)
    if not traces:
        said = ", ".join(f"{number} {reason}" for reason, number in counts.items())
        raise ValueError(f"traces: none of {source} is correct and has some thinking ({said})")
    logger.info("traces: %s", dict(counts))
    return uniform(traces), dict(counts)

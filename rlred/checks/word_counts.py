"""Whether a model can follow a count at all: told to write a word N times, how often does it?

A budget of tokens is a count as well. A base that cannot stop at a number that it is told has nothing that compares a
number with how far it is, and relabelled traces did not give it that (docs/LOG.md, 2026-11-26, night: one base, which
had no hindsight start that worked before it could, and one that worked after).
"""

import re
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rlred.data.prompts import Prompts, decode
from rlred.evaluation.measures import rank_correlation
from rlred.evaluation.sampling import Sampling
from rlred.evaluation.sweep import complete, stop_ids

LEAST_CORRELATION, MOST_ERROR = 0.9, 0.25  # ours: of the two bases known, one was 61 % off and the other 0.0 %


# The word has quotation marks: a model of 0.5B, told to write "the word check 4 times", listed four checks of words.
REQUEST = 'Repeat the word "{word}" exactly {count} times, separated by spaces. Write nothing else.'


@dataclass(frozen=True)
class WordCounts:
    """What is asked. Raises `ValueError` for a request without its places, and for fewer than two counts.

    >>> WordCounts((4, 8)).requests()[0]
    'Repeat the word "check" exactly 4 times, separated by spaces. Write nothing else.'
    """

    counts: tuple[int, ...] = (4, 8, 16, 32)
    word: str = "check"
    request: str = REQUEST

    def __post_init__(self):
        if len(set(self.counts)) < 2 or min(self.counts) < 1:
            raise ValueError(f"--counts must be two different numbers or more, each 1 or more, got {list(self.counts)}")
        if not re.fullmatch(r"\w+", self.word):
            raise ValueError(f"--count_word must be one word, got {self.word!r}")
        for holder in ("{word}", "{count}"):
            if holder not in self.request:
                raise ValueError(f"--count_request needs the placeholder {holder}: {self.request!r}")

    def requests(self) -> list[str]:
        """What the user says, for every count."""
        return [self.request.replace("{word}", self.word).replace("{count}", str(n)) for n in self.counts]


def times_written(text: str, word: str, end: str | None) -> int:
    r"""How often a word stands in the answer, or where it does not, in all of the text; capitals do not matter.

    >>> times_written("They want check twice.</think>Check check.", "check", "</think>")
    2
    >>> times_written(" check check</think>\\boxed{2} checked", "check", "</think>")
    2
    """
    pattern = re.compile(rf"\b{re.escape(word)}\b", re.IGNORECASE)
    answer = text.rpartition(end)[2] if end else text
    return len(pattern.findall(answer)) or len(pattern.findall(text))


def ask_counts(model, tokenizer, prompts: Prompts, asked: WordCounts, sampling: Sampling, path: Path) -> dict:
    """What a model writes, greedily, when it is told to write a word so many times. `prompts` are fitted.

    `written` are the times by count, `truncated` whether the cap came first, `mean_abs_error` the mean of abs(written -
    count) / count. `path` keeps the completions.
    """
    turns = [prompts.asked(prompts.conversation(request)) for request in asked.requests()]
    greedy = sampling.at(temperature=0.0, num_samples=1)
    ids = complete(model, tokenizer, turns, greedy, path=path, description="counts")
    texts, stops = decode(tokenizer, ids, prompts.end), stop_ids(model, tokenizer)
    written = [times_written(text, asked.word, prompts.end) for text in texts]
    errors = [abs(times - count) / count for times, count in zip(written, asked.counts, strict=True)]
    return {
        "request": asked.request.replace("{word}", asked.word),
        "counts": list(asked.counts),
        "written": written,
        "truncated": [not own or own[-1] not in stops for own in ids],
        "rank_correlation": rank_correlation(asked.counts, written),
        "mean_abs_error": fmean(errors),
    }


def advice(found: dict) -> str:
    """What the counts say of a hindsight start, in one sentence.

    >>> advice({"rank_correlation": 1.0, "mean_abs_error": 0.0}).partition(":")[0]
    'It follows a count'
    >>> advice({"rank_correlation": 0.4, "mean_abs_error": 0.1}).partition(":")[0]
    'It does not follow a count'
    >>> cut = {"rank_correlation": 0.9, "mean_abs_error": 2.0, "truncated": [True, True], "counts": [4, 8]}
    >>> advice({**cut, "written": [4, 60]}).partition(",")[0]
    'The cap came first'
    >>> advice({**cut, "written": [60, 60]}).partition(":")[0]  # the cap came after the count
    'It does not follow a count'
    """
    cut = zip(found.get("truncated", ()), found.get("written", ()), found.get("counts", ()), strict=True)
    if any(early and times <= count for early, times, count in cut):
        return "The cap came first, so the counts say nothing: raise --max_completion_length."
    if found["rank_correlation"] >= LEAST_CORRELATION and found["mean_abs_error"] <= MOST_ERROR:
        return (
            "It follows a count: a hindsight start has something to build on, and still needs some hundred updates "
            "until the number is followed in another sentence (docs/LOG.md, 2026-11-26, night)."
        )
    return (
        "It does not follow a count: a base that could not do this had no hindsight start that worked (docs/LOG.md, "
        "2026-11-26, night), unless it counts aloud as it thinks, as tiny_reasoner does; have it write true counts "
        "(hindsight_settings.markers: docs/LOG.md, 2026-11-28), teach it to count first, or take another base."
    )

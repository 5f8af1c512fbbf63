"""Traces of every length: where the hindsight start gets them when the model's own lengths are not those asked for.

    free         what the model writes when it is asked for a budget, without one beside other sources (num_samples)
    brief        asked without a budget, with one of several requests to be brief (this and the next: sources)
    stopped      a free trace that is cut at the end of a sentence and made to answer
    continued    a free trace that goes on after its end with "Wait"

A source is a function from `Material` to jobs: a question, the first tokens of its completion, and how many may follow.
All jobs go through one loop, batched, saved chunk by chunk and continued after an interruption. `spread` then keeps the
lengths that are asked for, evenly over logarithmic bins, and says which bins have nothing.
"""

import itertools
import json
import math
import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object

from rlred.data.budgets import BudgetSampler, ask
from rlred.data.prompts import Prompts, end_ids, prompt_ids
from rlred.evaluation import markdown
from rlred.evaluation.sampling import Sampling
from rlred.evaluation.sweep import complete
from rlred.files import mended_lines, whole_lines
from rlred.rewards.length import find_end
from rlred.tokens import token_texts

CHUNK = 512  # completions between two saves
ANSWER_LIMIT = 48  # tokens in which a stopped trace is to give its answer
# Each asks for the box again: a model that is only told to be brief leaves it out (docs/LOG.md).
BRIEF_REQUESTS = (
    " Give only the final answer in \\boxed{}, without any reasoning.",
    " Use one short sentence that ends with the answer in \\boxed{}.",
    " Write only the equations and no words, and the answer in \\boxed{}.",
    " Use as few words as you can before \\boxed{}.",
    " Be concise: three short steps at most, then \\boxed{}.",
)
ANSWER_CUES = ("\nThe final answer is \\boxed{", "\nSo the answer is \\boxed{")
WAIT_CUES = ("\nWait, let me check this again.", "\nWait, I will go through it once more, step by step.")


@dataclass(frozen=True)
class Job:
    """One completion to sample: a question row, its prompt, the tokens that are given, and the most that may follow."""

    row: dict
    prompt: list[int]
    limit: int
    given: tuple[int, ...] = ()


@dataclass(frozen=True)
class Material:
    """What a source makes its jobs of."""

    tokenizer: object
    prompts: Prompts
    questions: Sequence[dict]
    sampler: BudgetSampler
    stops: frozenset[int]
    sampling: Sampling
    asks_budgets: bool = True
    """Whether the source `free` asks for budgets."""
    answer_cues: Sequence[str] = ANSWER_CUES
    """What makes a stopped trace answer, behind the end of its thinking; one of them is drawn."""
    samples_per_question: int = 1
    """Completions of a question that the source `free` takes side by side."""
    free: Sequence[dict] = ()
    """The traces of the source `free`, with those that were cut at the cap."""
    weights: str | None = None
    """The fingerprint of the model that samples, which traces carry; None where it is not known."""
    known_texts: dict[int, str] = field(default_factory=dict, repr=False)
    """Texts of tokens that were decoded before."""

    def free_prompt(self, row: dict, request: str = "") -> list[int]:
        """The ids that ask a question without a budget."""
        return self.prompts.ids(self.tokenizer, row, None, "free", request)

    def ids(self, text: str) -> tuple[int, ...]:
        """The ids of a text inside a completion."""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def texts(self, ids: Sequence[int]) -> list[str]:
        """The text of each token by itself."""
        return token_texts(self.tokenizer, ids, self.known_texts)

    def left(self, tokens: int, given: Sequence[int]) -> int:
        """The tokens that may follow so many, and those that are given."""
        return self.sampling.max_completion_length - tokens - len(given)

    @cached_property
    def counted(self) -> float:
        """The tokens that one token of the thinking takes with the run's markers; 1 without."""
        markers = self.prompts.markers
        if markers is None:
            return 1.0
        low = self.sampler.bounds[0]
        return 1 + len(self.ids(markers.write(low // 2, low))) / markers.every

    @cached_property
    def ends(self) -> tuple[tuple[int, ...], ...]:
        """The token sequences that end the thinking."""
        return end_ids(self.tokenizer, self.prompts.end_of_thinking)

    def thinking(self, trace: dict) -> list[int]:
        """The tokens of a trace before its end of thinking, or else before its end of sequence."""
        ids = trace["completion_ids"]
        border = find_end(ids, self.ends)
        if border is not None:
            return ids[: border[0]]
        return ids[:-1] if ids and ids[-1] in self.stops else ids


def free(material: Material, count: int, rng: random.Random) -> list[Job]:
    """Questions asked for budgets that the sampler draws; or without, where a number would only disturb the model."""
    each = material.samples_per_question
    rows = [row for row in rng.choices(material.questions, k=math.ceil(count / each)) for _ in range(each)][:count]
    drawn = [material.sampler.draw(rng) if material.asks_budgets else ("free", None) for _ in range(count)]
    asked = ask(rows, material.prompts, drawn)
    render = material.prompts.asked
    cap = material.sampling.max_completion_length
    return [Job(row, prompt_ids(material.tokenizer, render(row["prompt"])), cap) for row in asked]


def brief(material: Material, count: int, rng: random.Random) -> list[Job]:
    """Questions asked without a budget, with a request to be brief; what takes more than half of the cap is not."""
    rows = rng.choices(material.questions, k=count)
    limit = max(1, material.sampling.max_completion_length // 2)
    return [Job(row, material.free_prompt(row, rng.choice(BRIEF_REQUESTS)), limit) for row in rows]


def stopped(material: Material, count: int, rng: random.Random) -> list[Job]:
    """Free traces, cut where a sentence or a line ends (or else before a space), and made to answer.

    The place of the cut is the one nearest to a length that is drawn evenly in the logarithm, so that short traces are
    as many as long ones. It is the length with the run's markers, which are written into the trace later.
    """
    low, end, each = material.sampler.bounds[0], material.prompts.end_of_thinking, material.counted
    jobs = []
    for trace in rng.choices(material.free, k=count):
        thinking = material.thinking(trace)
        cue = rng.choice(material.answer_cues)
        given = material.ids((f"{end}\n" if end and cue else end or "") + cue)
        places = [at for at in (0, *boundaries(material.texts(thinking))) if material.left(at, given) > 0]
        longest = max(low + 1, len(thinking) * each + len(given))
        wanted = (low * (longest / low) ** rng.random() - len(given)) / each
        own = (*thinking[: min(places, key=lambda at: abs(at - wanted))], *given)
        jobs.append(Job(trace, material.free_prompt(trace), min(ANSWER_LIMIT, material.left(0, own)), own))
    return jobs


def continued(material: Material, count: int, rng: random.Random) -> list[Job]:
    """Free traces that go on after "Wait", from the end of their thinking, or else from their end."""
    cues = [material.ids(cue) for cue in WAIT_CUES]
    owns = [(trace, material.thinking(trace)) for trace in material.free]
    room = [(trace, own) for trace, own in owns if material.left(len(own), max(cues, key=len)) > 0]
    jobs = []
    for trace, thinking in rng.choices(room, k=count) if room else []:
        own = (*thinking, *rng.choice(cues))
        jobs.append(Job(trace, material.free_prompt(trace), material.left(0, own), own))
    return jobs


SOURCES: dict[str, Callable[[Material, int, random.Random], list[Job]]] = {
    "free": free,
    "brief": brief,
    "stopped": stopped,
    "continued": continued,
}


def boundaries(texts: Sequence[str]) -> list[int]:
    """The places in front of which a sentence or a line has ended; all before a space where there are fewer than three.

    `texts` are those of single tokens. A place is a number of tokens, 1 or more, below the number of all.

    >>> boundaries(["1", "+", "2", ".", "\\n", "So", " 3", ".", " 4", ".", " 5"])
    [4, 5, 8, 10]
    >>> boundaries(["1", " +", "2", " =", " 3"])
    [1, 3, 4]
    """
    ends, spaces = [], []
    for at, (text, after) in enumerate(itertools.pairwise(texts), start=1):
        line_ends = text.endswith("\n") or after.startswith("\n")
        if line_ends or (text.rstrip().endswith((".", "!", "?")) and (text[-1:].isspace() or after[:1].isspace())):
            ends.append(at)
        if after[:1].isspace():
            spaces.append(at)
    return ends if len(ends) >= 3 else spaces


def sample(source: str, model, material: Material, count: int, path: Path, chunk: int | None = None) -> list[dict]:
    """The completions of a source as traces, saved to `path` chunk by chunk, 512 or a batch if that is more.

    A trace has `question`, `completion_ids`, `source`, a `system` and `reference_correct_lengths` where the question
    has them, and `truncated` where it did not end within its limit. A file that is already there is continued; from a
    line that was cut off by a crash, or is damaged, all is sampled again. Raises `ValueError` for traces of another
    model.
    """
    state, sampling = PartialState(), material.sampling
    with state.main_process_first():
        lines = mended_lines(path, is_chunk) if state.is_main_process else whole_lines(path, is_chunk)
    traces, done = read_traces(lines, material.weights, path)
    while done < count:
        rng = random.Random(f"{'hindsight' if source == 'free' else source}/{sampling.seed}/{done}")
        size = min(max(chunk or CHUNK, sampling.batch_size), count - done)
        jobs = SOURCES[source](material, size, rng)
        with state.split_between_processes(jobs) as own:
            ids = complete(
                model,
                material.tokenizer,
                [[*job.prompt, *job.given] for job in own],
                sampling.at(seed=rng.randrange(2**31) + state.process_index),
                limits=None if source == "free" else [job.limit for job in own],
                description=f"traces: {source}, {done}-{done + size} of {count}",
            )
            made = [_trace(job, tokens, source, material.stops) for job, tokens in zip(own, ids, strict=True) if tokens]
        made = gather_object(made)
        done += size
        traces += made
        if state.is_main_process:
            with open(path, "a", encoding="utf-8") as file:
                own = {} if material.weights is None else {"weights": material.weights}
                file.write(json.dumps({"sampled": done, **own, "traces": made}) + "\n")
        state.wait_for_everyone()
    return traces


def _trace(job: Job, tokens: list[int], source: str, stops: frozenset[int]) -> dict:
    trace = {name: job.row[name] for name in ("question", "system", "reference_correct_lengths") if job.row.get(name)}
    trace |= {"completion_ids": [*job.given, *tokens], "source": source}
    return trace if tokens[-1] in stops else trace | {"truncated": True}


def is_chunk(value: Any) -> bool:
    """Whether a line of a traces file is one that `sample` writes."""
    traces = value.get("traces") if isinstance(value, dict) and isinstance(value.get("sampled"), int) else None
    return isinstance(traces, list) and all(
        isinstance(one, dict) and isinstance(one.get("question"), str) and is_ids(one.get("completion_ids"))
        for one in traces
    )


def is_ids(value: Any) -> bool:
    """Whether a value is a list of token ids."""
    return isinstance(value, list) and all(type(one) is int and one >= 0 for one in value)


def read_traces(
    lines: Sequence[str], weights: str | None = None, path: Path | str = "the file"
) -> tuple[list[dict], int]:
    """The traces of a file's lines, and how many completions were sampled for them.

    Raises `ValueError` for those of other weights, where both are known.
    """
    chunks = [json.loads(line) for line in lines]
    others = {chunk["weights"] for chunk in chunks if "weights" in chunk} - {weights}
    if weights and others:
        raise ValueError(
            f"{path} holds traces of another model (its weights are {others.pop()}, this model's {weights}); name "
            "another output_dir, or move the file away"
        )
    traces = [trace for chunk in chunks for trace in chunk["traces"]]
    return traces, chunks[-1]["sampled"] if chunks else 0


@dataclass(frozen=True)
class Bins:
    """Bins of length, equally wide in the logarithm.

    >>> bins = Bins(16, 64, 2)
    >>> bins.edges, [bins.of(length) for length in (15, 16, 31, 32, 64, 65)]
    ([16, 32, 64], [None, 0, 0, 1, 1, None])
    """

    low: int
    high: int
    count: int

    @property
    def edges(self) -> list[int]:
        """The lengths between the bins, the two ends included; a narrow range has fewer bins than `count`.

        >>> Bins(16, 18, 8).edges, Bins(16, 16, 8).edges
        ([16, 17, 18], [16, 16])
        """
        edges = sorted({round(self.low * (self.high / self.low) ** (i / self.count)) for i in range(self.count + 1)})
        return edges if len(edges) > 1 else [self.low, self.high]

    def of(self, length: int) -> int | None:
        """The bin of a length, the upper end of the last one included; None outside."""
        if not self.low <= length <= self.high:
            return None
        edges = self.edges
        return min(bisect_right(edges, length) - 1, len(edges) - 2)


def spread(lengths: Sequence[int], bins: Bins, rng: random.Random, most: int = 4) -> list[int]:
    """Indices of one epoch that visits the bins evenly, in random order; what lies outside is left out.

    Each bin with anything in it is visited as often as the mean over those bins, its traces in turn; none of them more
    than `most` times, so that a handful of traces is not learned by heart.

    >>> spread([10, 20, 20, 20, 40], Bins(16, 64, 2), random.Random(0)).count(4)
    2
    """
    members: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        if (found := bins.of(length)) is not None:
            members.setdefault(found, []).append(index)
    if not members:
        return []
    quota = math.ceil(sum(map(len, members.values())) / len(members))
    epoch = []
    for found in members.values():
        shuffled = rng.sample(found, len(found))
        epoch += (shuffled * most)[: min(quota, most * len(found))]
    rng.shuffle(epoch)
    return epoch


def table(traces: Sequence[dict], lengths: Sequence[int], kept: Sequence[bool], bins: Bins) -> list[dict]:
    """What there is in each bin: its lengths, completions, how many of them are kept, and the kept ones by source."""
    edges, rows = bins.edges, []
    for found in range(len(bins.edges) - 1):
        inside = [i for i, length in enumerate(lengths) if bins.of(length) == found]
        sources = Counter(traces[i].get("source", "free") for i in inside if kept[i])
        rows.append(
            {
                "from": edges[found],
                "to": edges[found + 1],
                "completions": len(inside),
                "kept": sum(kept[i] for i in inside),
                "sources": {name: sources[name] for name in SOURCES if sources[name]},
            }
        )
    return rows


def described(rows: Sequence[dict]) -> str:
    """The table of bins as Markdown."""
    lines = []
    for row in rows:
        sources = ", ".join(f"{name} {number}" for name, number in row["sources"].items()) or "-"
        lines.append([f"{row['from']} to {row['to']}", row["completions"], row["kept"], sources])
    return "\n".join(markdown.table(["tokens", "completions", "kept", "kept by source"], lines))

"""How completions are sampled and how they are graded, as two values that every run, command and stage hands on."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from rlred.data.markers import Markers
from rlred.data.prompts import tell_end, thinking_end
from rlred.rewards import Correctness, Length

SHARD = 2048  # questions that are sampled and graded at once, where a sweep goes over many


@dataclass(frozen=True)
class Share:
    """The shards of a sweep that one process of several samples: the K-th of N, and every N-th after it.

    Raises `ValueError` for other text than `K/N` with 1 <= K <= N.

    >>> Share("2/3").of("abcdefgh")
    'beh'
    """

    text: str

    def __post_init__(self):
        number, slash, count = self.text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise ValueError(f"--share must be K/N with 1 <= K <= N, as 2/4, got {self.text!r}")

    def of(self, shards: Sequence) -> Sequence:
        """Its shards. Raises `ValueError` where there is none: some process would have nothing to do."""
        number, count = (int(part) for part in self.text.split("/"))
        if not (own := shards[number - 1 :: count]):
            raise ValueError(
                f"--share {self.text}: the questions are {len(shards)} shards of some {SHARD}; take N = {len(shards)} "
                "or less"
            )
        return own


@dataclass(frozen=True)
class Sampling:
    """How completions are sampled. Raises `ValueError` for a value out of range.

    >>> Sampling(90).at(temperature=0.0)
    Sampling(max_completion_length=90, temperature=0.0, batch_size=128, seed=0, num_samples=1)
    """

    max_completion_length: int
    """Tokens at which a completion is cut, end of sequence included; the same for every condition."""
    temperature: float = 1.0
    """0 decodes greedily; nothing else (top-p, top-k) narrows the distribution."""
    batch_size: int = 128
    """Prompts that are completed at once; each batch has a seed of its own, so the completions depend on it."""
    seed: int = 0
    num_samples: int = 1
    """Completions of each question under each condition; `complete` takes its prompts as they are."""

    def __post_init__(self):
        for name in ("max_completion_length", "batch_size", "num_samples"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value!r}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise ValueError(f"seed must be a whole number, got {self.seed!r}")
        if isinstance(self.temperature, bool) or not isinstance(self.temperature, int | float):
            raise ValueError(f"temperature must be a number, 0 or more, got {self.temperature!r}")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be 0 or more, got {self.temperature}")

    @classmethod
    def of(cls, settings: Any, **changes) -> "Sampling":
        """The fields of a command's settings that say how to sample, with changes.

        >>> from types import SimpleNamespace
        >>> Sampling.of(SimpleNamespace(seed=3, budgets=[16]), max_completion_length=32).seed
        3
        """
        names = {item.name for item in fields(cls)}
        return cls(**({name: value for name, value in vars(settings).items() if name in names} | changes))

    def at(self, **changes) -> "Sampling":
        """The same with other values."""
        return replace(self, **changes)

    def shards(
        self, count: int, path: Path | None = None, share: "Share | None" = None
    ) -> Iterator[tuple[slice, "Sampling", Path | None]]:
        """Shards of so many questions, each with its sampling and its file, whose completions are those of the whole.

        A shard is whole questions and whole batches, `SHARD` questions or fewer where it can be. A sweep that takes one
        shard alone has one file, `path` itself. Only those of `share` are given, where there is one. Raises
        `ValueError` where it has none.

        >>> [(part, sampling.seed) for part, sampling, _ in Sampling(90, num_samples=3, batch_size=2048).shards(5000)]
        [(slice(0, 2048, None), 0), (slice(2048, 4096, None), 6144), (slice(4096, 5000, None), 12288)]
        """
        least = self.batch_size // math.gcd(self.batch_size, self.num_samples)
        size = least * max(1, SHARD // least)
        starts = list(enumerate(range(0, count, size)))
        for number, start in starts if share is None else share.of(starts):
            own = path and path.with_name(f"{path.stem}-{number:05d}{path.suffix}") if count > size else path
            seed = self.seed + start * self.num_samples
            yield slice(start, min(start + size, count)), replace(self, seed=seed), own


@dataclass(frozen=True)
class Grading:
    """How completions are graded and counted.

    `correctness` may be a `Correctness` or an `ExactMatch`. With `grades=False` no answer is compared, and what is
    correct is not known (None).

    >>> Grading().fitted("<done>", tokenizer=None).correctness.end_of_thinking
    '<done>'
    """

    correctness: Callable = Correctness()
    length: Length = Length()
    grades: bool = True
    markers: Markers | None = None
    """What is taken out of a completion's text before it is graded and shown."""

    def fitted(self, end: str | None, tokenizer, markers: Markers | None = None) -> "Grading":
        """The same, told which text ends the thinking and what its markers are; None changes nothing."""
        correctness, length = (tell_end(part, end, tokenizer) for part in (self.correctness, self.length))
        return replace(self, correctness=correctness, length=length, markers=markers or self.markers)

    @property
    def end(self) -> str | None:
        """The text that ends the thinking."""
        return thinking_end(self.correctness)

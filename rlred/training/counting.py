"""Counted thinking in a model's own traces: where the markers go, and which length a trace has with them.

A marker stands between two steps of the thinking, never in the answer: before the end of the thinking, or for a model
without one before its last box and outside every other. The tokens of a trace stay those that were sampled; only the
marker's are new. Rows without a budget have no markers: asked for nothing, the model writes what it wrote before.
"""

import logging
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from rlred.data.markers import Markers, marker_ids
from rlred.data.prompts import decode, end_ids
from rlred.evaluation.trace_sources import boundaries
from rlred.rewards import Length
from rlred.rewards.correctness import find_boxes
from rlred.rewards.length import find_end
from rlred.tokens import token_texts

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counting:
    """Writes markers into traces of one tokenizer; without `markers`, a trace stays as it is."""

    markers: Markers | None
    tokenizer: object
    end: str | None
    """The text that ends the thinking; "" or None where the model has none."""
    length: Length = Length()
    known_ids: dict[str, list[int]] = field(default_factory=dict, repr=False)
    """Ids of markers' texts that were made before."""
    known_texts: dict[int, str] = field(default_factory=dict, repr=False)
    """Texts of tokens that were read before."""
    known_places: dict[tuple[int, ...], list[int]] = field(default_factory=dict, repr=False, compare=False)
    """Places in traces that were read before: a start asks for those of each trace several times."""
    known_asked: dict[tuple, tuple[list[int], int] | None] = field(default_factory=dict, repr=False, compare=False)
    """Traces that were asked for exactly before, with their places."""

    def encode(self, text: str) -> list[int]:
        """The ids of a marker's text."""
        if text not in self.known_ids:
            self.known_ids[text] = marker_ids(self.tokenizer, text)
        return self.known_ids[text]

    def places(self, ids: Sequence[int]) -> list[int]:
        """The numbers of tokens behind which a marker may stand."""
        if self.markers is None:
            return []
        key = tuple(ids)
        if key not in self.known_places:
            self.known_places[key] = self._places(ids)
        return self.known_places[key]

    def _places(self, ids: Sequence[int]) -> list[int]:
        border = find_end(ids, self._ends)
        texts = token_texts(self.tokenizer, ids if border is None else ids[: border[0]], self.known_texts)
        found = boundaries(texts) if self.markers.before is None else self.markers.starts(texts)
        if border is not None:
            return found
        starts = [0]  # of every token, in characters
        for text in texts:
            starts.append(starts[-1] + len(text))
        boxes = find_boxes("".join(texts))
        last = boxes[-1][0] if boxes else starts[-1]
        return [at for at in found if starts[at] <= last and not any(a < starts[at] <= b for a, _, b in boxes)]

    @cached_property
    def _ends(self) -> tuple[tuple[int, ...], ...]:
        return end_ids(self.tokenizer, self.end)

    def asked(self, ids: list[int], places: Sequence[int]) -> tuple[list[int], int] | None:
        """A trace with its markers and the exact budget that it is asked for: its length with them.

        None where no budget agrees with the digits that write it.
        """
        if self.markers is None:
            return ids, max(1, self.length(ids))
        key = (tuple(ids), tuple(places))
        if key not in self.known_asked:
            self.known_asked[key] = self.markers.settle(ids, places, self.length, self.encode)
        return self.known_asked[key]

    def bounded(self, ids: list[int], places: Sequence[int], most: int) -> tuple[list[int], int]:
        """A countable trace with its markers and a maximum budget: `most`, or what it takes where that is more."""
        if self.markers is None:
            return ids, most
        made = self.markers.insert(ids, places, most, self.encode)
        return (made, most) if self.length(made) <= most else self.asked(ids, places)

    def overrun(self, ids: list[int], places: Sequence[int], rng: random.Random) -> tuple[list[int], int, int] | None:
        """A trace with markers whose budget has run out at the last of them, that budget, and where this marker begins.

        The last marker stands at the last place, fewer than `every` tokens behind the budget. None for a trace without
        a place that is far enough, or where no budget agrees with the digits that write it.
        """
        if not places or places[-1] < self.markers.every:
            return None
        at, late = places[-1], rng.randrange(self.markers.every)
        behind = len(ids) - at
        before = [place for place in places if place <= at - self.markers.every]
        found = self.markers.settle(ids, [*before, at], lambda made: len(made) - behind - late, self.encode)
        if found is None:
            return None
        made, budget = found
        marker = self.encode(self.markers.write(len(made) - behind, budget))
        start = len(made) - behind - len(marker)
        return (made, budget, start) if made[start : start + len(marker)] == marker else None

    def lengths(self, traces: Sequence[dict]) -> list[int]:
        """The length of each of these countable traces as it is asked for exactly."""
        own = (trace["completion_ids"] for trace in traces)
        if self.markers is None:
            return [self.length(ids) for ids in own]
        return [self.asked(ids, self.places(ids))[1] for ids in own]

    def countable(self, traces: Sequence[dict], cap: int) -> list[dict]:
        """The traces that can be counted, at most `cap` tokens long with their markers; the log counts the others."""
        if self.markers is None:
            return list(traces)
        kept, dropped, number = [], Counter(), 0
        for trace in traces:
            ids = trace["completion_ids"]
            found = self.asked(ids, self.places(ids))
            reason = self._unfit(ids, found, cap)
            if reason:
                dropped[reason] += 1
            else:
                kept.append(trace)
                number += len(self.markers.pattern.findall(self._read(found[0])))
        told = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "none"
        mean = number / max(1, len(kept))
        logger.info("hindsight: %d traces get markers, %.1f each; left out: %s", len(kept), mean, told)
        return kept

    def _unfit(self, ids: list[int], found: tuple[list[int], int] | None, cap: int) -> str | None:
        if found is None:
            return "whose length does not settle"
        if len(found[0]) > cap:
            return f"longer than the cap of {cap} tokens with their markers"
        text = self._read(ids)
        if self.markers.strip(text, self.end) != text:
            return "that hold a marker's words already"
        without = self.markers.strip(self._read(found[0]), self.end)
        return "that cannot be read without their markers" if without != text else None

    def _read(self, ids: list[int]) -> str:
        return decode(self.tokenizer, [ids], self.end)[0]

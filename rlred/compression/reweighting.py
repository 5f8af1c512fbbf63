"""Training on a share of short rows that follows the model (TL;DR, 2506.02678): the rule of mixing.py, while it trains.

ShareSampler   draws each row: from the cut ones with the present share, else from the whole ones
Reweight       every so many updates: measures the model, sets the share, keeps a history on disk
"""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from accelerate.utils import broadcast_object_list
from torch.utils.data import Sampler
from transformers import TrainerCallback

from rlred.compression.mixing import Bounds, check_share, reweight
from rlred.files import write_json


class ShareSampler(Sampler):
    """Indices of rows, each of a cut row (ratio below 1) with a chance of `share`, else of a whole one.

    Raises `ValueError` for a share outside (0, 1) and rows that are all cut or all whole.

    >>> sampler = ShareSampler([0.5, 1.0, 0.7, 1.0], share=0.999999)
    >>> set(sampler) <= {0, 2}, len(sampler)
    (True, 4)
    """

    def __init__(self, ratios: Sequence[float], share: float, seed: int = 0):
        check_share("short_share", share)
        self.short = [index for index, ratio in enumerate(ratios) if ratio < 1]
        self.whole = [index for index, ratio in enumerate(ratios) if ratio == 1]
        if not self.short or not self.whole:
            raise ValueError(
                f"short_share={share}: {len(self.short)} rows are cut and {len(self.whole)} whole; both are needed"
            )
        self.share, self.rng = share, random.Random(f"share/{seed}")

    def __len__(self) -> int:
        return len(self.short) + len(self.whole)

    def __iter__(self) -> Iterator[int]:
        for _ in range(len(self)):
            yield self.rng.choice(self.short if self.rng.random() < self.share else self.whole)


class Reweight(TrainerCallback):
    """Every `steps` updates, sets the share of short rows by what `measure(model)` gives: thinking tokens, accuracy.

    `path` keeps the history, one entry per measurement, and a resumed training takes its share from there.
    """

    def __init__(
        self,
        sampler: ShareSampler,
        measure: Callable[[object], tuple[float, float]],
        bounds: Bounds,
        path: Path,
        *,
        steps: int,
        rate: float = 4.0,
    ):
        self.sampler, self.measure, self.bounds, self.path = sampler, measure, bounds, path
        self.steps, self.rate, self.history = steps, rate, []

    def on_train_begin(self, args, state, control, **kwargs):
        """Goes on from the history up to the checkpoint."""
        if state.global_step and self.path.exists():
            kept = json.loads(self.path.read_text())
            self.history = [entry for entry in kept if entry["step"] <= state.global_step]
            if self.history:
                self.sampler.share = self.history[-1]["short_share"]

    def on_step_end(self, args, state, control, model=None, **kwargs):
        """Measures, and sets the share for the batches to come; process 0 decides for all."""
        if state.global_step % self.steps:
            return
        tokens, accuracy = self.measure(model)
        share = reweight(self.sampler.share, tokens, accuracy, self.bounds, self.rate)
        [self.sampler.share] = broadcast_object_list([share])
        entry = {"step": state.global_step, "thinking_tokens": tokens, "accuracy": accuracy}
        self.history.append({**entry, "short_share": self.sampler.share})
        if state.is_world_process_zero:
            write_json(self.path, self.history)

"""A learning rate by a range test: a few updates at a growing rate, which show where the loss begins to rise.

The rate grows by the same factor at each update, from `LOWEST` to `HIGHEST` (after Smith, 1506.01186, section 3.3,
where it grows in equal steps). On a model's own completions the loss hardly falls in so few updates, so that its lowest
point is chance. Where it rises is none: the rate taken is a fixed share of the last one before. The adapter is then as
it was, and nothing of the test is kept but its curve. `SHARE` fits the two embedded bases, whose rates were found by
hand (docs/LOG.md); for a large model it is a first guess.
"""

import json
import logging
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from transformers import TrainerCallback

from rlred.files import write_json
from rlred.training.sft import SFTSettings, SupervisedTrainer

logger = logging.getLogger(__name__)

LOWEST, HIGHEST = 1e-5, 1e-1
UPDATES = 60
SMOOTHING = 0.8  # weight of the losses before, as in an exponential moving average
SHARE = 0.2  # of the last rate before the loss rises: the test has one update at it, a training hundreds
RISEN = 1.05  # a smoothed loss of so many times the lowest has risen
DIVERGED = 1.5  # and of so many times the lowest ends the test


def rate_at(update: int) -> float:
    """The learning rate of one update of the test.

    >>> f"{rate_at(0):.0e} {rate_at(UPDATES - 1):.0e}"
    '1e-05 1e-01'
    """
    return LOWEST * (HIGHEST / LOWEST) ** (update / (UPDATES - 1))


def smoothed(losses: Sequence[float]) -> list[float]:
    """The exponential moving average of losses, freed of its bias towards 0 at the beginning.

    >>> smoothed([2.0, 2.0])[0], smoothed([1.0, 2.0])[1] > 1.5
    (2.0, True)
    """
    mean, made = 0.0, []
    for count, loss in enumerate(losses, start=1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        made.append(mean / (1 - SMOOTHING**count))
    return made


def choose(rates: Sequence[float], losses: Sequence[float]) -> float:
    """The learning rate that a curve speaks for, with two significant digits.

    Raises `ValueError` for a curve that rises from its first updates on.

    >>> choose([1e-4, 1e-3, 1e-2, 1e-1], [1.0, 1.0, 1.0, 9.0])
    0.002
    """
    curve = [loss if math.isfinite(loss) else math.inf for loss in smoothed(losses)]
    lowest = min(curve)
    before = max((at for at, loss in enumerate(curve) if loss <= RISEN * lowest), default=0)
    if before == 0:
        raise ValueError(
            f"hindsight_settings.learning_rate is null, and the loss rose at every rate from {rates[0]:g} on: "
            f"{losses[:3]}; set one below, and look at the traces"
        )
    return float(f"{SHARE * rates[before]:.1e}")


class StopWhereItDiverges(TrainerCallback):
    """Ends the test where the smoothed loss is far above its lowest, or no number."""

    def on_log(self, args, state, control, **kwargs):
        curve = smoothed([entry["loss"] for entry in state.log_history if "loss" in entry])
        if curve and not curve[-1] <= DIVERGED * min(curve):
            control.should_training_stop = True


def find_learning_rate(model, tokenizer, rows: Dataset, settings: SFTSettings, *, training, output: Path) -> float:
    """The learning rate for the adapter of `model` on the first rows, which it leaves as it was.

    The curve stays in `output/range_test.json`, from which an interrupted start takes the rate again. `training` is the
    run's GRPOConfig. Raises `ValueError` where the loss rises at every rate.
    """
    path = output / "range_test.json"
    if path.exists():
        return json.loads(path.read_text())["learning_rate"]
    before = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}
    config = settings.config(output / "range_test", training)
    config.max_steps, config.learning_rate, config.save_strategy, config.logging_steps = UPDATES, LOWEST, "no", 1
    config.report_to, config.logging_nan_inf_filter = [], False  # or a loss that is no number is logged as 0
    trainer = SupervisedTrainer(
        rate=lambda update: rate_at(update) / LOWEST,
        callbacks=[StopWhereItDiverges()],
        model=model,
        args=config,
        train_dataset=rows.select(range(min(len(rows), UPDATES * settings.batch_size))),
        processing_class=tokenizer,
    )
    trainer.train()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in before:
                weight.copy_(before[name])
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    rates = [rate_at(update) for update in range(len(losses))]
    found = [choose(rates, losses)]
    broadcast_object_list(found)
    logger.info("hindsight: learning rate %g, by a range test of %d updates", found[0], len(losses))
    if trainer.is_world_process_zero():
        shutil.rmtree(output / "range_test", ignore_errors=True)
        shown = [loss if math.isfinite(loss) else None for loss in losses]
        write_json(path, {"learning_rate": found[0], "rates": rates, "losses": shown})
    trainer.accelerator.wait_for_everyone()
    return found[0]

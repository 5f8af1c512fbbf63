"""What an earlier hindsight start of other settings has left is moved aside, so that it is not gone on with.

The settings that a start was made with stand in `<output>/asked.json`. A folder of theirs, `earlier-1`, `earlier-2`,
..., gets what they made: checkpoints, adapter and range test; the traces too, where those were asked for otherwise.
Nothing is deleted.
"""

import dataclasses
import itertools
import json
import logging
from pathlib import Path

from accelerate import PartialState

from rlred.data.budgets import BudgetSampler
from rlred.evaluation.sampling import Sampling
from rlred.files import read_record, write_json
from rlred.training.hindsight_settings import Hindsight

logger = logging.getLogger(__name__)

# What changes neither traces nor weights: where to stop, what to think of the end, and what fits into the memory.
AFTERWARDS = ("target_correlation", "required_correlation", "micro_batch_size")
PROBES = ("probe_every", "num_probe_questions", "num_probe_budgets")
MADE = ("checkpoint-*", "adapter", "trainer_state.json", "range_test*")


def defaults() -> dict:
    """The settings that the weights of a start depend on, at their defaults."""
    told = json.loads(json.dumps(dataclasses.asdict(Hindsight())))
    return {name: value for name, value in told.items() if name not in (*AFTERWARDS, *PROBES)}


def asked_for(settings: Hindsight, sampler: BudgetSampler, sampling: Sampling, adapter: str | None = None) -> dict:
    """What the weights of a start depend on, and under `traces` what its traces do."""
    told = dataclasses.asdict(settings)
    own = dataclasses.asdict(sampler)
    traces = {name: told[name] for name in ("samples_per_question", "answer_cue")}
    traces |= {"budgets": {name: own[name] for name in ("low", "high", "distribution", "choices")}}
    # Beside sources nothing is asked of the model, and an effort has no number.
    asks = not (settings.sources or sampler.modes.get("effort"))
    traces |= {"modes": sampler.modes if asks else None}
    traces |= {"max_completion_length": sampling.max_completion_length, "temperature": sampling.temperature}
    weights = {name: value for name, value in told.items() if name not in (*AFTERWARDS, *PROBES)}
    weights |= {"adapter": adapter} if adapter else {}
    return json.loads(json.dumps({**weights, "sampler": own, "traces": traces}))


def move_aside(output: Path, asked: dict) -> None:
    """Moves aside what was made with other settings than those `asked` for, and keeps these; one line in the log.

    A folder without `asked.json`, of an older version, is gone on with.
    """
    state = PartialState()
    if state.is_main_process:
        path = output / "asked.json"
        # A setting that an older version did not have was at its default.
        before = {**defaults(), **read_record(path)} if path.exists() else asked
        changed = sorted(name for name in {*before, *asked} if before.get(name) != asked.get(name))
        patterns = (*MADE, *(("traces*.jsonl",) if "traces" in changed else ())) if changed else ()
        found = [file for pattern in patterns for file in sorted(output.glob(pattern))]
        if found:
            aside = next(one for n in itertools.count(1) if not (one := output / f"earlier-{n}").exists())
            aside.mkdir()
            for file in [*found, path]:
                file.rename(aside / file.name)
            names = ", ".join(name for name in changed if name not in ("traces", "sampler")) or "budgets or sampling"
            logger.warning("hindsight: begins anew, for %s changed; what was made before is in %s", names, aside)
        write_json(path, asked)
    state.wait_for_everyone()

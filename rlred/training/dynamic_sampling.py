"""Dynamic sampling (DAPO, 2503.14476; DLER, 2510.15110): groups that teach nothing are sampled anew, on other rows.

TRL 1.16 has none. Its batch is sampled first; then, `max_rounds` times at most, as many groups as lack a signal are
sampled on other rows, and those of them that have one take their places. What costs how much:

    completions    those of the dropped groups are sampled for nothing. `dynamic_sampling/sampled` is how many were
                   sampled for each one that is trained on; TRL's `num_tokens` and `completions/*` are of all of them
    grading        every completion is graded once more than without
    rows           drawn from all rows of the run, from a seed of its own: a pure function of seed and step, so that a
                   resumed run draws the same ones
    processes      each samples as many groups as the one that lacks most; groups must be whole on a process

Rollout functions, pictures, forced first tokens and stopped rollouts are refused.
"""

import inspect
import logging
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch

from rlred.rewards import EffortLength
from rlred.rewards.base import declared, find
from rlred.training.ddca import DDCA
from rlred.training.early_stop import EarlyStop
from rlred.training.easy_first import EasyFirst
from rlred.training.think_or_not import ThinkOrNot
from rlred.training.trainer import ComposedGRPOTrainer, Part, Sampled, check_graded

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DynamicSampling(Part):
    """Samples groups without a signal anew. Evaluation is left alone.

    Logs `dynamic_sampling/sampled` (completions sampled for each one trained on, 1 or more), `/dropped` (share of the
    sampled groups without a signal) and `/unfilled` (share of the trained groups that still have none). Raises
    `ValueError` for a value out of range, and for settings that are named above.

    >>> DynamicSampling(by="reward").max_rounds
    3
    """

    by: str = "grade"
    """A signal is two different grades in the group (`grade`: DAPO), or two different rewards (`reward`: DLER)."""
    max_rounds: int = 3
    """Times that groups are sampled anew, at most, in one batch."""

    def __post_init__(self):
        if self.by not in ("grade", "reward"):
            raise ValueError(f"dynamic_sampling.by must be 'grade' or 'reward', got {self.by!r}")
        if isinstance(self.max_rounds, bool) or not isinstance(self.max_rounds, int) or self.max_rounds < 1:
            raise ValueError(f"dynamic_sampling.max_rounds must be a whole number, 1 or more, got {self.max_rounds!r}")

    def check(self, training, parts):
        local = training.per_device_train_batch_size * training.steps_per_generation
        if local % training.num_generations:
            raise ValueError(
                f"per_device_train_batch_size={training.per_device_train_batch_size}: dynamic_sampling needs groups of "
                f"{training.num_generations} whole on each process"
            )
        for part in parts:
            if isinstance(part, ThinkOrNot) and part.forced:
                raise ValueError("think_or_not.forced=True: dynamic_sampling does not force first tokens; set false")
            if isinstance(part, EarlyStop):
                raise ValueError("early_stop_rollouts=True: dynamic_sampling does not stop rollouts; set it to false")
            if isinstance(part, EasyFirst) and part.share < 1:
                raise ValueError(f"easy_first.share={part.share}: dynamic_sampling draws from all rows; set it to 1")

    def check_rewards(self, rewards, weights, tokenizer, parts):
        if any(one.of == "group" for reward in rewards for one in find(reward, EffortLength)):
            raise ValueError(
                "effort_length.of='group': dynamic_sampling replaces one effort of a question without the others; set "
                "it to reference"
            )
        if self.by == "grade":
            check_graded(rewards, "dynamic_sampling.by='grade'", "set by to 'reward'")
            plain = not any(part.gives_advantages for part in parts)
            weighed = zip(map(declared, rewards), weights, strict=False)  # their number is TRL's to check
            lengthy = [reward.__name__ for reward, weight in weighed if plain and weight and not reward.grades]
            lengthy += ["ddca" for part in parts if isinstance(part, DDCA)]
            if lengthy:
                logger.warning(
                    "dynamic_sampling.by='grade': drops the groups where all are correct, of which %s alone learns to "
                    "be shorter at no cost; 'reward' keeps them",
                    lengthy[0],
                )

    def check_trainer(self, trainer):
        if trainer.rollout_func is not None or {"image", "images"} & set(trainer.train_dataset.column_names or ()):
            raise ValueError("dynamic_sampling: rollout functions and rows with pictures have no second sampling here")
        if not hasattr(trainer.train_dataset, "__len__"):
            raise ValueError("dynamic_sampling: draws rows by number, which a streamed dataset has not; load it whole")
        told = (trainer.reward_funcs, trainer.reward_func_names, trainer.reward_processing_classes)
        for reward, name, tokenizer in zip(*told, strict=True):
            if tokenizer is not None or inspect.iscoroutinefunction(reward):
                raise ValueError(f"dynamic_sampling: {name} is a model or asynchronous; give it as a plain function")

    def resample(self, trainer: ComposedGRPOTrainer, sampled: Sampled, generate: Callable[[list], tuple]) -> None:
        size = trainer.num_generations
        lacking = self.lacking(trainer, sampled)
        total, dropped, rounds = len(sampled.rows) // size, len(lacking), 0
        while rounds < self.max_rounds and (need := most(trainer, len(lacking))):
            rounds += 1
            rows = [row for row in drawn(trainer, need, rounds) for _ in range(size)]
            prompts = [row["prompt"] for row in rows]
            other = Sampled(rows, prompts, generate(prompts))
            without = self.lacking(trainer, other)
            total, dropped = total + need, dropped + len(without)
            for group in sorted(set(range(need)) - set(without))[: len(lacking)]:
                place = lacking.pop(0)
                for number in range(size):
                    sampled.put(place * size + number, other, group * size + number)
        kept = len(sampled.rows) // size
        counts = torch.tensor([[total, dropped, len(lacking), kept]], device=trainer.accelerator.device)
        total, dropped, unfilled, kept = trainer.accelerator.gather(counts).sum(0).tolist()
        for name, value in (("sampled", total / kept), ("dropped", dropped / total), ("unfilled", unfilled / kept)):
            trainer._metrics["train"][f"dynamic_sampling/{name}"].append(value)

    def lacking(self, trainer: ComposedGRPOTrainer, sampled: Sampled) -> list[int]:
        """The numbers of the groups without a signal."""
        columns = {name: [row[name] for row in sampled.rows] for name in sampled.rows[0] if name != "prompt"}
        told = {"prompts": sampled.prompts, "completion_ids": sampled.completion_ids, "trainer_state": trainer.state}
        completions = list(sampled.completions)  # the first reward restores the thinking in it, for all of them
        found = [reward(completions=completions, **told, **columns) for reward in trainer.reward_funcs]
        values = torch.tensor([[math.nan if value is None else value for value in one] for one in found]).double()
        if self.by == "grade":
            [number, *_] = [i for i, reward in enumerate(trainer.reward_funcs) if declared(reward).grades]
            values = values[number]
        else:
            weights = trainer.reward_weights.cpu().double().unsqueeze(1)
            values = torch.where(values.isnan().all(0), math.nan, (weights * values).nansum(0))
        return without_signal(values.view(-1, trainer.num_generations))


def without_signal(values: torch.Tensor) -> list[int]:
    """The numbers of the groups (groups, N) whose values are all one, those that are nan left out.

    >>> without_signal(torch.tensor([[1.0, 1.0], [0.0, 1.0], [torch.nan, 0.0], [torch.nan, torch.nan]]))
    [0, 2, 3]
    """
    low, high = values.nan_to_num(math.inf).amin(1), values.nan_to_num(-math.inf).amax(1)
    return (high - low <= 1e-9).nonzero().flatten().tolist()


def most(trainer: ComposedGRPOTrainer, number: int) -> int:
    """The largest `number` of all processes."""
    return int(trainer.accelerator.gather(torch.tensor([number], device=trainer.accelerator.device)).max())


def drawn(trainer: ComposedGRPOTrainer, need: int, rounds: int) -> list[dict]:
    """This process's `need` rows of those that are drawn for a round of this step."""
    args, state, accelerator = trainer.args, trainer.state, trainer.accelerator
    micro_step = trainer._step % args.gradient_accumulation_steps  # TRL counts from 0 again when a run is resumed
    rng = random.Random(f"dynamic_sampling/{args.seed}/{state.global_step}/{micro_step}/{rounds}")
    rows, wanted = trainer.train_dataset, need * accelerator.num_processes
    numbers = rng.sample(range(len(rows)), wanted) if wanted <= len(rows) else rng.choices(range(len(rows)), k=wanted)
    return [rows[number] for number in numbers[need * accelerator.process_index :][:need]]

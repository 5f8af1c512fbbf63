"""One GRPO trainer for every method: TRL's GRPOTrainer with parts.

A part is a frozen dataclass that says what one method changes in a step. Every hook is optional:

    phases          which questions a run trains on first, and which next                     easy_first.py
    check           settings beside which the method would be something else: a ValueError before anything is loaded
    bind            a copy that knows what ends the thinking of the run's model
    check_rewards   the same as check for rewards, their weights and the tokenizer, before anything is sampled
    check_trainer   the same for what only the trainer knows: its rows, its rollout function
    limits          the number of tokens after which each rollout ends                        early_stop.py
    generating      what is open while rollouts are sampled                                   merged_rollouts.py
    resample        other rows and rollouts in the place of some, before they are rewarded    dynamic_sampling.py
    opening         first tokens that are given to the rollouts and not sampled               think_or_not.py
    advantages      (B,), in the place of TRL's                                               ddca.py, drpo.py, ...
    token_weights   (B, T) or (B, 1), 0 or more; the factors of all parts are multiplied      token_selection.py, ...
    kl_weights      (B,), in the place of `beta`                                              difficulty_kl.py
    micro_batches   those of one generation, in the place of TRL's                            group_by_length.py

TRL's loss takes advantages of shape (B, T), and for a weight w >= 0 each of its losses has the property
-min(c1 A w, c2 A w) = w * -min(c1 A, c2 A): a weighted token is a weighted advantage. So parts compose by
multiplication, and a combination is refused only for what it would mean. A run without parts is TRL's GRPOTrainer.

Each private method of TRL is overridden once, calls `super()` and copies nothing (tests/test_trl_contract.py).
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from datasets import Dataset
from peft import PeftModel
from trl import GRPOConfig, GRPOTrainer

from rlred.data.prompts import found_end
from rlred.evaluation.row_limits import stopping_at
from rlred.publish.run_card import OwnCard
from rlred.rewards.base import declared, length_of, masking
from rlred.training.masked_head import score_selected

# What TRL's forward pass takes beside token ids: the tensors of pictures.
IMAGES = (
    *("pixel_values", "image_grid_thw", "num_images", "pixel_attention_mask", "spatial_shapes", "num_tiles"),
    *("image_sizes", "token_type_ids", "mm_token_type_ids", "image_position_ids"),
)


@dataclass(frozen=True)
class Opening:
    """The first token of each rollout of this process, given and not sampled."""

    tokens: list[int]
    log_probs: list[float]
    """Under the policy."""
    proposal: torch.Tensor
    """(B,): the log-probability with which the token was chosen; the loss's importance weight is against it."""


@dataclass(frozen=True)
class Part:
    """What one method changes in a step; this one changes nothing."""

    gives_advantages = False
    """Whether its `advantages` take the place of TRL's: of such parts a run has one (rlred/checks/advantages.py)."""
    needs = ()
    """Columns of the questions that it reads."""

    def phases(self, questions: Dataset) -> list[tuple[Dataset, float]] | None:
        """Questions and the share of the run's rows that are about them, in order; the shares sum to 1."""
        return None

    def check(self, training: GRPOConfig, parts: "Sequence[Part]") -> None:
        """Raises `ValueError` for settings of GRPO, or other parts, beside which this would be something else."""

    def check_rewards(
        self, rewards: Sequence[Callable], weights: Sequence[float], tokenizer, parts: "Sequence[Part]"
    ) -> None:
        """Raises `ValueError` where rewards, their weights or the tokenizer do not fit."""

    def check_trainer(self, trainer: "ComposedGRPOTrainer") -> None:
        """Raises `ValueError` where the trainer's rows, rollout function or kinds of rewards do not fit."""

    def bind(self, end_of_thinking: str | None) -> "Part":
        """A copy that knows the text that ends the thinking of the run's model; None or "" where it has none."""
        return self

    def limits(self, trainer: "ComposedGRPOTrainer", rows: Sequence[dict]) -> list[int] | None:
        """The number of tokens after which the rollout of each row ends."""
        return None

    def generating(self, trainer: "ComposedGRPOTrainer") -> contextlib.AbstractContextManager | None:
        """A context that is open while rollouts are sampled."""
        return None

    def opening(self, trainer: "ComposedGRPOTrainer", prompt_ids: Sequence[list[int]]) -> Opening | None:
        """The first token of each rollout."""
        return None

    def resample(self, trainer: "ComposedGRPOTrainer", sampled: "Sampled", generate: Callable[[list], tuple]) -> None:
        """Puts other rows and their rollouts in the place of some; `generate` gives TRL's lists for other prompts."""

    def advantages(self, rollouts: "Rollouts") -> torch.Tensor | None:
        """(B,), in the place of TRL's."""
        return None

    def token_weights(self, rollouts: "Rollouts") -> torch.Tensor | None:
        """(B, T), or (B, 1) where all tokens of a completion weigh the same; 0 or more."""
        return None

    def kl_weights(self, rollouts: "Rollouts") -> torch.Tensor | None:
        """(B,), in the place of `beta`."""
        return None

    def micro_batches(self, trainer: "ComposedGRPOTrainer", batches: list[dict]) -> list[dict] | None:
        """The micro-batches of one generation, with the same rows in each update; None leaves TRL's."""
        return None


@dataclass
class Sampled:
    """This process's rows of a training batch and what was sampled for them: lists of TRL's, which it reads later."""

    rows: list[dict]
    prompts: list
    lists: tuple
    """What `GRPOTrainer._generate` returns: ids of the prompts, of the completions, masks, texts, log-probabilities."""

    @property
    def completion_ids(self) -> list[list[int]]:
        return self.lists[1]

    @property
    def completions(self) -> list:
        return self.lists[3]

    def put(self, place: int, other: "Sampled", number: int) -> None:
        """Writes row `number` of `other` into `place`."""
        pairs = zip((self.rows, self.prompts, *self.lists), (other.rows, other.prompts, *other.lists), strict=True)
        for mine, theirs in pairs:
            if isinstance(mine, list) and mine:  # some of TRL's are None, or empty
                mine[place] = theirs[number]


@dataclass
class Rollouts:
    """What a part may read: this process's rollouts, after TRL has rewarded them."""

    trainer: "ComposedGRPOTrainer"
    rows: Sequence[dict]
    output: dict
    """TRL's own: `completion_ids`, `completion_mask`, `advantages`, ..."""

    @property
    def mask(self) -> torch.Tensor:
        """(B, T): the tokens that the policy has said."""
        return self.output["completion_mask"] * self.output.get("tool_mask", 1)

    def reward(self, name: str) -> torch.Tensor:
        """(all rollouts of all processes,): the reward of that name; nan where it had no opinion."""
        count = len(self.rows) * self.trainer.accelerator.num_processes
        values = list(self.trainer._logs["rewards"][name])[-count:]
        return torch.tensor(values, device=self.trainer.accelerator.device)

    def own(self, values: torch.Tensor) -> torch.Tensor:
        """This process's part of the values of all rollouts."""
        return values.split(len(self.rows))[self.trainer.accelerator.process_index]

    def weighted_reward(self) -> torch.Tensor:
        """(B,): the sum that TRL makes of the rewards."""
        names, weights = self.trainer.reward_func_names, self.trainer.reward_weights.tolist()
        columns = [weight * self.own(self.reward(name)) for name, weight in zip(names, weights, strict=True)]
        return torch.stack(columns, dim=1).nansum(1)

    def grouped(self, values: torch.Tensor) -> torch.Tensor:
        """(groups, completions of one): the values (B,) of every process, or those of all rollouts."""
        if len(values) == len(self.rows):
            values = self.trainer.accelerator.gather(values)
        return values.view(-1, self.trainer.num_generations)

    def grades(self) -> torch.Tensor:
        """(groups, completions of one): 1 for a correct answer, 0 for an incorrect one, nan for an unknown one."""
        return self.grouped(self.reward(grade_name(self.trainer.reward_funcs)))

    def lengths(self) -> torch.Tensor:
        """(groups, completions of one): tokens, as the first reward counts them."""
        length, mask = length_of(self.trainer.reward_funcs[0]), self.output["completion_mask"].bool()
        ids = [row[own].tolist() for row, own in zip(self.output["completion_ids"], mask, strict=True)]
        return self.grouped(torch.tensor([float(length(row)) for row in ids], device=mask.device))

    def group_mean(self, name: str) -> torch.Tensor:
        """(B,): the mean over each rollout's group of the reward of that name; no opinion counts as 0."""
        size = self.trainer.num_generations
        groups = self.reward(name).nan_to_num(0.0).view(-1, size)
        return self.own(groups.mean(1).repeat_interleave(size))

    @cached_property
    def scores(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities and entropies (B, T) under the policy that sampled the rollouts; no gradient."""
        return self.trainer.score(self.output)

    def log(self, name: str, value: float) -> None:
        """Logs a figure, averaged over the processes, all of which must call this."""
        device = self.trainer.accelerator.device
        mean = self.trainer.accelerator.gather(torch.tensor([float(value)], device=device)).mean().item()
        self.trainer._metrics["train" if self.trainer.model.training else "eval"][name].append(mean)


def grade_name(rewards: Sequence[Callable]) -> str | None:
    """The name of the reward that is the grade itself; None where no reward is."""
    return next((declared(reward).__name__ for reward in rewards if declared(reward).grades), None)


def check_graded(rewards: Sequence[Callable], field: str, otherwise: str = "leave one of them out") -> None:
    """Raises `ValueError` unless one of the rewards is the grade itself; `otherwise` is for those that stand alone."""
    if grade_name(rewards) is not None:
        return
    for part in (part for reward in rewards for part in masking(reward)):
        # A grade beside it would bring the completions back that it masks (rlred/checks/audit.py).
        raise ValueError(
            f"{field} reads the reward 'correctness', and {part.__name__} has no other reward beside it; {otherwise}"
        )
    names = [declared(reward).__name__ for reward in rewards]
    raise ValueError(f"{field} needs the reward 'correctness' beside {names}; weight 0 will do")


def check_parts(parts: Sequence[Part], rewards: Sequence[Callable], training: GRPOConfig, tokenizer) -> None:
    """Raises `ValueError` for what a part refuses in rewards or tokenizer: as the trainer will, and before it is made.

    The parts are bound to the run's end of thinking, where it has a say.
    """
    weights = training.reward_weights or [1.0] * len(rewards)
    parts = tuple(part.bind(found_end(tokenizer)) for part in parts)
    for part in parts:
        part.check_rewards(rewards, weights, tokenizer, parts)


class PlainGRPOTrainer(OwnCard, GRPOTrainer):
    """`trl.GRPOTrainer`, whose README.md is that of a run."""


class ComposedGRPOTrainer(OwnCard, GRPOTrainer):
    """`trl.GRPOTrainer` with parts. Takes GRPOTrainer's arguments and `parts`.

    Raises `ValueError` for settings that a part refuses, and where two parts answer a hook that takes one answer.
    """

    _tag_names = ["trl", "grpo", "rlred"]

    def __init__(self, *args, parts: Sequence[Part] = (), **kwargs):
        super().__init__(*args, **kwargs)
        # Those that were not told what ends the thinking take what the tokenizer knows.
        self.parts = tuple(part.bind(found_end(self._tokenizer)) for part in parts)
        self._rows: list[dict] = []  # of the batch that is being sampled; TRL reads the same list
        self._limits: list[int] | None = None  # tokens, of this process's rollouts
        self._opening: Opening | None = None
        self._scores: tuple[torch.Tensor, torch.Tensor] | None = None  # of the policy, where TRL has scored a rollout
        self._scoring = False  # while a rollout is made
        for part in self.parts:
            part.check(self.args, self.parts)
            part.check_rewards(self.reward_funcs, self.reward_weights.tolist(), self._tokenizer, self.parts)
            part.check_trainer(self)

    def _prepare_inputs(self, generation_batch):
        before, inputs = self._buffered_inputs, super()._prepare_inputs(generation_batch)
        if self._buffered_inputs is not before and (made := self._only("micro_batches", self, self._buffered_inputs)):
            self._buffered_inputs, inputs = made, made[self._step % self.args.steps_per_generation]
        return inputs

    def _generate(self, prompts):
        found = super()._generate(prompts)
        if self.model.training:
            for part in self.parts:
                part.resample(self, Sampled(self._rows, prompts, found), super()._generate)
        return found

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        with contextlib.ExitStack() as stack:
            for context in self._answers("generating", self):
                stack.enter_context(context)
            return self._sample(super()._generate_single_turn, prompt_ids, *args, **kwargs)

    def _sample(self, generate, prompt_ids, *args, **kwargs):
        opening = self._opening = self._only("opening", self, prompt_ids)
        if opening is None and self._limits is None:
            return generate(prompt_ids, *args, **kwargs)
        limits = self._limits or [self.max_completion_length] * len(prompt_ids)
        if opening is not None:
            prompt_ids = [[*ids, token] for ids, token in zip(prompt_ids, opening.tokens, strict=True)]
        with self._stopping([max(1, limit - (opening is not None)) for limit in limits]):
            found = generate(prompt_ids, *args, **kwargs)
        if opening is not None:
            found = joined(opening, *found)
            # One that begins with the end of the sequence is over.
            limits = [1 if token in self.eos_token_ids else n for token, n in zip(opening.tokens, limits, strict=True)]
        # transformers pads a row that has stopped; to TRL that is text, unless an end of sequence comes before it.
        return tuple(rows and [row[:n] for row, n in zip(rows, limits, strict=True)] for rows in found)

    def _stopping(self, limits: list[int]):
        if self._limits is None:
            return contextlib.nullcontext()
        engine = self.vllm_generation.llm if self.use_vllm else self.accelerator.unwrap_model(self.model_wrapped)
        return stopping_at(engine, limits)

    def _generate_and_score_completions(self, inputs):
        inputs = list(inputs)  # which `resample` writes into
        self._limits = self._only("limits", self, inputs)
        if self._limits is not None:  # for rewards that log lengths: a rollout that was stopped has none of its own
            cap = self.max_completion_length
            inputs = [
                {**row, "rollout_limit": n if n < cap else None} for row, n in zip(inputs, self._limits, strict=True)
            ]
        self._rows, self._opening, self._scores, self._scoring = inputs, None, None, True
        try:
            output = super()._generate_and_score_completions(inputs)
        finally:
            self._scoring = False
        rollouts = Rollouts(self, inputs, output)
        if self._opening is not None:
            if "old_per_token_logps" not in output:  # TRL leaves it out where it is the policy's own
                output["old_per_token_logps"] = rollouts.scores[0].clone()
            output["old_per_token_logps"][:, 0] = self._opening.proposal
        if (advantages := self._only("advantages", rollouts)) is not None:
            output["advantages"] = advantages
        if weights := self._answers("token_weights", rollouts):
            output["token_weights"] = math.prod(weights[1:], start=weights[0])
            output["advantages"] = output["advantages"].unsqueeze(1) * output["token_weights"]
        if (weights := self._only("kl_weights", rollouts)) is not None:
            output["kl_weights"] = weights
        return output

    def _get_per_token_logps_and_entropies(self, model, *args, **kwargs):
        """TRL's, whose first pass over a rollout is kept with its entropies: no part has to score it again."""
        if not (self._scoring and self._scores is None and model is self.model):
            return super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        found = super()._get_per_token_logps_and_entropies(model, *args, **{**kwargs, "compute_entropy": True})
        self._scores = found[0].clone(), found[1]
        return found

    def _compute_loss(self, model, inputs):
        if "selected" in inputs:
            whole = self.accelerator.unwrap_model(model)
            backbone = (whole.get_base_model() if isinstance(whole, PeftModel) else whole).base_model
            sampled = inputs["sampled_log_probs"], inputs["sampled_entropies"]
            model = score_selected(model, backbone, inputs["selected"], *sampled)
        beta = self.beta
        if "kl_weights" in inputs:
            self.beta = _PerRow(inputs["kl_weights"])
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self.beta = beta

    @torch.no_grad()
    def score(self, output: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities and entropies (B, T) of a rollout batch under the policy."""
        # TRL has scored it itself where it needs the old log-probabilities, as with vLLM. Without them its first pass
        # may have been the reference's.
        if "old_per_token_logps" in output and self._scores is not None:
            return self._scores
        log_probs, entropies, _ = self._get_per_token_logps_and_entropies(
            self.model,
            torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1),
            torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1),
            output["completion_ids"].size(1),
            batch_size=self.args.per_device_train_batch_size,
            compute_entropy=True,
            **{name: output[name] for name in IMAGES if name in output},
        )
        return log_probs, entropies

    def _answers(self, hook: str, *args) -> list:
        answers = [getattr(part, hook)(*args) for part in self.parts]
        return [answer for answer in answers if answer is not None]

    def _only(self, hook: str, *args):
        answers = self._answers(hook, *args)
        if len(answers) > 1:
            raise ValueError(f"parts: {len(answers)} of them give {hook}, and only one can; leave the others out")
        return answers[0] if answers else None


class _PerRow:
    """A KL weight for each row, standing where TRL has one number: it multiplies the KL of every token."""

    def __init__(self, weights: torch.Tensor):
        self.weights = weights  # (B,)

    def __ne__(self, other):
        return True  # TRL asks whether there is a KL term at all

    def __mul__(self, per_token_kl: torch.Tensor) -> torch.Tensor:
        return self.weights.unsqueeze(1) * per_token_kl


def joined(opening: Opening, completion_ids, log_probs) -> tuple[list[list[int]], list[list[float]] | None]:
    """Completions that begin with their given tokens; the log-probabilities likewise, where the engine gives any."""
    ids = [[token, *rest] for token, rest in zip(opening.tokens, completion_ids, strict=True)]
    return ids, log_probs and [[first, *rest] for first, rest in zip(opening.log_probs, log_probs, strict=True)]

"""Think or not: a policy learns for which questions it can answer at once, with `</think>` as its first token.

    AdaptThink   forces the choice: half of each group's rollouts begin with `</think>`, half are kept from it. The
                 importance weight of the first token is against that mixture, so the policy learns of both answers,
                 however rarely it gives one of them by itself. The reward itself is the advantage.
    Thinkless    leaves the choice to the policy, and gives the first token, which decides, a loss of its own: averaged
                 with the hundreds that follow, it would hardly be felt after a long thought.

Both stand on GRPOTrainer's own loss: what it reads (`old_per_token_logps`, `advantages`) is set here.
"""

import logging
import math
from dataclasses import dataclass

import torch
from trl import GRPOConfig

from rewards.adapt_think import skips_thinking
from rewards.correctness import text_of
from rlred.trainer import BudgetGRPOTrainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ThinkOrNot:
    """How the first token is sampled and weighed. Raises `ValueError` for a value out of range.

    >>> ThinkOrNot(baseline="group", forced=False, control_weight=0.001).control_weight
    0.001
    """

    forced: bool = True
    """Half of each group begins with `</think>`, half is kept from it (AdaptThink)."""
    start: str | None = None
    """The token that each thinking half begins with, as AdaptThink's "Alright"; None: what the policy samples."""
    baseline: str = "reward"
    """`reward`: the reward is the advantage (AdaptThink, whose reward has its own baseline); `group`: TRL's."""
    control_weight: float | None = None
    """Weight of the first token's loss beside the mean of the others' (Thinkless, 0.001); None: a token like others."""
    end_of_thinking: str | None = None
    """The token that ends the thinking, which the prompt has opened; None: the run's."""

    def __post_init__(self):
        if self.baseline not in ("reward", "group"):
            raise ValueError(f"think_or_not.baseline must be 'reward' or 'group', got {self.baseline!r}")
        if self.control_weight is not None and not 0 <= self.control_weight < math.inf:
            raise ValueError(f"think_or_not.control_weight must be a number, 0 or more, got {self.control_weight!r}")
        if self.start is not None and not self.forced:
            raise ValueError(f"think_or_not.start={self.start!r} is only for forced rollouts; leave it out")

    def check(self, training: GRPOConfig, stop_decided: bool) -> None:
        """Raises `ValueError` for settings of GRPO beside which this would be something else; warns of a tight clip."""
        if self.control_weight is not None and training.loss_type != "grpo":
            raise ValueError(
                f"loss_type={training.loss_type!r}: think_or_not.control_weight stands beside the mean of each "
                "completion's other tokens; set loss_type to 'grpo'"
            )
        if not self.forced:
            return
        if training.num_generations % 2:
            raise ValueError(f"num_generations={training.num_generations}: forced halves need an even number")
        if stop_decided:
            raise ValueError("stop_decided=True: its limits do not know of forced first tokens; set it to false")
        if training.use_vllm and training.vllm_mode != "colocate":
            raise ValueError(
                f"vllm_mode={training.vllm_mode!r}: TRL sends one prompt for a whole group there, and forced halves "
                "begin differently; use 'colocate'"
            )
        high = training.epsilon if training.epsilon_high is None else training.epsilon_high
        if training.importance_sampling_level == "token" and high < 1:
            logger.warning(
                "epsilon_high=%g: the first token's ratio to halves is p / 0.5, so no p is raised above %.2g; use 1.0",
                high,
                (1 + high) / 2,
            )


def token_of(tokenizer, field: str, text: str) -> int:
    """The id of a text that is one token. Raises `ValueError` where it is not."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ValueError(f"think_or_not.{field}={text!r} must be one token of this tokenizer, but is {len(ids)}")
    return ids[0]


def first_tokens(
    logits: torch.Tensor, skip: torch.Tensor, end: int, start: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """First tokens (B,) and the log-probability (B,) with which the forced halves choose them.

    `logits` (B, V) are the policy's at the first position; rows of `skip` (B,) get `end`, with log 1/2. The others get
    `start`, with log 1/2 too, or else a token from the policy without `end`, with log (1/2 p(token) / (1 - p(end))).

    >>> logits = torch.tensor([[0.5, 0.25, 0.25]]).log().repeat(2, 1)
    >>> tokens, log_probs = first_tokens(logits, torch.tensor([True, False]), end=0)
    >>> tokens[0].item(), round(log_probs.exp()[0].item(), 3), round(log_probs.exp()[1].item(), 3)
    (0, 0.5, 0.25)
    """
    others = logits.clone()
    if start is None:
        others[:, end] = -math.inf
    else:
        others[:] = -math.inf
        others[:, start] = 0.0
    log_probs = others.log_softmax(-1)
    tokens = torch.where(skip, end, torch.multinomial(log_probs.exp(), 1).squeeze(1))
    own = log_probs.gather(1, tokens.unsqueeze(1)).squeeze(1)
    return tokens, math.log(0.5) + own.masked_fill(skip, 0.0)


def decoupled(advantages: torch.Tensor, mask: torch.Tensor, control_weight: float) -> torch.Tensor:
    """Advantages (B, T) under which a mean over a completion's n tokens is `control_weight` * first + mean of others.

    Each token's loss is proportional to its advantage: the first's is multiplied by n * control_weight, the others' by
    n / (n - 1).

    >>> decoupled(torch.tensor([1.0]), torch.ones(1, 4), 0.5).tolist()
    [[2.0, 1.3333333730697632, 1.3333333730697632, 1.3333333730697632]]
    """
    n = mask.sum(1, keepdim=True)
    weights = (n / (n - 1).clamp(min=1)).repeat(1, mask.size(1))
    weights[:, 0] = n[:, 0] * control_weight
    return advantages.unsqueeze(1) * weights


class ThinkOrNotGRPOTrainer(BudgetGRPOTrainer):
    """`BudgetGRPOTrainer` for a policy that chooses by its first token whether to think.

    Logs `think_or_not/skipped`, the share of rollouts without thinking, and with forced halves, where that is a half,
    `think_or_not/skip_probability`, the policy's own probability of it, averaged over the prompts.
    """

    _tag_names = ["trl", "grpo", "rlred"]

    def __init__(self, *args, think_or_not: ThinkOrNot, **kwargs):
        super().__init__(*args, **kwargs)
        think_or_not.check(self.args, self.stop_decided)
        self.think_or_not = think_or_not
        if think_or_not.end_of_thinking is not None:
            self.end_of_thinking = think_or_not.end_of_thinking
        self._end = token_of(self._tokenizer, "end_of_thinking", self.end_of_thinking or "")
        self._start = None if think_or_not.start is None else token_of(self._tokenizer, "start", think_or_not.start)
        self._proposal: torch.Tensor | None = None  # log-probabilities of this batch's first tokens when forced
        self._own_rewards: torch.Tensor | None = None  # of this process's rollouts

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, **kwargs):
        if not (self.think_or_not.forced and self.model.training):
            return super()._generate_single_turn(prompt_ids, images, multimodal_fields, num_generations, **kwargs)
        tokens, log_probs = self._force(prompt_ids, num_generations)
        opened = [[*ids, token] for ids, token in zip(prompt_ids, tokens, strict=True)]
        rests, sampled = super()._generate_single_turn(opened, images, multimodal_fields, num_generations, **kwargs)
        # One that begins with the end of the sequence is over; none is longer than the cap.
        cuts = [1 if token in self.eos_token_ids else self.max_completion_length for token in tokens]
        completion_ids = [[t, *rest][:cut] for t, rest, cut in zip(tokens, rests, cuts, strict=True)]
        if sampled is not None:
            sampled = [[p, *rest][:cut] for p, rest, cut in zip(log_probs, sampled, cuts, strict=True)]
        return completion_ids, sampled

    @torch.no_grad()
    def _force(self, prompt_ids, num_generations: int) -> tuple[list[int], list[float]]:
        """The first token of each rollout, and its log-probability under the policy; keeps that of the mixture."""
        device = self.accelerator.device
        inputs = self._tokenizer.pad({"input_ids": prompt_ids}, padding_side="left", return_tensors="pt").to(device)
        logits = self.model(**inputs, logits_to_keep=1).logits[:, -1].float() / self.temperature  # (B, V)
        number = torch.arange(len(prompt_ids), device=device) + self.accelerator.process_index * len(prompt_ids)
        skip = number % num_generations < num_generations // 2
        tokens, self._proposal = first_tokens(logits, skip, self._end, self._start)
        log_probs = logits.log_softmax(-1)
        self._log_metric("think_or_not/skip_probability", log_probs[:, self._end].exp().mean().item())
        return tokens.tolist(), log_probs.gather(1, tokens.unsqueeze(1)).squeeze(1).tolist()

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)  # of all processes
        skipped = [skips_thinking(text_of(text), self.end_of_thinking) for text in completions]
        self._log_metric("think_or_not/skipped", sum(skipped) / len(skipped))
        start = self.accelerator.process_index * len(prompts)
        own = rewards[start : start + len(prompts)]
        self._own_rewards = (own * self.reward_weights.to(own.device)).nansum(1)
        return rewards

    def _generate_and_score_completions(self, inputs):
        self._proposal = None
        output = super()._generate_and_score_completions(inputs)
        if self._proposal is not None:
            if "old_per_token_logps" not in output:  # TRL leaves it out where it is the policy's own
                output["old_per_token_logps"] = self._score(output)
            output["old_per_token_logps"][:, 0] = self._proposal
        if self.think_or_not.baseline == "reward":
            output["advantages"] = self._own_rewards
        if self.think_or_not.control_weight is not None:
            mask = output["completion_mask"]
            output["advantages"] = decoupled(output["advantages"], mask, self.think_or_not.control_weight)
        return output

    @torch.no_grad()
    def _score(self, output) -> torch.Tensor:
        """Log-probabilities (completions, tokens) under the policy that sampled them."""
        log_probs, _, _ = self._get_per_token_logps_and_entropies(
            self.model,
            torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1),
            torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1),
            output["completion_ids"].size(1),
            batch_size=self.args.per_device_train_batch_size,
        )
        return log_probs

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
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from trl import GRPOConfig

from rlred.data.prompts import decode
from rlred.rewards.adapt_think import skips_thinking
from rlred.tokens import token_of
from rlred.training.token_selection import TokenSelection
from rlred.training.trainer import ComposedGRPOTrainer, Opening, Part, Rollouts

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ThinkOrNot(Part):
    """How the first token is sampled and weighed. Raises `ValueError` for a value out of range.

    Logs `think_or_not/skipped`, the share of rollouts without thinking, and with forced halves, where that is a half,
    `think_or_not/skip_probability`, the policy's own probability of it, averaged over the prompts.

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

    @property
    def gives_advantages(self) -> bool:
        return self.baseline == "reward"

    def check(self, training: GRPOConfig, parts: Sequence[Part]) -> None:
        """Raises `ValueError` for settings beside which this would be something else; warns of a tight clip."""
        if any(isinstance(part, TokenSelection) for part in parts):
            raise ValueError(
                "think_or_not and selection: the first token carries the choice, and a selection may drop it; leave "
                "one of them out"
            )
        if self.control_weight is not None and training.loss_type != "grpo":
            raise ValueError(
                f"loss_type={training.loss_type!r}: think_or_not.control_weight stands beside the mean of each "
                "completion's other tokens; set loss_type to 'grpo'"
            )
        if not self.forced:
            return
        if training.num_generations % 2:
            raise ValueError(f"num_generations={training.num_generations}: forced halves need an even number")
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

    def bind(self, end_of_thinking: str | None) -> "ThinkOrNot":
        return self if self.end_of_thinking is not None else replace(self, end_of_thinking=end_of_thinking)

    def check_rewards(self, rewards, weights, tokenizer, parts) -> None:
        self.tokens(tokenizer)

    def check_trainer(self, trainer: ComposedGRPOTrainer) -> None:
        if self.forced and trainer.rollout_func is not None:
            raise ValueError("think_or_not.forced=True: the rollout function samples the first token; set false")

    def tokens(self, tokenizer) -> tuple[int, int | None]:
        """The ids of `end_of_thinking` and of `start`."""
        start = None if self.start is None else token_of(tokenizer, self.start, field="think_or_not.start")
        return token_of(tokenizer, self.end_of_thinking or "", field="think_or_not.end_of_thinking"), start

    @torch.no_grad()
    def opening(self, trainer: ComposedGRPOTrainer, prompt_ids: Sequence[list[int]]) -> Opening | None:
        """With forced halves: the end of thinking for the first half of each group, something else for the second."""
        if not (self.forced and trainer.model.training):
            return None
        device, (end, start) = trainer.accelerator.device, self.tokens(trainer._tokenizer)
        inputs = trainer._tokenizer.pad({"input_ids": prompt_ids}, padding_side="left", return_tensors="pt").to(device)
        logits = trainer.model(**inputs, logits_to_keep=1).logits[:, -1].float() / trainer.temperature  # (B, V)
        number = torch.arange(len(prompt_ids), device=device) + trainer.accelerator.process_index * len(prompt_ids)
        skip = number % trainer.num_generations < trainer.num_generations // 2
        tokens, proposal = first_tokens(logits, skip, end, start)
        log_probs = logits.log_softmax(-1)
        trainer._log_metric("think_or_not/skip_probability", log_probs[:, end].exp().mean().item())
        return Opening(tokens.tolist(), log_probs.gather(1, tokens.unsqueeze(1)).squeeze(1).tolist(), proposal)

    def advantages(self, rollouts: Rollouts) -> torch.Tensor | None:
        """The reward itself, where it is its own baseline."""
        tokenizer, mask = rollouts.trainer._tokenizer, rollouts.output["completion_mask"].bool()
        ids = [row[own].tolist() for row, own in zip(rollouts.output["completion_ids"], mask, strict=True)]
        texts = decode(tokenizer, ids, self.end_of_thinking)
        skipped = [skips_thinking(text, self.end_of_thinking) for text in texts]
        rollouts.log("think_or_not/skipped", sum(skipped) / len(skipped))
        return rollouts.weighted_reward() if self.baseline == "reward" else None

    def token_weights(self, rollouts: Rollouts) -> torch.Tensor | None:
        """The first token's own weight, where there is one."""
        if self.control_weight is None:
            return None
        return control_weights(rollouts.output["completion_mask"], self.control_weight)


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


def control_weights(mask: torch.Tensor, control_weight: float) -> torch.Tensor:
    """Weights (B, T) under which a mean over a completion's n tokens is `control_weight` * first + mean of the others.

    The first token's loss is multiplied by n * control_weight, the others' by n / (n - 1).

    >>> control_weights(torch.ones(1, 4), 0.5).tolist()
    [[2.0, 1.3333333730697632, 1.3333333730697632, 1.3333333730697632]]
    """
    n = mask.sum(1, keepdim=True)
    weights = (n / (n - 1).clamp(min=1)).repeat(1, mask.size(1))
    weights[:, 0] = n[:, 0] * control_weight
    return weights

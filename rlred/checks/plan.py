"""What a run will take, before it is started: memory per device, tokens and arithmetic per step.

    rlred plan --config recipes/l1_maxlen_r1_1.5b.yaml --devices 8 --strategy zero2

Counted from the shape of the model and the settings of the recipe; `Plan` says what is counted, and
rlred/runs/recipe_files.py reads the recipe. tests/test_plan.py holds the memory against a measured run on the CPU
(docs/scaling.md has the figures). The arithmetic is a lower bound of the time: decoding waits for memory more than it
computes.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from transformers import AutoConfig
from trl import GRPOConfig, ModelConfig, SFTConfig

from rlred.checks.audit import rollouts_per_step, sampled_modes
from rlred.data.budgets import BudgetSampler, asks_tokens
from rlred.evaluation.markdown import table
from rlred.tiny import resolve_model

STRATEGIES = ("ddp", "zero2", "zero3")
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "auto": 2, None: 4}
# TRL 1.16 computes logits in tiles of tokens x vocabulary. On a GPU its kernel works in place (read in its code, not
# measured); on the CPU the slope of the memory over the vocabulary says ten times a tile of float32 (docs/scaling.md).
TILE = (4096, 32_768)
CPU_TILES = 10
GIB = 2**30


@dataclass(frozen=True)
class Shape:
    """A decoder of the Llama and Qwen family: gated MLP, grouped attention.

    >>> round(SHAPES["1.5B"].parameters / 1e9, 2), round(SHAPES["1.5B"].lora_parameters(64) / 1e6)
    (1.78, 74)
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool = False

    @property
    def linear(self) -> list[tuple[int, int]]:
        """Inputs and outputs of a layer's linear modules: q, k, v, o, gate, up, down."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        mlp = [(self.hidden, self.intermediate)] * 2 + [(self.intermediate, self.hidden)]
        return [(self.hidden, query), (self.hidden, key), (self.hidden, key), (query, self.hidden), *mlp]

    @property
    def parameters(self) -> int:
        """All weights; norms and biases, a ten-thousandth of them, are left out."""
        return self.layers * sum(a * b for a, b in self.linear) + self.vocabulary * self.hidden * (2 - self.tied)

    def lora_parameters(self, rank: int) -> int:
        """Weights of an adapter on all linear modules of the layers."""
        return self.layers * sum(rank * (a + b) for a, b in self.linear)


SHAPES = {  # DeepSeek-R1-Distill-Qwen, from their config.json
    "1.5B": Shape(28, 1536, 8960, 12, 2, 128, 151_936),
    "7B": Shape(28, 3584, 18_944, 28, 4, 128, 152_064),
    "32B": Shape(64, 5120, 27_648, 40, 8, 128, 152_064),
}


EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")  # of which a token meets few


def shape_of(name: str) -> Shape:
    """The shape of a preset, a local model or a Hub id. Raises `ValueError` where its config cannot be read."""
    if name in SHAPES:
        return SHAPES[name]
    try:
        config = AutoConfig.from_pretrained(resolve_model(name)).get_text_config()
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"--model {name!r}: no config, and none of {', '.join(SHAPES)}: {reason}") from error
    if experts := [count for key in EXPERTS if (count := getattr(config, key, None) or 0) > 1]:
        raise ValueError(f"--model {name!r}: its weights are a mixture of {experts[0]} experts, which is not counted")
    try:
        return Shape(
            config.num_hidden_layers,
            config.hidden_size,
            config.intermediate_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
            config.vocab_size,
            config.tie_word_embeddings,
        )
    except AttributeError as error:
        raise ValueError(f"--model {name!r}: its config has no {error.name!r}, as Llama's and Qwen's have") from None


def mean_budget(sampler: BudgetSampler) -> float:
    """The mean of the budgets that are drawn, in tokens: (b - a) / ln(b / a) of log-uniform ones, up to rounding.

    >>> mean_budget(BudgetSampler(16, 80)), round(mean_budget(BudgetSampler(32, 320, "log_uniform")), 1)
    (48.0, 125.1)
    >>> mean_budget(BudgetSampler(distribution="choices", choices=(10, 10, 40)))
    20.0
    """
    low, high = sampler.bounds
    if sampler.distribution == "choices":
        return fmean(sampler.choices)
    return (high - low) / math.log(high / low) if sampler.distribution == "log_uniform" else (low + high) / 2


@dataclass(frozen=True)
class Plan:
    """Bytes per device and tokens per step of a run; every figure is counted from the shape and the settings.

    `prompt_length` includes the placeholders of pictures; the vision tower, smaller than the decoder, is not counted.
    """

    shape: Shape
    arguments: Any
    training: GRPOConfig | SFTConfig
    model: ModelConfig
    devices: int = 1
    strategy: str = "ddp"
    prompt_length: int = 256

    def __post_init__(self):
        for name in ("devices", "prompt_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be 1 or more, got {getattr(self, name)}")
        if self.strategy not in STRATEGIES:
            raise ValueError(f"--strategy must be one of {', '.join(STRATEGIES)}, got {self.strategy!r}")

    @property
    def generates(self) -> bool:
        """Whether a step samples its completions (GRPO) or reads them (SFT)."""
        return isinstance(self.training, GRPOConfig)

    @property
    def rollouts(self) -> int:
        """Completions per optimiser step, over all devices."""
        training = self.training
        if not self.generates:
            return training.per_device_train_batch_size * training.gradient_accumulation_steps * self.devices
        return rollouts_per_step(training) * self.devices // training.world_size

    @property
    def row_length(self) -> int:
        """Tokens of prompt and completion at most."""
        if self.generates:
            return self.prompt_length + self.training.max_completion_length
        cap, limit = getattr(self.arguments, "max_completion_length", None), self.training.max_length
        lengths = [self.prompt_length + cap] if cap else []
        return min([*lengths, limit] if limit else lengths, default=self.prompt_length)

    @property
    def rows_of_a_pass(self) -> int:
        """Rows of the largest forward pass on one device: of a step, or of the hindsight start before it."""
        own = self.training.per_device_train_batch_size
        if not getattr(self.arguments, "hindsight", False):
            return own
        start = self.arguments.make_hindsight()
        return max(own, min(start.micro_batch_size, max(1, start.batch_size // self.devices)))

    def memory(self) -> dict[str, int]:
        """Bytes on one device, by part; generation and the training pass do not overlap, so the larger of them counts.

        weights      parameters x bytes of the dtype; a share of them with zero3
        reference    as many again, where all weights are trained and beta is not 0
        adapter      what is trained, its gradient and Adam's two moments: 4 x 4 bytes each (LoRA is kept in float32);
                     gradient and moments are shared out with zero2 and zero3
        logits       a tile of at most 4,096 tokens x 32,768 words x bytes; ten of them in float32 on the CPU
        activations  micro-batch (the larger of the step's and the start's) x tokens x bytes x (layers x hidden with
                     checkpointing, and one layer's inside)
        key-value    rollouts of the device x tokens x layers x 2 x key-value width x bytes, where HF generates
        """
        shape, training = self.shape, self.training
        size = BYTES.get(self.model.dtype, 4)
        weights = shape.parameters * size // (self.devices if self.strategy == "zero3" else 1)
        lora = self.model.use_peft
        trained = shape.lora_parameters(self.model.lora_r) if lora else shape.parameters
        each = 4 if lora else size
        shared = self.devices if self.strategy != "ddp" else 1
        own = trained * each if lora else 0  # without an adapter the trained weights are the weights
        rows, tokens = self.rows_of_a_pass, self.row_length
        reference = weights if not lora and getattr(training, "beta", 0.0) else 0
        working = 2 if training.bf16 or training.fp16 else size
        inside = 4 * shape.hidden + 2 * shape.heads * shape.head_dim + 4 * shape.intermediate
        checkpointed = training.activation_checkpointing
        per_token = shape.layers * shape.hidden + inside if checkpointed else shape.layers * (shape.hidden + inside)
        sampled = training.per_device_train_batch_size
        rollouts = sampled * training.steps_per_generation if self.generates and not training.use_vllm else 0
        tile = min(rows * tokens, TILE[0]) * min(shape.vocabulary, TILE[1])
        cache = rollouts * tokens * shape.layers * 2 * shape.kv_heads * shape.head_dim * working
        return {
            "weights": weights,
            **({"reference": reference} if reference else {}),
            "adapter, gradient, Adam" if lora else "gradient, Adam": own + 3 * trained * each // shared,
            "logits": tile * (4 * CPU_TILES if training.use_cpu else working),
            "activations": rows * tokens * per_token * working,
            "key-value cache": cache,
        }

    def peak(self) -> int:
        """Bytes on one device at the worst moment, without what vLLM is given (`vllm_gpu_memory_utilization`)."""
        parts = self.memory()
        cache = parts.pop("key-value cache")
        passing = parts.pop("logits") + parts.pop("activations")
        return sum(parts.values()) + max(cache, passing)

    def longest(self) -> int:
        """Tokens that a step generates at most, every rollout to the cap; of SFT, those that it reads."""
        return self.rollouts * (self.training.max_completion_length if self.generates else self.row_length)

    def obedient(self) -> int | None:
        """Tokens that a step generates once every rollout uses its mean budget; None where none is asked for tokens."""
        if not hasattr(self.arguments, "make_sampler"):
            return None
        sampler = self.arguments.make_sampler()
        if not asks_tokens(sampled_modes(sampler)):
            return None
        return round(self.rollouts * mean_budget(sampler))

    def arithmetic(self) -> float:
        """Floating-point operations of a step of the longest completions.

        2 per weight and token to generate; 4 to train an adapter, 6 to train all weights; 2 more with checkpointing.
        """
        training = 4 if self.model.use_peft else 6
        recomputed = 2 if self.training.activation_checkpointing else 0
        sampled = 2 * self.longest() if self.generates else 0
        return self.shape.parameters * (sampled + (training + recomputed) * self.rollouts * self.row_length)


def report(plan: Plan, config: Path, tflops: float) -> str:
    """The plan as a table."""
    what, obedient = "rollouts" if plan.generates else "rows", plan.obedient()
    mean = "" if obedient is None else f", {obedient:,} at the mean budget"
    longest = "every rollout runs to the cap" if plan.generates else "every row is as long as it may be"
    memory = {**plan.memory(), "peak (the cache, or logits and activations)": plan.peak()}
    lines = [
        f"{config.name} on {plan.devices} device(s), {plan.strategy}: {plan.shape.parameters / 1e9:.2f} billion "
        f"weights, {plan.rollouts} {what} per step",
        "",
        *table(["per device", "GiB"], [[name, f"{value / GIB:.2f}"] for name, value in memory.items()]),
        "",
        f"Tokens per step: {plan.longest():,} where {longest}{mean}.",
        f"Arithmetic per step: {plan.arithmetic() / 1e15:.2f} PFLOP; at {tflops:g} TFLOP/s per device (assumed, "
        f"--tflops) {plan.arithmetic() / plan.devices / tflops / 1e12:.0f} s.",
    ]
    if plan.generates and plan.training.use_vllm:
        share = plan.training.vllm_gpu_memory_utilization
        lines.append(f"vLLM takes {100 * share:.0f} % of each device besides, if colocated.")
    if hasattr(plan.arguments, "budget_tokens"):
        lines.append("The vision tower is not counted; --prompt_length must include the pictures' tokens.")
    if plan.training.max_steps > 0:
        lines.append(f"{what.capitalize()} of the whole run: {plan.rollouts * plan.training.max_steps:,}.")
    return "\n".join(lines)

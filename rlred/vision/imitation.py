"""A start by imitation: the model learns the forms in which a gate can answer, before GRPO.

GRPO compares what is sampled. A model that asks for more every time, or never, has nothing to compare with, and its
gate does not learn. Here it is trained on the questions' own answers, given in the choices of a mix in turn: so each
becomes about as likely as it is frequent in the mix, whatever the question. When to choose which is left to GRPO.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from rlred.data.golds import one_of
from rlred.vision.gate import LookGate


def check_mix(gate: LookGate, mix: Sequence[str]) -> None:
    """Raises `ValueError` for a mix that is empty or has other choices than the gate's."""
    unknown = sorted(set(mix) - set(gate.choices))
    if unknown or not mix:
        raise ValueError(f"start_mix must name some of {', '.join(gate.choices)}, got {list(mix)!r}")


def imitate(
    model,
    gate: LookGate,
    rows: list[dict],
    *,
    steps: int,
    learning_rate: float,
    mix: Sequence[str],
    batch_size: int = 24,
) -> list[float]:
    """Trains a model's trainable weights for `steps` and returns the losses, mean nats per token, one a step.

    Rows are taken in their order, `batch_size` a step, from the first again after the last; the choices of `mix` take
    turns.
    """
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate)
    losses = []
    model.train()
    for step in range(steps):
        turns = range(step * batch_size, (step + 1) * batch_size)
        some = [rows[turn % len(rows)] for turn in turns]
        prompts = [[{"role": "user", "content": row["question"]}] for row in some]
        images, answers = [row["image"] for row in some], [one_of(row["solution"]) for row in some]
        choices = [mix[turn % len(mix)] for turn in turns]
        loss = loss_of(model, gate, gate.written(prompts, images, choices, answers), images)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def loss_of(model, gate: LookGate, glances, images) -> torch.Tensor:
    """The mean negative log-probability, in nats, of the tokens that the policy said in some glances."""
    rows = [glance.prompt_ids + glance.completion_ids for glance in glances]
    inputs = gate.tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt")
    inputs = {name: value.to(model.device) for name, value in {**inputs, **gate.vision(images)}.items()}
    said = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)  # (B, T)
    for row, glance in enumerate(glances):
        said[row, -len(glance.mask) :] = torch.tensor(glance.mask, dtype=torch.bool)
    logits = model(**inputs).logits[:, :-1][said[:, 1:]]
    return F.cross_entropy(logits.float(), inputs["input_ids"][said])

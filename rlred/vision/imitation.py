"""A start by imitation: the model learns the forms in which a gate can answer from its own answers in each of them.

GRPO compares what is sampled. A model that asks for more every time, or never, has nothing to compare with, and its
gate does not learn. Here questions are answered in each choice, and the model is trained on its answers to those that
it got right in all of them: so each choice becomes about as likely as the others, whatever the question, and when to
choose which is left to GRPO.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from rlred.vision.gate import LookGate


def imitate(
    model,
    gate: LookGate,
    rows: list[dict],
    correctness: Callable,
    *,
    steps: int,
    learning_rate: float,
    batch_size: int = 48,
    max_answer: int = 16,
) -> list[float]:
    """Trains a model's trainable weights for `steps` and returns the losses, mean nats per token, one a step.

    A step has `batch_size` answers. They are greedy, and those of the model as it was before the first step: of its
    later ones it would learn its own noise. Raises `ValueError` where the rows give too few questions that are right in
    every choice.
    """
    choices = gate.choices
    needed, found = max(1, batch_size // len(choices)), []
    model.eval()
    for start in range(0, len(rows), 64):
        some = [row for row in rows[start : start + 64] for _ in choices]
        images = [row["image"] for row in some]
        prompts = [[{"role": "user", "content": row["question"]}] for row in some]
        looks = choices * (len(some) // len(choices))
        glances = gate(model, prompts, images, looks, temperature=0.0, max_answer=max_answer)
        for first in range(0, len(some), len(choices)):
            group = list(zip(glances, images, strict=True))[first : first + len(choices)]
            if all(correctness.grade(glance.answer, some[first]["solution"]) for glance, _ in group):
                found.append(group)
        if len(found) >= steps * needed:
            break
    else:
        raise ValueError(
            f"start_steps={steps}: {len(found)} of {len(rows)} questions are right in every choice, and "
            f"{steps * needed} are needed; take fewer steps or more questions"
        )
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate)
    losses = []
    model.train()
    for step in range(steps):
        batch = [pair for group in found[step * needed : (step + 1) * needed] for pair in group]
        loss = loss_of(model, gate, [glance for glance, _ in batch], [image for _, image in batch])
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

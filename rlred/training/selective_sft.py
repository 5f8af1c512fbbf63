"""SFT on the tokens that matter: Rho-1's excess loss (2404.07965) and UPFT's prefixes (2503.02875).

Rho-1   A token is scored by how much more the model loses on it than a reference model that knows good text: excess =
        -log p + log p_ref. The highest share of each batch is trained on, loss = sum over them / (N * share); the rest
        is read as context. Noise has no excess: nobody can predict it. Dynamic, the scores are those of the model as it
        is at each step (`HighestExcess`); static, those of the model before training (`static_labels`).
UPFT    The first t tokens of one sample of the model's own for each question, correct or not, without an
        end-of-sequence token behind them; a share of whole samples beside them, so that it does not forget how to end.

Either way the choice is in `labels`: -100 is not trained on, and TRL divides by the labels that are left.
"""

import functools
import random
from collections.abc import Sequence

import torch
from datasets import Dataset
from peft import PeftModel
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
from trl.trainer.utils import add_fused_lm_head

from rlred.training.token_selection import TokenSelection, gather_uneven, select


@torch.no_grad()
def token_log_probs(model, batch: dict) -> torch.Tensor:
    """Log-probabilities (rows, tokens - 1) of each next label under a model with TRL's fused head; 0 at label -100."""
    was_training = model.training
    model.eval()
    output = model(**batch, fused_lm_head=True)
    model.train(was_training)
    return output.log_probs


def excess(model, reference, batch: dict) -> torch.Tensor:
    """Excess loss (rows, tokens - 1): what the model loses on a token beyond what the reference does."""
    return token_log_probs(reference, batch) - token_log_probs(model, batch)


def with_fused_head(model):
    """The model, ready for `token_log_probs`. TRL's trainers have made theirs so already."""
    add_fused_lm_head(model.get_base_model() if isinstance(model, PeftModel) else model)
    return model


class HighestExcess:
    """Dynamic Rho-1, the `choose` of a `SupervisedTrainer`: a share of each update's tokens, by their excess loss.

    `selection` says how many (`fraction`), and `keep`: `top`, or `bottom` and `random` as controls. An update is all
    that goes into it, of every process and micro-batch. Costs a forward pass of both models beside TRL's own. Raises
    `ValueError` for a reference with another vocabulary than the model's.
    """

    def __init__(self, selection: TokenSelection, reference, model):
        if reference.config.vocab_size != model.config.vocab_size:
            raise ValueError(
                f"reference: its vocabulary of {reference.config.vocab_size} is not the model's "
                f"{model.config.vocab_size}; it must be a model with the same tokenizer"
            )
        self.selection, self.reference = selection, with_fused_head(reference)

    def __call__(self, trainer, batches: list[dict]) -> None:
        """Sets the labels of the other tokens to -100."""
        reference = self.reference.to(trainer.args.device)
        scores = torch.cat([excess(trainer.model, reference, batch).flatten() for batch in batches])
        mask = torch.cat([(batch["labels"][:, 1:] != -100).flatten() for batch in batches])
        selected = select(
            self.selection,
            scores,
            scores,
            mask,
            gather=functools.partial(gather_uneven, trainer.accelerator),
            rank=trainer.accelerator.process_index,
            seed=trainer.args.seed + trainer.state.global_step,
        )
        sizes = [batch["labels"][:, 1:].numel() for batch in batches]
        for batch, part in zip(batches, selected.split(sizes), strict=True):
            labels = batch["labels"]
            labels[:, 1:] = labels[:, 1:].masked_fill(~part.view_as(labels[:, 1:]), -100)


def static_labels(rows: Dataset, model, reference, selection: TokenSelection, *, pad_token_id: int, batch_size=32):
    """The rows with `labels` of the tokens that `selection` keeps of all of them, scored once (static Rho-1).

    `rows` have `input_ids` and may have `labels`; any trainer that reads `labels` can train on the result.
    """
    collate = DataCollatorForLanguageModeling(pad_token_id)
    device = next(model.parameters()).device
    scores, masks = [], []
    for start in range(0, len(rows), batch_size):
        batch = collate([rows[index] for index in range(start, min(start + batch_size, len(rows)))])
        batch = {name: value.to(device) for name, value in batch.items()}
        for values, labels in zip(excess(model, reference, batch), batch["labels"][:, 1:], strict=True):
            scores.append(values.cpu())
            masks.append((labels != -100).cpu())
    selected = select(selection, torch.cat(scores), torch.cat(scores), torch.cat(masks))
    parts = selected.split([len(mask) for mask in masks])
    labels = [
        [-100] + [token if keep else -100 for token, keep in zip(row["input_ids"][1:], part.tolist(), strict=False)]
        for row, part in zip(rows, parts, strict=True)
    ]
    rows = rows.remove_columns("labels") if "labels" in rows.column_names else rows
    return rows.add_column("labels", labels)


def prefix_rows(
    prompt_ids: Sequence[list[int]],
    whole_prompt_ids: Sequence[list[int]],
    completion_ids: Sequence[list[int]],
    *,
    length: int,
    full_share: float,
    seed: int = 0,
) -> list[dict]:
    """Rows (`input_ids`, `completion_mask`) of UPFT: the first `length` tokens of each completion behind its prompt.

    A share `full_share` of the rows, drawn at random, has the whole completion behind its `whole_prompt_ids` instead.
    A completion that is not longer than `length` loses its end, which a prefix must not have. Raises `ValueError` for
    a length below 1 or a share out of range.

    >>> prefix_rows([[1, 2]], [[1, 2]], [[5, 6, 7, 0]], length=2, full_share=0.0)
    [{'input_ids': [1, 2, 5, 6], 'completion_mask': [0, 0, 1, 1]}]
    """
    if length < 1:
        raise ValueError(f"prefix_length must be 1 or more, got {length}")
    if not 0 <= full_share <= 1:
        raise ValueError(f"full_share must be from 0 to 1, got {full_share}")
    rng = random.Random(f"prefix/{seed}")
    rows = []
    for prefix_prompt, whole_prompt, ids in zip(prompt_ids, whole_prompt_ids, completion_ids, strict=True):
        whole = rng.random() < full_share
        prompt = whole_prompt if whole else prefix_prompt
        kept = list(ids) if whole else list(ids[: min(length, len(ids) - 1)])
        rows.append({"input_ids": [*prompt, *kept], "completion_mask": [0] * len(prompt) + [1] * len(kept)})
    return rows

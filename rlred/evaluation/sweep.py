"""Ask every question under every condition and record what each completion did."""

import contextlib
import functools
import hashlib
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from datasets import Dataset
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteriaList

from rlred.data.models import NEUTRAL
from rlred.data.prompts import Conversation, Prompt, decode, end_ids, marker_errors, prompt_ids
from rlred.data.question_table import Rows
from rlred.evaluation.conditions import Condition
from rlred.evaluation.per_prompt_cap import longest
from rlred.evaluation.row_limits import ShowTokens, StopAt
from rlred.evaluation.sampling import Grading, Sampling
from rlred.files import mended_lines, whole_lines, write_text
from rlred.rewards.correctness import boxed_answer
from rlred.rewards.length import find_end

LABELS = ("mode", "budget", "effort", "ratio")  # what a condition may say of its outcomes


class Engine(Protocol):
    """Something other than a transformers model that completes a batch of prompts: rlred/evaluation/vllm.py has two."""

    stops: set[int]

    def complete_batch(
        self, prompt_ids: list[list[int]], limits: list[int], temperature: float, seed: int
    ) -> list[list[int]]:
        """Completion ids, end-of-sequence token included; row i ends after `limits[i]` tokens."""


@torch.no_grad()
def complete(
    model: PreTrainedModel | Engine,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    limits: Sequence[int] | None = None,
    path: Path | None = None,
    description: str = "sampling",
) -> list[list[int]]:
    """Completion ids of prompts (conversations, or ids to go on from), end-of-sequence token included, unpadded.

    Prompts are batched in the given order: put those that will get similar lengths side by side. Each batch is seeded
    by itself and the caller's random state stays as it was. `limits` end single rows before the sampling's
    `max_completion_length`; up to there they are what they would have been. With `path`, every batch is saved there as
    it is done, and those that are already there are not generated again. Raises `ValueError` when that file was made
    from other prompts or settings.
    """
    completions: list[list[int]] = []
    size, seed = sampling.batch_size, sampling.seed
    if path is not None:
        settings = {"max_completion_length": sampling.max_completion_length, "batch_size": size, "seed": seed}
        own = {} if limits is None else {"limits": list(limits)}
        completions = open_completions(path, {**settings, "temperature": sampling.temperature, **own}, prompts)
    limits = [sampling.max_completion_length] * len(prompts) if limits is None else limits
    whole = len(completions) == len(prompts)
    with contextlib.nullcontext() if whole else ready(model, tokenizer) as complete_batch:

        def complete_from(start: int) -> list[list[int]]:
            batch = [prompt_ids(tokenizer, prompt) for prompt in prompts[start : start + size]]
            return complete_batch(batch, limits[start : start + size], sampling.temperature, seed + start)

        return in_batches(completions, range(0, len(prompts), size), complete_from, path, description)


def in_batches(done: list, starts: range, make: Callable[[int], list], path: Path | None, description: str) -> list:
    """`done` and what `make` gives for each of the `starts` that is not in it; with `path`, a line for each batch."""
    for start in tqdm(starts[-(-len(done) // starts.step) :], desc=description, leave=False):
        made = make(start)
        done += made
        if path is not None:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(made) + "\n")
    return done


@contextlib.contextmanager
def seeded(seed: int):
    """Torch's random numbers begin at `seed`, on the GPU too, and go on after it as they were."""
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if torch.cuda.is_available() else []):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def ready(model: PreTrainedModel | Engine, tokenizer: PreTrainedTokenizerBase):
    """The function that completes a batch, with the model in the state for it: no dropout, its adapter folded in."""
    if not isinstance(model, torch.nn.Module):
        yield model.complete_batch
        return
    was_training = model.training
    model.eval()
    try:
        with merged_adapter(model):
            yield functools.partial(_complete_batch, model, tokenizer)
    finally:
        model.train(was_training)


def _complete_batch(model, tokenizer, prompt_ids, limits, temperature, seed) -> list[list[int]]:
    device = next(model.parameters()).device
    sampling = {"do_sample": False} if temperature == 0 else {"do_sample": True, "temperature": temperature, "top_k": 0}
    # The tokenizer's own padding side fits, most often, and a completion follows its prompt.
    inputs = tokenizer.pad({"input_ids": prompt_ids}, padding_side="left", return_tensors="pt")
    prompt_length = inputs["input_ids"].shape[1]
    with seeded(seed):
        shown = ShowTokens(max(limits))
        output = model.generate(
            **inputs.to(device),
            max_new_tokens=max(limits),
            stopping_criteria=StoppingCriteriaList([StopAt(prompt_length, limits), shown]),
            pad_token_id=tokenizer.pad_token_id,
            synced_gpus=False,  # other processes sample rows of their own, or none (rlred/evaluation/shares.py)
            top_p=None if temperature == 0 else 1.0,
            **NEUTRAL,
            **sampling,
        )
    shown.bar.close()
    stops = stop_ids(model, tokenizer)
    # A row that has stopped is padded, and the padding may be an end of sequence.
    completions = [ids[:limit] for ids, limit in zip(output[:, prompt_length:].tolist(), limits, strict=True)]
    ends = [next((i + 1 for i, token in enumerate(ids) if token in stops), len(ids)) for ids in completions]
    return [ids[:end] for ids, end in zip(completions, ends, strict=True)]


def open_completions(path: Path, settings: dict, prompts: Sequence[Prompt | dict]) -> list:
    """The completions that `path` holds so far; a new file with its settings where there is none.

    A batch whose line was cut off by a crash is taken out of the file, and all from a damaged line on. Raises
    `ValueError` when the file was made from
    other prompts or settings.
    """
    header = header_of(settings, prompts)
    if not path.exists():
        write_text(path, header + "\n")
        return []
    if whole_lines(path)[:1] not in ([header], []):
        raise ValueError(f"{path} holds completions of other prompts or settings; name another folder, or move it away")
    lines = mended_lines(path, lambda value: isinstance(value, dict | list) and len(value) > 0)
    if not lines:  # not even its first line is whole
        write_text(path, header + "\n")
    return [ids for line in lines[1:] for ids in json.loads(line)]


def header_of(settings: dict, prompts: Sequence[Prompt | dict]) -> str:
    """The first line of a completions file: its settings, and a digest of them and of the prompts, one by one."""
    digest = hashlib.sha256(b"[" + json.dumps(settings, sort_keys=True).encode())
    for prompt in prompts:
        # The turns and not their ids: a template that writes today's date must not end a sweep at midnight.
        told = prompt.plain() if isinstance(prompt, Conversation) else prompt
        digest.update(b", " + json.dumps(told, sort_keys=True).encode())
    digest.update(b"]")
    return json.dumps({**settings, "num_prompts": len(prompts), "sha256": digest.hexdigest()})


def stop_ids(model, tokenizer) -> set[int]:
    """The ids that end a completion: the tokenizer's and every one that the model declares."""
    if not isinstance(model, torch.nn.Module):
        return model.stops
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return {token for token in [*ids, tokenizer.eos_token_id] if token is not None}


@contextlib.contextmanager
def merged_adapter(model):
    """Folds an active LoRA adapter into the base weights while generating: the same function, fewer operations."""
    with base_kept(model) as layers:
        for layer in layers:
            layer.merge()
        try:
            yield
        finally:
            for layer in layers:
                layer.unmerge()


@contextlib.contextmanager
def base_kept(model):
    """Gives the layers with an active LoRA adapter, to merge and unmerge, and restores their base weights bit for bit.

    Merging and unmerging leaves rounding behind, so they come back from a copy.
    """
    layers = []
    if isinstance(model, PeftModel):
        layers = [
            module
            for module in model.modules()
            if isinstance(module, LoraLayer)
            and not module.disable_adapters
            and not module.merged
            and module.get_base_layer().weight.is_floating_point()  # quantised weights would be rounded anew
        ]
    kept = [layer.get_base_layer().weight.detach().clone() for layer in layers]
    try:
        yield layers
    finally:
        for layer, weight in zip(layers, kept, strict=True):
            layer.get_base_layer().weight.data.copy_(weight)


def sweep(
    model: PreTrainedModel | Engine,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[dict],
    conditions: Sequence[Condition],
    *,
    sampling: Sampling,
    grading: Grading | None = None,
    path: Path | None = None,
    description: str = "sweep",
) -> list[dict]:
    """Outcomes of every question under every condition, `sampling.num_samples` of each, in the conditions' order.

    The conditions' prompts are fitted to the tokenizer and tell the grading what ends the thinking, and its markers.
    `path` keeps the completions while the sweep runs, so that one which was interrupted goes on.

    Where a condition has a limit, an outcome says whether its completion was `cut` there; one that was counts as
    incorrect, and as long as the cap (rlred/evaluation/per_prompt_cap.py says what that changes).
    """
    for what, told in (("end of thinking", "end_of_thinking"), ("kind of markers", "markers")):
        found = {getattr(condition, told) for condition in conditions}
        if len(found) != 1:
            raise ValueError(f"conditions: need one {what} for all, got {sorted(map(str, found)) or 'none'}")
    grading = (grading or Grading()).fitted(conditions[0].end_of_thinking, tokenizer, conditions[0].markers)
    asked = [(condition, row) for condition in conditions for row in questions]
    # Rows that will get similar lengths side by side; the completions of one question spread over batches.
    prompts = [p for one, row in asked for p in [one.prompt(row, tokenizer)] * sampling.num_samples]
    rows = [{**row, **one.labels()} for one, row in asked for _ in range(sampling.num_samples)]
    cap, limits = sampling.max_completion_length, None
    if any(condition.limit is not None for condition in conditions):
        limits = [min(cap, one.limit or cap) for one, _ in asked for _ in range(sampling.num_samples)]
    ids = complete(model, tokenizer, prompts, sampling, limits=limits, path=path, description=description)
    outcomes = outcomes_of(rows, ids, tokenizer=tokenizer, stops=stop_ids(model, tokenizer), grading=grading)
    return outcomes if limits is None else [bound(*one, cap, grading) for one in zip(outcomes, limits, strict=True)]


def bound(outcome: dict, limit: int, cap: int, grading: Grading) -> dict:
    """An outcome that says whether it was `cut` at its limit below the cap; if so, with bounds for what is unknown."""
    outcome = {**outcome, "cut": outcome["truncated"] and limit < cap}
    if outcome["cut"]:
        outcome["length"] = longest(outcome["completion_ids"], cap, grading.length)
        outcome["correct"] = 0.0 if outcome["correct"] is not None else None
    return outcome


def outcomes_of(
    rows: Sequence[dict],
    completion_ids: Sequence[list[int]],
    *,
    tokenizer: PreTrainedTokenizerBase,
    stops: set[int],
    grading: Grading,
) -> list[dict]:
    """What each completion of an asked row did: the outcomes that `rlred.evaluation.measures` is about.

    The grading has been told the end of thinking; `thinking_length` is None where the thinking does not end.
    Where the grading has markers, `marker_errors` says by how many tokens each of them is off.
    """
    ends = end_ids(tokenizer, grading.end)
    texts = decode(tokenizer, completion_ids, grading.end, grading.markers)
    solutions = [row["solution"] for row in rows]
    grades = grading.correctness(texts, solution=solutions) if grading.grades else [None] * len(rows)
    borders = [find_end(ids, ends) for ids in completion_ids]
    outcomes = [
        {
            "question_id": row["question_id"],
            "level": row.get("level"),
            **{name: row[name] for name in LABELS if name in row},
            "length": grading.length(ids),
            "thinking_length": border and border[0],
            "correct": grade,
            "truncated": not ids or ids[-1] not in stops,
            "completion": text,
            "answer": boxed_answer(text.rpartition(grading.end)[2] if grading.end else text),
            "completion_ids": ids,
        }
        for row, ids, grade, text, border in zip(rows, completion_ids, grades, texts, borders, strict=True)
    ]
    if grading.markers:
        for one in outcomes:
            told = (one["completion_ids"], one.get("budget"), grading.end, grading.markers)
            one["marker_errors"] = marker_errors(tokenizer, *told)
    return outcomes


def sample_of(questions, n: int, seed: int = 0) -> list[dict]:
    """`n` question rows, or all of them where there are fewer; the same ones for the same seed."""
    rows = Rows(questions) if isinstance(questions, Dataset) else list(questions)
    return list(rows) if len(rows) <= n else random.Random(seed).sample(rows, n)

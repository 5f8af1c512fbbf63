"""Ask every question at every budget and record what each completion did."""

import contextlib
import functools
import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteriaList

from rlred.data.budgets import Wording, ask
from rlred.data.prompts import (
    Conversation,
    Prompt,
    Prompts,
    as_prompts,
    decode,
    end_ids,
    prompt_ids,
    tell_end,
    thinking_end,
)
from rlred.evaluation.row_cap import limit_of, longest
from rlred.evaluation.row_limits import StopAt
from rlred.files import write_text
from rlred.rewards import Correctness, Length
from rlred.rewards.length import find_end


class Engine(Protocol):
    """Something other than a transformers model that completes a batch of prompts: rlred/evaluation/vllm.py."""

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
    *,
    max_completion_length: int,
    limits: Sequence[int] | None = None,
    batch_size: int = 128,
    temperature: float = 1.0,
    seed: int = 0,
    path: Path | None = None,
    description: str = "sampling",
) -> list[list[int]]:
    """Completion ids of prompts (conversations, or ids to go on from), end-of-sequence token included, unpadded.

    Prompts are batched in the given order: put those that will get similar lengths side by side. Each batch is seeded
    by itself and the caller's random state stays as it was. Temperature 0 decodes greedily. `limits` end single rows
    before `max_completion_length`; up to there they are what they would have been. With `path`, every batch is saved
    there as it is done, and those that are already there are not generated again. Raises `ValueError` when that file
    was made from other prompts or settings.
    """
    completions: list[list[int]] = []
    if path is not None:
        settings = {"max_completion_length": max_completion_length, "batch_size": batch_size, "seed": seed}
        own = {} if limits is None else {"limits": list(limits)}
        completions = open_completions(path, {**settings, "temperature": temperature, **own}, prompts)
    limits = [max_completion_length] * len(prompts) if limits is None else limits
    starts = range(len(completions), len(prompts), batch_size)
    with ready(model, tokenizer) if starts else contextlib.nullcontext() as complete_batch:
        for start in tqdm(starts, desc=description, leave=False):
            batch = [prompt_ids(tokenizer, prompt) for prompt in prompts[start : start + batch_size]]
            ids = complete_batch(batch, limits[start : start + batch_size], temperature, seed + start)
            completions += ids
            if path is not None:
                with open(path, "a", encoding="utf-8") as file:
                    file.write(json.dumps(ids) + "\n")
    return completions


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
    # The tokenizer's own padding side is the right one, most often, and a completion follows its prompt.
    inputs = tokenizer.pad({"input_ids": prompt_ids}, padding_side="left", return_tensors="pt")
    prompt_length = inputs["input_ids"].shape[1]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        output = model.generate(
            **inputs.to(device),
            max_new_tokens=max(limits),
            stopping_criteria=StoppingCriteriaList([StopAt(prompt_length, limits)]),
            pad_token_id=tokenizer.pad_token_id,
            top_p=None if temperature == 0 else 1.0,
            **sampling,
        )
    stops = stop_ids(model, tokenizer)
    # A row that has stopped is padded, and the padding may be an end of sequence.
    completions = [ids[:limit] for ids, limit in zip(output[:, prompt_length:].tolist(), limits, strict=True)]
    ends = [next((i + 1 for i, token in enumerate(ids) if token in stops), len(ids)) for ids in completions]
    return [ids[:end] for ids, end in zip(completions, ends, strict=True)]


def open_completions(path: Path, settings: dict, prompts: Sequence[Prompt]) -> list[list[int]]:
    """The completions that `path` holds so far; a new file with its settings where there is none.

    A batch whose line was cut off by a crash is taken out of the file. Raises `ValueError` when the file was made from
    other prompts or settings.
    """
    # The turns and not their ids: a template that writes today's date must not end a sweep at midnight.
    told = [prompt.plain() if isinstance(prompt, Conversation) else prompt for prompt in prompts]
    digest = hashlib.sha256(json.dumps([settings, *told], sort_keys=True).encode()).hexdigest()
    header = json.dumps({**settings, "num_prompts": len(prompts), "sha256": digest})
    if not path.exists():
        write_text(path, header + "\n")
        return []
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")
    if lines[0] != header:
        raise ValueError(f"{path} holds completions of other prompts or settings; name another folder, or move it away")
    batches = []
    for line in lines[1:]:
        try:
            batches.append(json.loads(line))
        except json.JSONDecodeError:
            break
    whole = "\n".join([header, *map(json.dumps, batches), ""])
    if text != whole:
        write_text(path, whole)
    return [ids for batch in batches for ids in batch]


def stop_ids(model, tokenizer) -> set[int]:
    """The ids that end a completion: the tokenizer's and every one that the model declares."""
    if not isinstance(model, torch.nn.Module):
        return model.stops
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return {token for token in [*ids, tokenizer.eos_token_id] if token is not None}


@contextlib.contextmanager
def merged_adapter(model):
    """Folds an active LoRA adapter into the base weights while generating: the same function, fewer operations.

    The base weights are restored bit for bit from a copy, since merging and unmerging leaves rounding behind.
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
    for layer in layers:
        layer.merge()
    try:
        yield
    finally:
        for layer, weight in zip(layers, kept, strict=True):
            layer.unmerge()
            layer.get_base_layer().weight.data.copy_(weight)


def sweep(
    model: PreTrainedModel | Engine,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[dict],
    budgets: Sequence[int],
    *,
    modes: Sequence[str] = ("exact",),
    prompts: Prompts | Wording,
    max_completion_length: int,
    correctness: Correctness | None = None,
    length: Length | None = None,
    temperature: float = 1.0,
    batch_size: int = 128,
    seed: int = 0,
    num_samples: int = 1,
    constant_budget: int | None = None,
    row_cap: float | None = None,
    grade: bool = True,
    path: Path | None = None,
    description: str = "sweep",
) -> list[dict]:
    """Outcomes of every question in every mode at every budget (mode `none` has none), `num_samples` of each.

    `prompts` say how a question is asked, fitted to the tokenizer, and what ends the thinking; a `Wording` alone asks
    without system prompt and template settings.

    With `constant_budget`, every prompt asks for that budget while the outcome is still held against its own: the
    control that has learned a length, but not to listen. Without `grade`, answers are not compared (`correct` is None).
    With `row_cap`, rows that ask for a maximum end at that many times it (rlred/evaluation/row_cap.py says what that
    changes). `path` keeps the completions while the sweep runs, so that one which was interrupted goes on.
    """
    prompts = as_prompts(prompts)
    end = prompts.end_of_thinking
    correctness, length = (
        tell_end(part, end, tokenizer) for part in (correctness or Correctness(), length or Length())
    )
    asked = [(mode, budget) for mode in modes for budget in (budgets if mode != "none" else [None])]
    rows = []
    for mode, budget in asked:
        worded = constant_budget if constant_budget is not None and mode != "none" else budget
        asked_rows = ask(questions, prompts, [(mode, worded)] * len(questions))
        rows += [{**row, "budget": budget} for row in asked_rows for _ in range(num_samples)]
    limits = [limit_of(row, row_cap, max_completion_length) for row in rows]
    # Rows that will get similar lengths side by side; the completions of one question spread over batches.
    completion_ids = complete(
        model,
        tokenizer,
        [prompts.asked(row["prompt"]) for row in rows],
        max_completion_length=max_completion_length,
        limits=None if row_cap is None else limits,
        batch_size=batch_size,
        temperature=temperature,
        seed=seed,
        path=path,
        description=description,
    )
    outcomes = outcomes_of(
        rows,
        completion_ids,
        tokenizer=tokenizer,
        stops=stop_ids(model, tokenizer),
        correctness=correctness,
        length=length,
        grade=grade,
    )
    if row_cap is None:
        return outcomes
    for outcome, ids, limit in zip(outcomes, completion_ids, limits, strict=True):
        outcome["cut"] = outcome["truncated"] and limit < max_completion_length
        if outcome["cut"]:
            outcome["length"] = longest(ids, max_completion_length, length)
            outcome["correct"] = 0.0 if outcome["correct"] is not None else None
    return outcomes


def outcomes_of(
    rows: Sequence[dict],
    completion_ids: Sequence[list[int]],
    *,
    tokenizer: PreTrainedTokenizerBase,
    stops: set[int],
    correctness: Correctness,
    length: Length,
    grade: bool = True,
) -> list[dict]:
    """What each completion of an asked row did: the outcomes that `rlred.evaluation.measures` is about.

    The end of thinking is the correctness's.
    """
    ends = end_ids(tokenizer, thinking_end(correctness))
    texts = decode(tokenizer, completion_ids, thinking_end(correctness))
    grades = correctness(texts, solution=[row["solution"] for row in rows]) if grade else [None] * len(rows)
    borders = [find_end(ids, ends) for ids in completion_ids]
    return [
        {
            "question_id": row["question_id"],
            "level": row.get("level"),
            "mode": row["mode"],
            "budget": row["budget"],
            "length": length(ids),
            "thinking_length": border and border[0],
            "correct": grade,
            "truncated": not ids or ids[-1] not in stops,
            "completion": text,
        }
        for row, ids, grade, text, border in zip(rows, completion_ids, grades, texts, borders, strict=True)
    ]


def sample_of(questions, n: int, seed: int = 0) -> list[dict]:
    """`n` question rows, or all of them where there are fewer; the same ones for the same seed."""
    rows = list(questions)
    return rows if len(rows) <= n else random.Random(seed).sample(rows, n)

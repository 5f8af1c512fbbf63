"""Ask every question at every budget and record what each completion did."""

import contextlib
import random
from collections.abc import Sequence

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from rewards import Correctness, Length
from rlred.budgets import Wording, ask
from rlred.tiny import resolve_model


@torch.no_grad()
def complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[dict]],
    *,
    max_completion_length: int,
    batch_size: int = 128,
    temperature: float = 1.0,
    seed: int = 0,
    description: str = "sampling",
) -> list[list[int]]:
    """Completion ids of conversational prompts, end-of-sequence token included, padding removed.

    Prompts are batched in the given order: put those that will get similar lengths side by side. Sampling is seeded
    and leaves the caller's random state as it was. Temperature 0 decodes greedily.
    """
    completions: list[list[int]] = []
    device = next(model.parameters()).device
    sampling = {"do_sample": False} if temperature == 0 else {"do_sample": True, "temperature": temperature, "top_k": 0}
    was_training = model.training
    model.eval()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), merged_adapter(model):
        torch.manual_seed(seed)
        for start in tqdm(range(0, len(prompts), batch_size), desc=description, leave=False):
            texts = tokenizer.apply_chat_template(
                list(prompts[start : start + batch_size]), add_generation_prompt=True, tokenize=False
            )
            # Not through apply_chat_template: it keeps the tokenizer's own padding side, and most pad on the right.
            inputs = tokenizer(
                texts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt"
            ).to(device)
            output = model.generate(
                **inputs,
                max_new_tokens=max_completion_length,
                pad_token_id=tokenizer.pad_token_id,
                top_p=None if temperature == 0 else 1.0,
                **sampling,
            )
            stops = stop_ids(model, tokenizer)
            for ids in output[:, inputs["input_ids"].shape[1] :].tolist():
                end = next((i + 1 for i, token in enumerate(ids) if token in stops), len(ids))
                completions.append(ids[:end])
    model.train(was_training)
    return completions


def stop_ids(model, tokenizer) -> set[int]:
    """The ids that end a completion: the tokenizer's and every one that the model declares."""
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
            if isinstance(module, LoraLayer) and not module.disable_adapters and not module.merged
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
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[dict],
    budgets: Sequence[int],
    *,
    modes: Sequence[str] = ("exact",),
    wording: Wording,
    max_completion_length: int,
    correctness: Correctness | None = None,
    length: Length | None = None,
    temperature: float = 1.0,
    batch_size: int = 128,
    seed: int = 0,
    constant_budget: int | None = None,
    grade: bool = True,
    description: str = "sweep",
) -> list[dict]:
    """Outcomes of every question in every mode at every budget (mode `none` is asked once).

    With `constant_budget`, every prompt asks for that budget while the outcome is still held against its own: the
    control that has learned a length, but not to listen. Without `grade`, answers are not compared (`correct` is None).
    """
    correctness, length = correctness or Correctness(), length or Length()
    asked = [(mode, budget) for mode in modes for budget in (budgets if mode != "none" else [None])]
    rows = []
    for mode, budget in asked:
        worded = constant_budget if constant_budget is not None and mode != "none" else budget
        rows += [{**row, "budget": budget} for row in ask(questions, wording, [(mode, worded)] * len(questions))]
    # Rows that will get similar lengths side by side; the completions of one question spread over batches.
    completion_ids = complete(
        model,
        tokenizer,
        [row["prompt"] for row in rows],
        max_completion_length=max_completion_length,
        batch_size=batch_size,
        temperature=temperature,
        seed=seed,
        description=description,
    )
    texts = tokenizer.batch_decode(completion_ids, skip_special_tokens=True)
    grades = correctness(texts, solution=[row["solution"] for row in rows]) if grade else [None] * len(rows)
    stops = stop_ids(model, tokenizer)
    return [
        {
            "question_id": row["question_id"],
            "mode": row["mode"],
            "budget": row["budget"],
            "length": length(ids),
            "correct": grade,
            "truncated": not ids or ids[-1] not in stops,
            "completion": text,
        }
        for row, ids, grade, text in zip(rows, completion_ids, grades, texts, strict=True)
    ]


def sample_of(questions, n: int, seed: int = 0) -> list[dict]:
    """`n` question rows, or all of them where there are fewer; the same ones for the same seed."""
    rows = list(questions)
    return rows if len(rows) <= n else random.Random(seed).sample(rows, n)


def load_for_evaluation(model_name: str, adapter: str | None, dtype: str, trust_remote_code: bool = False):
    """A model, with its adapter if one is named, on the GPU if there is one; and its tokenizer. Safetensors only.

    Raises `ValueError` with the reason where either cannot be loaded.
    """
    name = resolve_model(model_name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
        model = AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, use_safetensors=True, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise ValueError(f"model {model_name!r} cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if adapter is not None:
        try:
            model = PeftModel.from_pretrained(model, adapter, use_safetensors=True)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"adapter {adapter!r} cannot be loaded on {model_name!r}: {reason}") from error
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer

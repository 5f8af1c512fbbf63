"""A limit of its own for each row of a batch that is generated: with transformers and with vLLM."""

import contextlib
from collections.abc import Sequence

import torch
from tqdm.auto import tqdm
from transformers import StoppingCriteria, StoppingCriteriaList

SILENT_SECONDS = 10  # a batch that takes longer shows its tokens


class StopAt(StoppingCriteria):
    """Ends row i of a `generate` batch after `limits[i]` new tokens."""

    def __init__(self, prompt_length: int, limits: Sequence[int]):
        self.prompt_length = prompt_length
        self.limits = torch.tensor(limits)

    def __call__(self, input_ids, scores, **kwargs):
        self.limits = self.limits.to(input_ids.device)
        return input_ids.shape[1] - self.prompt_length >= self.limits


class ShowTokens(StoppingCriteria):
    """Counts the tokens of a `generate` batch on a bar, once it has taken ten seconds; stops nothing."""

    def __init__(self, longest: int):
        self.bar = tqdm(total=longest, desc="tokens of this batch", unit="token", leave=False, delay=SILENT_SECONDS)

    def __call__(self, input_ids, scores, **kwargs):
        self.bar.update()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


@contextlib.contextmanager
def stopping_at(engine, limits: Sequence[int]):
    """While open, `engine.generate` ends row i after `limits[i]` tokens; `engine` is a model, or a `vllm.LLM`.

    TRL 1.16 hands neither stopping criteria nor a limit per row through, so the bound method is stood in for.
    """
    generate = engine.generate

    def of_transformers(**inputs):
        criteria = StoppingCriteriaList([StopAt(inputs["input_ids"].shape[1], limits)])
        return generate(**inputs, stopping_criteria=criteria)

    def of_vllm(prompts, sampling_params, **kwargs):
        own = [sampling_params.clone() for _ in limits]
        for parameters, limit in zip(own, limits, strict=True):
            parameters.max_tokens = limit
        return generate(prompts, sampling_params=own, **kwargs)

    engine.generate = of_transformers if isinstance(engine, torch.nn.Module) else of_vllm
    try:
        yield
    finally:
        del engine.generate

"""vLLM in the place of `model.generate` (`rlred evaluate --vllm`): the same prompts, ids and seeds, many at once."""

from pathlib import Path

from rlred.data.models import Loading
from rlred.tiny import resolve_model


class VllmModel:
    """A base model in vLLM, and an adapter that its requests may name. Takes the place of a model in `complete`.

    Raises `ValueError` where vLLM is not installed or does not load the model.
    """

    def __init__(self, name: str, adapter: str | None, loading: Loading):
        try:
            from vllm import LLM
            from vllm.lora.request import LoRARequest
        except ImportError as error:
            raise ValueError("--vllm: vLLM is not installed; pip install 'rlred[vllm]'") from error
        rank = _rank_of(adapter) if adapter else 16
        try:
            self.llm = LLM(
                model=resolve_model(name),
                dtype=loading.dtype,
                revision=loading.model_revision,
                trust_remote_code=loading.trust_remote_code,
                enable_lora=adapter is not None,
                max_lora_rank=rank,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(f"model {name!r}: vLLM does not load it: {str(error).strip().splitlines()[0]}") from error
        self.lora = LoRARequest("adapter", 1, str(adapter)) if adapter else None
        tokenizer = self.llm.get_tokenizer()
        declared = self.llm.get_default_sampling_params().stop_token_ids or []
        self.stops = {token for token in (tokenizer.eos_token_id, *declared) if token is not None}

    def complete_batch(
        self, prompt_ids: list[list[int]], limits: list[int], temperature: float, seed: int
    ) -> list[list[int]]:
        """Completion ids, end-of-sequence token included; each request has a seed of its own."""
        from vllm import SamplingParams

        sampling = [
            SamplingParams(
                temperature=temperature,
                max_tokens=limit,
                seed=seed + number,
                stop_token_ids=sorted(self.stops),
            )
            for number, limit in enumerate(limits)
        ]
        prompts = [{"prompt_token_ids": ids} for ids in prompt_ids]
        results = self.llm.generate(prompts, sampling, lora_request=self.lora, use_tqdm=False)
        return [list(result.outputs[0].token_ids) for result in results]


def _rank_of(adapter: str) -> int:
    """The least rank that vLLM has room for and that holds the adapter's."""
    from peft import PeftConfig

    rank = PeftConfig.from_pretrained(Path(adapter) if Path(adapter).is_dir() else adapter).r
    return next((size for size in (8, 16, 32, 64, 128, 256, 320, 512) if size >= rank), rank)

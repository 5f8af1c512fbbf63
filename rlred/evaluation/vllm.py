"""vLLM in the place of `model.generate`: the same prompts, ids and limits, many rows at once.

    VllmModel   `rlred evaluate --vllm`: a base model, and an adapter that its requests name
    RunEngine   a run with `use_vllm`: TRL's own vLLM, a server or colocated, which is given the weights of the policy
    Engines     the one of a run: started when it is first asked for, shared with the trainer, or the model itself

Every row has a seed of its own. `VllmModel` and a colocated `RunEngine` were run with vLLM 0.30 on a CPU
(tests/test_vllm_itself.py); a server's was tested with TRL's code over one that stands in for vLLM's
(tests/vllm_stand_in.py).
"""

import contextlib
import functools
import logging
import os
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

from accelerate import PartialState
from peft import PeftConfig, PeftModel
from trl import GRPOConfig
from trl.generation.vllm_client import VLLMClient
from trl.generation.vllm_generation import VLLMGeneration
from trl.import_utils import is_vllm_available
from trl.trainer import grpo_trainer

from rlred.data.models import Loading, vllm_rank
from rlred.evaluation.sweep import base_kept, stop_ids
from rlred.evaluation.vllm_restart import Server
from rlred.tiny import resolve_model

logger = logging.getLogger(__name__)

CONCURRENT = 64  # requests under way at once: the connections that TRL's client keeps open
MISSING = "vLLM is not installed; pip install 'rlred[vllm]'"
LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE")


def row_settings(limits: Sequence[int], temperature: float, seed: int, stops: set[int]) -> list[dict]:
    """How each row is sampled: fields of vLLM's SamplingParams, and of a request to its server.

    >>> [row["max_tokens"] for row in row_settings([5, 7], 1.0, seed=0, stops={2})]
    [5, 7]
    """
    rng = random.Random(seed)  # neighbouring seeds, such as those of two processes, share no row's seed
    shared = {"temperature": temperature, "stop_token_ids": sorted(stops)}
    return [{**shared, "max_tokens": limit, "seed": rng.getrandbits(31)} for limit in limits]


def generate(llm, prompt_ids: list[list[int]], rows: list[dict], **settings) -> list[list[int]]:
    """Completion ids from a `vllm.LLM` in this process, end-of-sequence token included."""
    from vllm import SamplingParams

    prompts = [{"prompt_token_ids": ids} for ids in prompt_ids]
    results = llm.generate(prompts, [SamplingParams(**row) for row in rows], use_tqdm=False, **settings)
    return [list(result.outputs[0].token_ids) for result in results]


class VllmModel:
    """A base model in vLLM, and an adapter that its requests may name. Takes the place of a model in `complete`.

    Raises `ValueError` where vLLM is not installed or does not load the model.
    """

    def __init__(self, name: str, adapter: str | None, loading: Loading):
        try:
            from vllm import LLM
            from vllm.lora.request import LoRARequest
        except ImportError as error:
            raise ValueError(f"--vllm: {MISSING}") from error
        rank = vllm_rank(PeftConfig.from_pretrained(adapter).r) if adapter else 16
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
        rows = row_settings(limits, temperature, seed, self.stops)
        return generate(self.llm, prompt_ids, rows, lora_request=self.lora)


class Generation(VLLMGeneration):
    """TRL's, over the engine or the connection of an earlier one; and whose pushes leave the policy as it was.

    TRL merges the adapter, hands out the parameters themselves, and takes the adapter out again after the last. vLLM
    packs the last of them (up to 1 GB: all of a small model) after that, so that the server would get the base's
    weights: it is given copies here. The rounding that merging leaves in the base is taken back.
    """

    def __init__(self, first: VLLMGeneration | None, **settings):
        self.first = first
        super().__init__(**settings)

    def _init_vllm(self):
        if self.first is None:
            super()._init_vllm()
            if hasattr(self, "vllm_client"):
                self.server = Server(self.vllm_client, self.server_timeout, self.accelerator.device)
                own = self.vllm_client.generate  # TRL's rollouts: a question to a server that may restart
                self.vllm_client.generate = lambda *args, **kwargs: self.server.ask(lambda: own(*args, **kwargs))
            return
        for name in ("llm", "vllm_client", "server", "_llm_weights_sleeping"):  # which there are depends on the mode
            if hasattr(self.first, name):
                setattr(self, name, getattr(self.first, name))

    def sync_weights(self):
        if not hasattr(self, "server"):
            return super().sync_weights()
        sharded = self._dist.is_zero3 or self._dist.is_fsdp
        return self.server.give(super().sync_weights, alone=not sharded)

    def _iter_named_params(self):
        copied = isinstance(self.model, PeftModel)
        with base_kept(self.model):
            for name, value in super()._iter_named_params():
                yield name, value.clone() if copied else value


class RunEngine:
    """The vLLM of a run, which generates with the weights that it was last given. Every process has one.

    Raises `ValueError` for a row that vLLM has no room for. A server that is gone is waited for
    (rlred/evaluation/vllm_restart.py), and then a `ConnectionError`.
    """

    def __init__(self, training: GRPOConfig, tokenizer, model):
        names = "mode server_base_url server_host server_port server_timeout group_port tensor_parallel_size "
        names += "gpu_memory_utilization max_model_length enable_sleep_mode model_impl"
        with _environment_kept(LAUNCHED):
            self.generation = Generation(
                None,
                model=model,
                accelerator=_accelerator(),
                processing_class=tokenizer,
                # As TRL's trainer does; the engine that it would start is this one.
                max_num_seqs=training.per_device_train_batch_size * training.steps_per_generation,
                trust_remote_code=training.trust_remote_code,
                **{name: getattr(training, f"vllm_{name}") for name in names.split()},
            )
        self.stops = stop_ids(model, tokenizer)
        self.client = getattr(self.generation, "vllm_client", None)  # that of the main process pushes weights too
        self.server = getattr(self.generation, "server", None)
        if self.generation.mode == "server" and self.client is None:
            self.client = VLLMClient(url_of(training), connection_timeout=training.vllm_server_timeout)
            self.server = Server(self.client, training.vllm_server_timeout)

    def push(self, model) -> None:
        """Gives vLLM the weights of a model, its adapter merged in. Every process calls this."""
        self.generation.model = model
        process = PartialState()
        process.wait_for_everyone()  # or one would still be sampling from the former weights
        self.generation.sync_weights()
        process.wait_for_everyone()
        if self.server is not None and not process.is_main_process:
            self.server.read()

    def complete_batch(
        self, prompt_ids: list[list[int]], limits: list[int], temperature: float, seed: int
    ) -> list[list[int]]:
        """Completion ids, end-of-sequence token included, of this process's own rows."""
        rows = row_settings(limits, temperature, seed, self.stops)
        if self.client is None:
            self._check_room(prompt_ids, limits)
            return generate(self.generation.llm, prompt_ids, rows)
        return self.server.ask(lambda: self._ask_all(prompt_ids, rows))

    def _ask_all(self, prompt_ids: list[list[int]], rows: list[dict]) -> list[list[int]]:
        # A request has one limit and one seed for all of its prompts, so each row is a request; vLLM batches them.
        with ThreadPoolExecutor(CONCURRENT) as pool:
            return list(pool.map(self._ask, prompt_ids, rows))

    def _ask(self, ids: list[int], row: dict) -> list[int]:
        try:
            found = VLLMClient.generate(self.client, [ids], logprobs=None, generation_kwargs=row)
            return found["completion_ids"][0]
        except Exception as error:  # TRL raises no narrower one
            if type(error) is Exception and str(error).startswith("Request failed: 4"):
                reason = " ".join(str(error).removeprefix("Request failed: ").split())[:200]
                raise ValueError(f"the vLLM server at {self.client.base_url} refuses a prompt: {reason}") from error
            raise

    def _check_room(self, prompt_ids, limits) -> None:
        """vLLM itself would end a row early and say that it was too long."""
        room = self.generation.llm.llm_engine.model_config.max_model_len
        needed = max(len(ids) + limit for ids, limit in zip(prompt_ids, limits, strict=True))
        if needed > room:
            raise ValueError(f"vllm_max_model_length: a prompt and its completion need {needed} tokens, got {room}")


def url_of(training: GRPOConfig) -> str:
    """The address of the server of a run."""
    return training.vllm_server_base_url or f"http://{training.vllm_server_host}:{training.vllm_server_port}"


def _accelerator() -> SimpleNamespace:
    """What TRL's VLLMGeneration asks of an accelerator: a real one would fix the precision before the trainer does."""
    process = PartialState()
    names = "is_main_process num_processes process_index local_process_index device wait_for_everyone"
    # Without a sharded model: those are neither swept nor given a hindsight start (docs/scaling.md).
    sharding = SimpleNamespace(deepspeed_plugin=None)
    return SimpleNamespace(state=sharding, **{name: getattr(process, name) for name in names.split()})


@contextlib.contextmanager
def _environment_kept(names: Sequence[str]):
    """TRL tells vLLM the rank of a process through these, and accelerate would take them for a launcher's."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


class Engines:
    """What generates in a run: the models themselves, or its one vLLM."""

    def __init__(self, training: GRPOConfig, tokenizer):
        self.training, self.tokenizer = training, tokenizer
        self.engine: RunEngine | None = None
        if training.use_vllm and not self.on:
            logger.info("tensor parallelism in the run, or sleep mode: sweeps and traces are sampled by transformers")

    @property
    def on(self) -> bool:
        """Whether sweeps and traces come from vLLM.

        Not with tensor parallelism inside the run, where all processes of a group must generate together, nor with the
        sleep mode, which throws the weights away after each batch.
        """
        told = self.training
        colocated = told.vllm_mode == "colocate" and (told.vllm_tensor_parallel_size > 1 or told.vllm_enable_sleep_mode)
        return told.use_vllm and not colocated

    def of(self, model):
        """What completes prompts with the weights that `model` has now. Every process calls this."""
        if not self.on:
            return model
        if self.engine is None:
            self.engine = RunEngine(self.training, self.tokenizer, model)
        self.engine.push(model)
        return self.engine

    @contextlib.contextmanager
    def shared(self):
        """While open, a GRPO trainer that is made takes over this engine, or starts the run's only one."""
        own = grpo_trainer.VLLMGeneration
        grpo_trainer.VLLMGeneration = functools.partial(Generation, self.engine and self.engine.generation)
        try:
            yield
        finally:
            grpo_trainer.VLLMGeneration = own


def check_vllm() -> None:
    """Raises `ValueError` where vLLM is not installed."""
    if not is_vllm_available():
        raise ValueError(f"use_vllm: {MISSING}, or set use_vllm to false")

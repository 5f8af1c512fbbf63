"""The one loader of models: text or pictures, with or without an adapter, from safetensors only.

This file imports no torch by itself: the flags of commands are made from `Loading`.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlred.flags import option
from rlred.tiny import is_embedded, resolve_adapter, resolve_model

if TYPE_CHECKING:
    from trl import ModelConfig

# A folder of the Hub's cache: owner, name, revision.
CACHED = re.compile(r"models--([^/\\]+?)--([^/\\]+?)[/\\]snapshots[/\\]([^/\\]+)")

# What a model's own generation_config may ask for, and a policy that is trained or measured must not do: TRL's rollouts
# are drawn without it, and so is what is sampled here.
NEUTRAL = {
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "typical_p": 1.0,
    "min_p": None,
    "top_h": None,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "encoder_repetition_penalty": 1.0,
    "exponential_decay_length_penalty": None,
    "min_new_tokens": None,
    "num_beams": 1,
    "bad_words_ids": None,
    "sequence_bias": None,
}
DTYPES = ("float32", "bfloat16", "float16", "auto")


@dataclass(frozen=True)
class Loading:
    """Weights.

    The fields are those of TRL's ModelConfig, where it has them; the ones with a help text are flags. Raises
    `ValueError` for an unknown `dtype`, and where 4 and 8 bits are both asked for.
    """

    dtype: str | None = option("float32", "Precision: float32, bfloat16, float16 or auto.")
    model_revision: str | None = option(None, "Branch, tag or commit on the Hub.", metavar="REVISION")
    trust_remote_code: bool = option(False, "Run the code of the model's repository.")
    load_in_4bit: bool = option(False, "Load the weights in 4 bits (bitsandbytes).")
    load_in_8bit: bool = option(False, "Load the weights in 8 bits (bitsandbytes).")
    attn_implementation: str | None = None
    bnb_4bit_quant_type: str = "nf4"
    use_bnb_nested_quant: bool = False
    bnb_4bit_quant_storage: str | None = None

    def __post_init__(self):
        if self.dtype not in (None, *DTYPES):
            raise ValueError(f"dtype must be {', '.join(DTYPES)}, got {self.dtype!r}")
        if self.load_in_4bit and self.load_in_8bit:
            raise ValueError("load_in_4bit and load_in_8bit are both set; choose one")

    @classmethod
    def of(cls, settings: ModelConfig | Loading | dict[str, Any], **changes) -> Loading:
        """The fields of `settings` that say how weights are read: a ModelConfig's, a command's, or those of run.json.

        >>> Loading.of({"dtype": "bfloat16", "lora_r": 8}, trust_remote_code=True)
        ... # doctest: +ELLIPSIS
        Loading(dtype='bfloat16', model_revision=None, trust_remote_code=True, load_in_4bit=False, ...
        """
        told = settings if isinstance(settings, dict) else vars(settings)
        names = {item.name for item in dataclasses.fields(Loading)}
        return Loading(**({name: value for name, value in told.items() if name in names} | changes))


def check_model(name: str, field: str = "model") -> None:
    """Raises `ValueError`, which calls the name `field`, for a folder that is not there, and for one of an adapter."""
    folder = Path(resolve_adapter(name)).expanduser()
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise ValueError(f"{field}={name!r} cannot be loaded: it is an adapter, and no model; name it with --adapter")
    if is_path(name) and not folder.is_dir():
        raise ValueError(f"{field}={name!r} cannot be loaded: there is no such folder")


def is_path(name: str) -> bool:
    """Whether a name can only be that of a folder, and is no Hub id.

    >>> is_path("/nope"), is_path("./here"), is_path("outputs/run/base"), is_path("org/model"), is_path("gpt2")
    (True, True, True, False, False)
    """
    return name.startswith(("/", ".", "~")) or name.endswith("/") or name.count("/") > 1 or "\\" in name


def context_of(config) -> int | None:
    """The positions that a model's config has; None where it does not say."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def place_of(name: str) -> Path:
    """The folder of a model; of a Hub id a path that tells it from others."""
    try:
        return Path(resolve_model(name)).expanduser().resolve()
    except ValueError:  # an embedded model that is not here, or was called otherwise
        return Path(name)


def known_name(name: str) -> str | None:
    """What everybody calls a model: the name of an embedded one, or a Hub id; None for a folder.

    >>> known_name("data/tiny_sorter"), known_name("/root/hub/models--org--Model/snapshots/1a2b"), known_name("/a/b")
    ('tiny_sorter', 'org/model', None)
    """
    if cached := CACHED.search(name):
        return f"{cached[1]}/{cached[2]}".lower()
    folder = Path(name).expanduser()
    if is_embedded(name) or is_embedded(folder.name) and place_of(folder.name) == folder.resolve():
        return folder.name
    return None if folder.exists() or is_path(name) else name.lower()


def vllm_rank(rank: int) -> int:
    """The least rank of an adapter that vLLM makes room for and that holds this one.

    >>> vllm_rank(20), vllm_rank(32)
    (32, 32)
    """
    return next((size for size in (8, 16, 32, 64, 128, 256, 320, 512) if size >= rank), rank)


def load_model(
    name: str,
    adapter: str | None = None,
    loading: Loading | None = None,
    *,
    device=None,
    pictures: bool = False,
    field: str = "model",
):
    """A model and its tokenizer; with `pictures` a vision model and its processor.

    `name` is a folder, a Hub id or an embedded model; `adapter` names a PEFT adapter on it. The model lies on `device`,
    by default the GPU if there is one. Raises `ValueError`, which calls the name `field`, with the reason where either
    cannot be loaded.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
    from trl import get_quantization_config

    from rlred.data.prompts import with_pad_token

    check_model(name, field)
    path, loading = resolve_model(name), loading or Loading()
    kind, reader = (AutoModelForImageTextToText, AutoProcessor) if pictures else (AutoModelForCausalLM, AutoTokenizer)
    shared = {"revision": loading.model_revision or "main", "trust_remote_code": loading.trust_remote_code}
    try:
        processor = reader.from_pretrained(path, **shared)
        model = kind.from_pretrained(
            path,
            dtype=loading.dtype,
            attn_implementation=loading.attn_implementation,
            quantization_config=get_quantization_config(loading),
            use_safetensors=True,
            **shared,
        )
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise ValueError(f"{field}={name!r} cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    with_pad_token(processor.tokenizer if pictures else processor)
    if adapter is not None:
        model = _adapted(model, adapter, name)
    return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")), processor


def load_outline(name: str, loading: Loading | None = None, *, pictures: bool = False, field: str = "model"):
    """The same without weights: a model whose tensors have shapes and no values. Raises `ValueError` likewise."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

    from rlred.data.prompts import with_pad_token

    check_model(name, field)
    path, loading = resolve_model(name), loading or Loading()
    kind, reader = (AutoModelForImageTextToText, AutoProcessor) if pictures else (AutoModelForCausalLM, AutoTokenizer)
    shared = {"revision": loading.model_revision or "main", "trust_remote_code": loading.trust_remote_code}
    try:
        processor = reader.from_pretrained(path, **shared)
        config = AutoConfig.from_pretrained(path, **shared)
        with torch.device("meta"):
            model = kind.from_config(config, trust_remote_code=loading.trust_remote_code)
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(f"{field}={name!r} cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    with_pad_token(processor.tokenizer if pictures else processor)
    return model, processor


def load_tokenizer(name: str, trust_remote_code: bool = False, field: str = "--tokenizer"):
    """A tokenizer alone. Raises `ValueError`, which calls the name `field`, where it cannot be loaded."""
    from transformers import AutoTokenizer

    if is_path(name) and not Path(name).expanduser().exists():
        raise ValueError(f"{field} {name!r} cannot be loaded: there is no such folder")
    try:
        return AutoTokenizer.from_pretrained(resolve_model(name), trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ValueError(f"{field} {name!r} cannot be loaded: {str(error).strip().splitlines()[0]}") from error


def local_adapter(name: str, field: str = "--adapter") -> str:
    """The folder of an adapter: `name` itself, that of an embedded one, or what is downloaded of a Hub id.

    Raises `ValueError`, which calls the name `field`, where there is none.
    """
    from huggingface_hub import snapshot_download

    folder = resolve_adapter(name)
    if Path(folder).is_dir():
        return folder
    if is_path(name):
        raise ValueError(f"{field} {name!r} cannot be loaded: there is no such folder")
    try:
        return snapshot_download(folder, allow_patterns=["*.json", "*.jinja", "*.safetensors", "*.model", "*.txt"])
    except Exception as error:  # whatever the Hub or the network raises
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{field} {name!r}: neither a folder nor an adapter that can be downloaded: {reason}"
        ) from error


def _adapted(model, adapter: str, name: str):
    from peft import PeftModel
    from safetensors import SafetensorError

    try:
        return PeftModel.from_pretrained(model, adapter, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"adapter {adapter!r} cannot be loaded on {name!r}: {reason}") from error


def fingerprint(model) -> str | None:
    """16 hexadecimal digits that tell the weights of a model from those of any other, adapters left out.

    Of every parameter the first 16 numbers count, in bfloat16, so that the precision of loading changes nothing. None
    for an engine, and for a model whose weights lie in shares or are not there yet.
    """
    import hashlib

    import torch
    from torch.distributed.tensor import DTensor

    if not isinstance(model, torch.nn.Module):
        return None
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        if "lora_" in name or ".modules_to_save." in name or not weight.is_floating_point():
            continue
        if isinstance(weight, DTensor) or weight.is_meta or not weight.numel():
            return None
        plain = name.replace("base_model.model.", "").replace(".base_layer.", ".").replace(".original_module.", ".")
        first = weight.detach().flatten()[:16].to(torch.bfloat16).float().cpu()
        digest.update(plain.encode() + first.numpy().tobytes())
    return digest.hexdigest()[:16]

"""Saved adapters: whether one fits a model, and training that goes on with one.

on_another_base    a sentence where an adapter was trained on another model
check_adapter      the folder of an adapter that is to be trained on, if it is one of the run's LoRA settings
continue_adapter   its weights in the place of a fresh adapter's
"""

import json
import logging
from pathlib import Path

import torch
from peft import get_peft_model, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open

from rlred.data.models import Loading, fingerprint, known_name, local_adapter, place_of
from rlred.files import read_record

logger = logging.getLogger(__name__)

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
# Fields of an adapter's config, and the settings of a run that they come from.
LORA = {
    "r": "lora_r",
    "lora_alpha": "lora_alpha",
    "modules_to_save": "lora_modules_to_save",
    "use_rslora": "use_rslora",
    "use_dora": "use_dora",
}
# Fields that a run does not set.
UNNAMED = (
    "peft_type",
    "alpha_pattern",
    "rank_pattern",
    "bias",
    "lora_bias",
    "fan_in_fan_out",
    "trainable_token_indices",
)


def on_another_base(
    adapter: str | None, name: str, model, loading: Loading | None = None, use: str = "measured"
) -> str | None:
    """A sentence where an adapter was trained on another model than the one `name`, which is `model`; None otherwise.

    `use` says what is done with it there. The fingerprint of the weights in the adapter's run.json tells, whatever the
    two are called. Where there is none, and with quantised weights or float16, names do: of embedded models and Hub
    ids, others of which may be copies.
    """
    config, record = Path(adapter or "") / "adapter_config.json", Path(adapter or "") / "run.json"
    trained_on = json.loads(config.read_text()).get("base_model_name_or_path") if config.is_file() else None
    if not trained_on or place_of(name) == place_of(trained_on):
        return None
    told = read_record(record) if record.is_file() else {}
    ways = [Loading.of(loading or Loading()), Loading.of(told.get("model") or {})]
    exact = not any(way.load_in_4bit or way.load_in_8bit or way.dtype == "float16" for way in ways)
    before, now = told.get("weights"), fingerprint(model) if exact else None
    if before and now:
        other = before != now
    else:
        public = [known_name(one) for one in (trained_on, name)]
        other = None not in public and public[0] != public[1]
    return f"`{adapter}` was trained on `{trained_on}` and is {use} on `{name}`" if other else None


def check_adapter(name: str, lora, outline, field: str = "adapter") -> Path:
    """The folder of an adapter to train on. Raises `ValueError` where it is not what the run would make afresh.

    `lora` are the LoRA settings of the run, None where it trains no adapter. `outline` is the model without weights
    (rlred/data/models.py), which gets the adapter that the saved one is compared with.
    """
    folder = Path(local_adapter(name, field))
    if missing := [file for file in ADAPTER if not (folder / file).is_file()]:
        raise ValueError(f"{field}={name!r}: there is no {missing[0]} in {folder}")
    if lora is None:
        raise ValueError(f"{field}={name!r}: use_peft=False trains none; set use_peft to true")
    saved = json.loads((folder / ADAPTER[0]).read_text(encoding="utf-8"))
    own = {flag: getattr(lora, key) or None for key, flag in LORA.items()}
    its = {flag: saved.get(key) or None for key, flag in LORA.items()}
    if differ := [flag for flag in own if own[flag] != its[flag]]:
        told = ", ".join(f"{flag} to {its[flag]}" for flag in differ)
        found = ", ".join(f"{flag}={own[flag]}" for flag in differ)
        raise ValueError(f"{field}={name!r} was made with other settings than {found}; set {told}")
    for key in UNNAMED:
        if saved.get(key) and saved[key] != getattr(lora, key):
            raise ValueError(
                f"{field}={name!r} has {key}={saved[key]!r}, which no recipe trains; merge it into its base"
            )
    with torch.device("meta"):
        fresh = get_peft_model_state_dict(get_peft_model(outline, lora), save_embedding_layers=False)
    wanted = {key: list(tensor.shape) for key, tensor in fresh.items()}
    try:
        with safe_open(folder / ADAPTER[1], "pt") as file:
            found = {key: file.get_slice(key).get_shape() for key in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{field}={name!r}: {ADAPTER[1]} cannot be read: {error}") from error
    if differ := sorted(key for key in {*wanted, *found} if wanted.get(key) != found.get(key)):
        raise ValueError(
            f"{field}={name!r} does not fit lora_target_modules={lora.target_modules} of this model: {len(differ)} of "
            f"its weights have another name or shape, such as {differ[0]}; its own are {saved.get('target_modules')}"
        )
    return folder


def continue_adapter(model, name: str, field: str = "adapter") -> None:
    """Puts a saved adapter in the place of the fresh one of a PEFT model. Raises `ValueError` where it cannot."""
    folder, base = local_adapter(name, field), model.get_base_model()
    precision = str(base.dtype).removeprefix("torch.")
    loading = Loading(dtype=precision, load_in_8bit=getattr(base, "is_quantized", False))
    own = model.peft_config["default"].base_model_name_or_path
    if told := on_another_base(folder, own, model, loading, use="trained further"):
        logger.warning("%s", told)
    try:
        model.load_adapter(folder, adapter_name="default", is_trainable=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{field}={name!r} cannot be loaded: {reason}") from error

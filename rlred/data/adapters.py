"""Saved adapters: whether one fits a model, and training that goes on with one.

on_another_base    a sentence where an adapter was trained on another model
check_adapter      the folder of an adapter that is to be trained on, if it is one of the run's LoRA settings
continue_adapter   its weights in the place of a fresh adapter's
"""

import json
import logging
from pathlib import Path

from rlred.data.models import Loading, fingerprint, known_name, local_adapter, place_of
from rlred.files import read_record

logger = logging.getLogger(__name__)

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
# Fields of an adapter's config that a run names otherwise.
LORA = {"r": "lora_r", "lora_alpha": "lora_alpha", "use_rslora": "use_rslora", "use_dora": "use_dora"}


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


def check_adapter(name: str, lora, field: str = "adapter") -> str:
    """The folder of an adapter to train on. Raises `ValueError` where it is not one of the LoRA settings of the run."""
    folder = Path(local_adapter(name, field))
    if missing := [file for file in ADAPTER if not (folder / file).is_file()]:
        raise ValueError(f"{field}={name!r}: there is no {missing[0]} in {folder}")
    if lora is None:
        raise ValueError(f"{field}={name!r}: use_peft=False trains none; set use_peft to true")
    saved = json.loads((folder / ADAPTER[0]).read_text(encoding="utf-8"))
    own = {flag: getattr(lora, key) for key, flag in LORA.items()}
    its = {flag: saved.get(key, own[flag]) for key, flag in LORA.items()}
    if differ := [flag for flag in own if own[flag] != its[flag]]:
        told = ", ".join(f"{flag} to {its[flag]}" for flag in differ)
        found = ", ".join(f"{flag}={own[flag]}" for flag in differ)
        raise ValueError(f"{field}={name!r} was made with other settings than {found}; set {told}")
    return str(folder)


def continue_adapter(model, name: str, field: str = "adapter") -> None:
    """Puts a saved adapter in the place of the fresh one of a PEFT model. Raises `ValueError` where they differ."""
    lora = model.peft_config["default"]
    folder = check_adapter(name, lora, field)
    if told := on_another_base(folder, lora.base_model_name_or_path, model, use="trained further"):
        logger.warning("%s", told)
    try:
        loaded = model.load_adapter(folder, adapter_name="default", is_trainable=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{field}={name!r} cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    if wrong := [*loaded.missing_keys, *loaded.unexpected_keys]:
        raise ValueError(
            f"{field}={name!r} is not on the layers of lora_target_modules: {len(wrong)} weights are on one side "
            f"alone, such as {wrong[0]}"
        )

"""The recipes on pictures, called as from the command line, and made small."""

import hashlib
import sys

from peft import PeftModel
from transformers import AutoModelForImageTextToText

from rlred.runs.visual import main
from tests.paths import ROOT

VLM = ROOT / "data" / "tiny_vlm"
SMALL = ["--max_steps", "2", "--per_device_train_batch_size", "20", "--num_generations", "10"]
SMALL += ["--num_eval_questions", "10", "--logging_steps", "1"]


def command(monkeypatch, recipe, *flags):
    monkeypatch.setattr(sys, "argv", [f"{recipe}.py", *map(str, flags)])
    return main(ROOT / "recipes" / f"{recipe}.py")


def digest():
    """The embedded VLM's weights on disk."""
    return hashlib.sha256((VLM / "model.safetensors").read_bytes()).hexdigest()


def moved(output):
    """The names of the LoRA weights of a run that have left zero; the vision tower has none."""
    model = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(VLM), output)
    weights = {name: value for name, value in model.named_parameters() if "lora_B" in name}
    assert weights and all("language_model" in name for name in weights)
    return [name for name, value in weights.items() if value.abs().sum() > 0]

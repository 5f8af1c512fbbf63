"""The audit of processes: what spreads the training over them is what was asked for, and can do what the run does."""

import os
from collections.abc import Iterator

from transformers import TrainingArguments

from rlred.checks.findings import Finding, error
from rlred.wrapper import SHARES, asked_wrapper, mismatch, told

FULL = "FULL_STATE_DICT"


def audit_devices(training: TrainingArguments) -> Iterator[Finding]:
    """A finding where another wrapper would train than the one that was asked for."""
    if found := mismatch(training):
        yield error(*found)


def audit_shares(training: TrainingArguments, samples: bool, range_test: bool) -> Iterator[Finding]:
    """Findings about a run whose processes hold a share of the weights each.

    `samples` says whether there are sweeps or a hindsight start, `range_test` whether that looks for its learning rate.
    """
    wrapper = asked_wrapper(training)
    if wrapper.startswith("fsdp") and os.environ.get("FSDP_STATE_DICT_TYPE", FULL) != FULL:
        # transformers 5.23 (`Trainer.save_model`) saves nothing then, and says nothing.
        advice = f"the adapter would not be saved; set it to {FULL}"
        yield error("fsdp_state_dict_type", os.environ["FSDP_STATE_DICT_TYPE"], advice)
    if wrapper not in SHARES or not samples:
        return
    advice = f"sweeps and traces under {wrapper} are sampled by transformers alone; set it to false, or use zero2"
    if getattr(training, "use_vllm", False):
        yield error("use_vllm", True, advice)
    if wrapper == "fsdp1":
        yield error("fsdp_version", 1, "its weights are not gathered for sweeps and traces; use fsdp_version: 2")
    if wrapper == "fsdp2" and told("FSDP_CPU_RAM_EFFICIENT_LOADING"):
        advice = "leaves all processes but one without weights until the training begins; set it to false"
        yield error("fsdp_cpu_ram_efficient_loading", os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"], advice)
    if range_test:
        yield error(
            "hindsight_settings.learning_rate", None, f"there is no range test under {wrapper}; set a rate (0.002)"
        )

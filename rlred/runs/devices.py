"""What every run's settings say of devices and processes, whatever it trains: OnDevices, before TRL's config.

Of several processes one often works alone: it measures a stage, samples traces, reads a data set, and the others wait
for it in a collective. Its timeout is no measure of how long that may take, so that it stands at a day here, where
transformers has half an hour. A process that is gone is noticed otherwise: by the launcher on its host, and by
rlred/hosts.py on another.
"""

from dataclasses import dataclass
from datetime import timedelta

import torch
from accelerate import PartialState
from transformers import TrainingArguments
from transformers.utils import is_torch_bf16_gpu_available, is_torch_xla_available

from rlred.flags import option
from rlred.wrapper import told


@dataclass
class OnDevices:
    """Fields and checks that are put before a config of TRL: `class RLConfig(OnDevices, GRPOConfig)`."""

    report_to: None | str | list[str] = option("none", "Trackers to report to.")
    ddp_timeout: int = option(
        86_400, "Seconds for which processes wait for one another in a collective, as while one measures a stage."
    )

    def __post_init__(self):
        check_precision(self)
        if self.ddp_timeout < 1:
            raise ValueError(f"ddp_timeout must be 1 or more seconds, got {self.ddp_timeout}")
        if self.use_cpu or told("ACCELERATE_USE_CPU"):
            # transformers 5.23 leaves the timeout out on the CPU; a group that is there already it takes as it is.
            PartialState(cpu=True, backend=self.ddp_backend, timeout=timedelta(seconds=self.ddp_timeout))
        super().__post_init__()


def check_precision(training: TrainingArguments) -> None:
    """Raises `ValueError` for a half precision that this machine cannot train in. TRL takes bf16 where nothing is said.

    transformers says of bf16 that use_cpu is missing, and accelerate finds out about fp16 when the trainer is made.
    """
    default = training.bf16 is None and not training.fp16
    cpu = "set it to false; to try the run on the CPU, set use_cpu: true and dtype: float32 as well"
    if (training.bf16 or training.bf16_full_eval or default) and not training.use_cpu:
        if not is_torch_bf16_gpu_available() and not is_torch_xla_available():
            said = " (the default)" if default else ""
            raise ValueError(f"bf16=True{said}: this machine has no GPU that computes in bfloat16; {cpu}")
    if training.fp16 and (training.use_cpu or not torch.accelerator.is_available()):
        raise ValueError(f"fp16=True: this machine has no GPU, and a CPU does not train in float16; {cpu}")

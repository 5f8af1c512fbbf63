"""What spreads the training over processes: asked of `accelerate launch`, and found in the run.

accelerate leaves a wrapper out without a word where it does not fit the device: with `use_cpu: true` neither DeepSpeed
nor FSDP is entered, and DDP trains. So a run compares what was asked for with what accelerate's state says, before
anything is sampled, and with the class of the wrapped model when the training begins.

Names: "one process", "ddp", "zero1" ... "zero3", "fsdp1", "fsdp2"; "none" where several processes share nothing.
"""

import json
import logging
import os

from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.nn.parallel import DistributedDataParallel
from transformers import TrainingArguments

logger = logging.getLogger(__name__)

SHARES = ("zero3", "fsdp1", "fsdp2")  # wrappers that leave no process the whole weights


def told(name: str) -> bool:
    """Whether `accelerate launch` has set a variable to true."""
    return os.environ.get(name, "false").lower() == "true"


def asked_wrapper(training: TrainingArguments) -> str:
    """The wrapper that `accelerate launch` or the run's own settings ask for."""
    if training.deepspeed_plugin is not None:
        return f"zero{training.deepspeed_plugin.zero_stage}"
    if told("ACCELERATE_USE_DEEPSPEED"):
        return f"zero{os.environ.get('ACCELERATE_DEEPSPEED_ZERO_STAGE', 2)}"
    if training.fsdp_plugin_args is not None:
        return f"fsdp{training.fsdp_plugin_args.get('fsdp_version', 2)}"
    if told("ACCELERATE_USE_FSDP"):
        return f"fsdp{os.environ.get('FSDP_VERSION', 1)}"
    return "ddp" if int(os.environ.get("WORLD_SIZE", 1)) > 1 else "one process"


def state_wrapper(training: TrainingArguments) -> str:
    """The wrapper that accelerate will use, by its rules (1.15, `AcceleratorState`) and the state of the processes."""
    training.device  # noqa: B018  # sets the state up, if nothing has yet
    state = PartialState()
    kind = state.distributed_type
    if kind == DistributedType.DEEPSPEED:
        return asked_wrapper(training)
    if kind == DistributedType.NO:
        return "one process" if state.num_processes == 1 else "none"
    asked = asked_wrapper(training)
    return asked if asked.startswith("fsdp") and kind != DistributedType.MULTI_CPU else "ddp"


def model_wrapper(wrapped) -> str:
    """The wrapper around a model that is ready for training.

    >>> from torch.nn import Linear
    >>> model_wrapper(Linear(1, 1))
    'one process'
    """
    if hasattr(wrapped, "zero_optimization_stage"):  # DeepSpeed's engine, which need not be installed
        return f"zero{wrapped.zero_optimization_stage()}"
    if isinstance(wrapped, FSDPModule):
        return "fsdp2"
    if isinstance(wrapped, FullyShardedDataParallel):
        return "fsdp1"
    if isinstance(wrapped, DistributedDataParallel):
        return "ddp"
    return "one process" if PartialState().num_processes == 1 else "none"


def matches(asked: str, found: str) -> bool:
    """Whether that is what was asked for; DDP may be around the model of a launcher's only process.

    >>> matches("fsdp2", "fsdp2"), matches("one process", "ddp"), matches("fsdp2", "ddp")
    (True, True, False)
    """
    return asked == found or (asked, found) == ("one process", "ddp")


def mismatch(training: TrainingArguments) -> tuple[str, object, str] | None:
    """Field, value and advice where another wrapper would train than the one that was asked for; None otherwise."""
    asked, found = asked_wrapper(training), state_wrapper(training)
    if matches(asked, found):
        return None
    said = f"{asked} was asked for, and accelerate would train with {found}"
    if training.use_cpu and asked != "ddp":
        return "use_cpu", True, f"{said}; set it to false (docs/scaling.md says how it runs on a CPU)"
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return "num_processes", 1, f"{said}; launch two or more, or leave {asked} out"
    if training.ddp_backend is None:
        return "ddp_backend", None, f"{said}; on a machine without a GPU set it to gloo (docs/scaling.md)"
    device = os.environ.get("ACCELERATE_TORCH_DEVICE")
    return "ACCELERATE_TORCH_DEVICE", device, f"{said}; on a machine without a GPU set it to cpu (docs/scaling.md)"


def check_wrapper(training: TrainingArguments, shares: bool = True) -> None:
    """Raises `ValueError` where another wrapper would train than the one that was asked for; else says which.

    Without `shares` one that leaves no process the whole weights is refused as well.
    """
    if found := mismatch(training):
        raise ValueError("{}={}: {}".format(*found))
    if not shares and (name := asked_wrapper(training)) in SHARES:
        raise ValueError(f"{name}: this recipe samples from whole weights; launch it with ddp or zero2")
    logger.info("processes: %s", json.dumps(described(training)))


def described(training: TrainingArguments) -> dict:
    """Which wrapper trains on how many processes, for run.json and the log."""
    state = PartialState()
    names = {"asked": asked_wrapper(training), "found": state_wrapper(training)}
    return {**names, "processes": state.num_processes, "device": state.device.type}


def restart_state(training: TrainingArguments) -> None:
    """Lets a second trainer of this process have a plugin of its own: accelerate keeps the first one's for all."""
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState(cpu=training.use_cpu, backend=training.ddp_backend)
    if training.deepspeed_plugin is not None:
        training.deepspeed_plugin.set_deepspeed_weakref()  # by which transformers shares weights as it reads them


def fsdp_without_gpus() -> None:
    """Lets accelerate enter FSDP on several CPU processes (`ACCELERATE_TORCH_DEVICE=cpu`, `ddp_backend: gloo`).

    accelerate 1.15 takes FSDP for several GPUs alone (`AcceleratorState`), and processes without one for no group at
    all. torch itself shards over gloo.
    """
    if not told("ACCELERATE_USE_FSDP") or os.environ.get("ACCELERATE_TORCH_DEVICE") != "cpu":
        return
    prepare = PartialState._prepare_backend

    def prepare_backend(self, cpu=False, sagemaker_dp=False, backend=None):
        backend, kind = prepare(self, cpu, sagemaker_dp, backend)
        grouped = kind == DistributedType.NO and backend == "gloo" and not cpu and "LOCAL_RANK" in os.environ
        return backend, DistributedType.MULTI_GPU if grouped else kind

    PartialState._prepare_backend = prepare_backend

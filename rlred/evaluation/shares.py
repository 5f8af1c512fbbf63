"""The whole weights of a model whose processes hold a share each, for as long as it samples.

    gathered    a context in which every process has them, as TRL has for rollouts (`ds3_gather_for_generation`)
    hooked      says which DeepSpeed engine moves the shares of a model, so that it keeps still meanwhile

Between sweeps the weights are in shares. A device must hold them whole while it samples, beside no gradients, no
optimizer and no activations.
"""

import contextlib
import weakref

import torch
from accelerate import PartialState
from torch.distributed.fsdp import FSDPModule
from trl.models.utils import add_hooks, remove_hooks

_engines: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # of a model, held weakly too


def hooked(model, engine) -> None:
    """Says that an engine of ZeRO-3 fetches and drops the weights of `model` around its layers."""
    _engines[model] = weakref.ref(engine)


@contextlib.contextmanager
def gathered(model):
    """The weights of `model` are whole on every process while this is open; what is changed in them is forgotten.

    Every process opens it, and may then sample or not. Nothing happens to a model that is whole already, nor to an
    engine that is no module.
    """
    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    units = [module for module in modules if isinstance(module, FSDPModule)]
    with contextlib.ExitStack() as stack:
        shared = bool(units)
        if modules and any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
            stack.enter_context(_gathered_by_deepspeed(model))
            shared = True
        if units:
            stack.enter_context(_gathered_by_fsdp(units))
        yield
        if shared:  # in the group that waits for `ddp_timeout`; those of DeepSpeed and FSDP have timeouts of their own
            PartialState().wait_for_everyone()


@contextlib.contextmanager
def _gathered_by_deepspeed(model):
    import deepspeed

    engine = _engines.get(model, lambda: None)()
    with deepspeed.zero.GatheredParameters(model.parameters()):
        if engine is not None:
            remove_hooks(engine)  # they would drop each layer's weights after its forward pass
        try:
            yield
        finally:
            if engine is not None:
                add_hooks(engine)


@contextlib.contextmanager
def _gathered_by_fsdp(units: list[FSDPModule]):
    # There is no public way to read what `set_reshard_after_forward` sets.
    states = [unit._get_fsdp_state() for unit in units]
    groups = [group for state in states for group in _groups(state)]
    before = [state._auto_reshard_after_forward for state in states], [group.post_forward_mesh_info for group in groups]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.reshard()
        for state, value in zip(states, before[0], strict=True):
            state._auto_reshard_after_forward = value
        for group, value in zip(groups, before[1], strict=True):
            group.post_forward_mesh_info = value


def _groups(state) -> list:
    # A unit has a list of groups; in torch 2.10, one or none.
    if hasattr(state, "_fsdp_param_groups"):
        return list(state._fsdp_param_groups)
    return [] if state._fsdp_param_group is None else [state._fsdp_param_group]

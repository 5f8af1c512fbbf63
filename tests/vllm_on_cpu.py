"""A recipe whose colocated vLLM runs on the CPU and can be given weights.

    python -m tests.vllm_on_cpu RECIPE FLAGS...

On a CPU, vLLM 0.30 packs the weights of a linear layer when it has loaded them, and throws the parameters away
(`dispatch_cpu_unquantized_gemm`): TRL's push then ends with "'Parameter' object has no attribute 'weight_loader'". Here
they stay as they are, which they do on a GPU.
"""

import runpy
import sys

import torch


def keep(layer: torch.nn.Module, remove_weight: bool) -> None:
    """In the place of the packing: the layer multiplies by the parameter that it has."""
    layer.cpu_linear = torch.nn.functional.linear


if __name__ == "__main__":
    from vllm.model_executor.layers import utils

    utils.dispatch_cpu_unquantized_gemm = keep
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")

"""Cost of a net: parameters, multiply-adds, file size, latency."""

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from kd_runner.profiling.multiply_adds import counter


@torch.no_grad()
def static(net: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Size of a net and operations of one call.

    Args:
        net: any module; it is copied to the CPU.
        inputs: keyword arguments of the call.

    Returns:
        `parameters`; `macs`, multiply-adds of the call, see `multiply_adds.counter`; `weights_bytes` of a
        `.safetensors` file; `input`, the shape of each argument.
    """
    module = copy.deepcopy(net).cpu().eval().requires_grad_(False)  # the counter hooks tensors that require a gradient
    with counter() as counted:
        module(**inputs)
    return {
        "parameters": sum(p.numel() for p in module.parameters()),
        "macs": counted.get_total_flops() // 2,
        "weights_bytes": len(
            safetensors.torch.save({k: v.contiguous().clone() for k, v in module.state_dict().items()})
        ),
        "input": {argument: list(value.shape) for argument, value in inputs.items()},
    }


def latency(
    runs: Mapping[str, Callable[[], Any]],
    rounds: int = 30,
    warmup: int = 3,
    statistic: Callable[[list[float]], float] = statistics.median,
) -> dict[str, float]:
    """Latency of several callables, measured in turns so that all see the same load of the machine.

    Args:
        runs: name -> callable without arguments.
        rounds: measured calls of each.
        warmup: calls of each before that.
        statistic: of the measured calls; `min` is least disturbed by what else the machine does.

    Returns:
        name -> milliseconds.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(warmup + rounds):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if turn >= warmup:
                times[name].append(time.perf_counter() - started)
    return {name: 1000 * statistic(values) for name, values in times.items()}


def torch_call(net: nn.Module, inputs: Mapping[str, Tensor], args: Sequence[Tensor] = ()) -> Callable[[], Any]:
    """A function that runs a net once in torch, on the CPU, for timing.

    Args:
        net: the net.
        inputs: its arguments by name.
        args: its positional arguments.

    Returns:
        The function.
    """
    module = copy.deepcopy(net).cpu().eval()

    def call() -> Any:
        with torch.inference_mode():
            return module(*args, **inputs)

    return call

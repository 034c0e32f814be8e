"""What pruning took away: parameters and multiply-adds, before and after."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from kd_runner.profiling.multiply_adds import counter


@torch.no_grad()
def multiply_adds(net: nn.Module, *inputs: Tensor, **named: Tensor) -> int:
    """Multiply-adds of one forward pass in eval mode, see `multiply_adds.counter`; pad tokens count.

    Runs on the meta device: nothing is computed and no memory is taken.
    """
    tensors = {name: t.to("meta") for name, t in (*net.named_parameters(), *net.named_buffers())}
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        with counter() as counted:
            on_meta = {name: x.to("meta") for name, x in named.items()}
            functional_call(net, tensors, tuple(x.to("meta") for x in inputs), on_meta)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return counted.get_total_flops() // 2


def cost(net: nn.Module, *inputs: Tensor, **named: Tensor) -> dict[str, int]:
    """`parameters` of `net`, a shared one counted once, and its `multiply_adds` on `inputs`."""
    size = sum(p.numel() for p in net.parameters())
    return {"parameters": size, "multiply_adds": multiply_adds(net, *inputs, **named)}


def table(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """A markdown table of two costs and of what is left, in per cent."""
    lines = ["| | before | after | left |", "|---|---|---|---|"]
    for key in after:
        percent = 100 * after[key] / before[key]
        lines.append(f"| {key.replace('_', ' ')} | {before[key]:,} | {after[key]:,} | {percent:.1f} % |")
    return "\n".join(lines)

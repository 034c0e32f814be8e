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

    Args:
        net: the net.
        *inputs: what it is called with.
        **named: what it is called with by name.

    Returns:
        The number of multiply-adds.
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
    """Size and work of a net.

    Args:
        net: the net.
        *inputs: what it is called with.
        **named: what it is called with by name.

    Returns:
        `parameters`, a shared one counted once, and `multiply_adds` on the inputs.
    """
    size = sum(p.numel() for p in net.parameters())
    return {"parameters": size, "multiply_adds": multiply_adds(net, *inputs, **named)}


def table(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """A markdown table of two costs and of what is left, in percent.

    Args:
        before: names and numbers before pruning.
        after: the same names and the numbers after it.

    Returns:
        The table.
    """
    lines = ["| | before | after | left |", "|---|---|---|---|"]
    for key in after:
        percent = 100 * after[key] / before[key]
        lines.append(f"| {key.replace('_', ' ')} | {before[key]:,} | {after[key]:,} | {percent:.1f} % |")
    return "\n".join(lines)

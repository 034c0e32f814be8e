"""Teachers that know nothing: the control that tells a teacher's knowledge from what else distillation does.

Losses that read a teacher also regularize, change the scale of the gradient, and bring unlabeled images into batch
norms. A student that gains from a null teacher gains from these.
"""

import torch
from torch import Tensor, nn

KINDS = ("random", "permuted")
_STATISTICS = ("running_mean", "running_var")


@torch.no_grad()
def permute(net: nn.Module, seed: int) -> None:
    """Permute the values of every parameter, in place: each tensor keeps its values, and none keeps its place.

    The running statistics of normalization layers are permuted too, or they would still say which channels are large.
    All vectors of one module (scale, shift, mean, variance) get the same permutation, so that a channel's four numbers
    stay together: drawn apart, a large scale would meet a tiny variance, and the outputs would not be finite. Other
    buffers (positions, anchors, index tables) belong to the architecture and stay.

    Args:
        net: the net, trained.
        seed: of the permutations.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        orders: dict[int, Tensor] = {}
        for tensor in _tensors(module):
            order = torch.randperm(tensor.numel(), generator=generator)
            if tensor.ndim == 1:
                order = orders.setdefault(len(tensor), order)
            tensor.copy_(tensor.flatten()[order.to(tensor.device)].view(tensor.shape))


def _tensors(module: nn.Module) -> list[Tensor]:
    """A module's own parameters and running statistics."""
    own = list(module.parameters(recurse=False))
    return [*own, *(buffer for name, buffer in module.named_buffers(recurse=False) if name in _STATISTICS)]

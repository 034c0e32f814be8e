"""Counting multiply-adds."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


@contextmanager
def counter() -> Iterator[FlopCounterMode]:
    """Torch's counter of floating-point operations, two to a multiply-add: matrix products, convolutions and both
    products of attention, not norms and activations. By itself it overlooks fused attention on a CPU.
    """
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # of nn.MultiheadAttention: a single operation
    try:
        with FlopCounterMode(display=False, custom_mapping={fused: _attention}) as counted:
            yield counted
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)

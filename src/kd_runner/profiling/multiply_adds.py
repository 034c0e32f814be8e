"""Counting multiply-adds."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


@contextmanager
def counter() -> Iterator[FlopCounterMode]:
    """Torch's counter of floating-point operations, extended by fused attention on a CPU.

    It counts matrix products, convolutions and both products of attention (two operations per multiply-add), not norms
    and activations.

    Yields:
        The counter; read `get_total_flops()` after the calls.
    """
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # of nn.MultiheadAttention: a single uncounted operation
    try:
        with FlopCounterMode(display=False, custom_mapping={fused: _attention}) as counted:
            yield counted
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)

"""Libraries for sparse convolution, by name. All keep weights as (out, k0, k1, k2, in), so checkpoints fit each."""

import importlib
from typing import Any

from kd_runner.errors import nearest

BACKENDS = {
    "torch": "kd_runner.models.bevfusion.sparse_conv",
    "spconv": "spconv.pytorch",
    "spconv_triton": "spconv_triton.pytorch",
}


def load(name: str) -> Any:
    """Import a library for sparse convolution.

    Args:
        name: `torch` runs and trains everywhere; `spconv` trains with CUDA and only infers on a CPU; `spconv_triton`
            needs a GPU.

    Returns:
        The module with SparseConvTensor, SubMConv3d and SparseConv3d.

    Raises:
        ValueError: no such backend, or its package is not installed.
    """
    if name not in BACKENDS:
        raise ValueError(f"backend: there is no {name!r}.{nearest(name, BACKENDS)}")
    try:
        return importlib.import_module(BACKENDS[name])
    except ImportError as error:
        package = {"spconv": "spconv-cu126 (or spconv for CPU)", "spconv_triton": "spconv-triton"}.get(name, name)
        raise ValueError(
            f"backend={name} cannot be imported ({error}): pip install {package}, or set backend=torch"
        ) from error

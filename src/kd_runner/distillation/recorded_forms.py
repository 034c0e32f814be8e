"""Forms in which a recorded output is stored: whole, the largest k of its channels, or as 8-bit integers.

`dense`: `<name>.npy` (N, *shape). `top_k`: `<name>.npy` (N, k + 1, ...), the k largest logits of each position and the
logarithm of the mean of exp over the others, and `<name>_indices.npy` (N, k, ...) the classes of the k. `int8`:
`<name>.npy` (N, *shape) of int8, and `<name>_scale.npy` (N, C), one scale a sample and channel. No torch is needed to
write them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Parts = Mapping[str, NDArray]


def top_k(logits: NDArray, k: int) -> tuple[NDArray[np.float16], NDArray]:
    """The `top_k` form of logits.

    Args:
        logits: (N, C, ...).
        k: how many of the C classes are kept, 1 .. C - 1.

    Returns:
        Values (N, k + 1, ...) float16, the last one `log(mean(exp(others)))`, so that at temperature 1 the others$
        keep their probability together; indices (N, k, ...) of the k, uint8 up to 256 classes, else uint16.

    Raises:
        ValueError: k is out of range.
    """
    classes = logits.shape[1]
    if not 0 < k < classes:
        raise ValueError(f"k={k}: 1 .. {classes - 1} for {classes} classes")
    logits = np.asarray(logits, np.float32)
    order = np.argsort(-logits, axis=1, kind="stable")
    values, others = (np.take_along_axis(logits, order[:, part], 1) for part in (slice(k), slice(k, None)))
    largest = others.max(1, keepdims=True)
    rest = largest + np.log(np.exp(others - largest).mean(1, keepdims=True))
    return np.concatenate([values, rest], 1).astype(np.float16), order[:, :k].astype(_index_type(classes))


def int8(values: NDArray) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """The `int8` form of an output: `value = integer * scale`.

    Args:
        values: (N, C, ...).

    Returns:
        Integers (N, C, ...) in -127..127, scales (N, C).
    """
    values = np.asarray(values, np.float32)
    flat = np.abs(values).reshape(*values.shape[:2], -1)
    scale = np.maximum(flat.max(2), 1e-12) / 127
    integers = np.rint(values / scale.reshape(*scale.shape, *[1] * (values.ndim - 2)))
    return integers.astype(np.int8), scale.astype(np.float32)


def arrays_of(name: str, entry: Mapping[str, Any]) -> dict[str, tuple[str, tuple[int, ...], np.dtype]]:
    """Part to (file, shape of a sample, dtype) of an output.

    Args:
        name: of the output.
        entry: `shape`, `dtype`, and for other forms than `dense` the `form`, with `k` for `top_k`.

    Returns:
        Part to its file, shape and dtype.
    """
    shape, dtype, form = tuple(entry["shape"]), np.dtype(entry["dtype"]), entry.get("form", "dense")
    if form == "top_k":
        k, rest = int(entry["k"]), shape[1:]
        return {
            "values": (f"{name}.npy", (k + 1, *rest), dtype),
            "indices": (f"{name}_indices.npy", (k, *rest), np.dtype(_index_type(shape[0]))),
        }
    if form == "int8":
        return {
            "values": (f"{name}.npy", shape, np.dtype(np.int8)),
            "scale": (f"{name}_scale.npy", shape[:1], np.dtype(np.float32)),
        }
    return {"values": (f"{name}.npy", shape, dtype)}


def _index_type(classes: int) -> type[np.unsignedinteger]:
    return np.uint8 if classes <= 256 else np.uint16


def _dense(parts: Parts, entry: Mapping[str, Any]) -> NDArray:
    values = np.array(parts["values"])
    return values.astype(np.float32) if values.dtype.kind == "f" else values


def _from_top_k(parts: Parts, entry: Mapping[str, Any]) -> NDArray:
    """Logits (B, C, ...): those that were kept, and the same value for all others."""
    values = np.asarray(parts["values"], np.float32)
    logits = np.repeat(values[:, -1:], entry["shape"][0], 1)
    np.put_along_axis(logits, parts["indices"].astype(np.int64), values[:, :-1], 1)
    return logits


def _from_int8(parts: Parts, entry: Mapping[str, Any]) -> NDArray:
    scale = parts["scale"]
    return parts["values"] * scale.reshape(*scale.shape, *[1] * (parts["values"].ndim - 2))


FORMS: dict[str, Callable[[Parts, Mapping[str, Any]], NDArray]] = {
    "dense": _dense,
    "top_k": _from_top_k,
    "int8": _from_int8,
}

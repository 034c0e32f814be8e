"""What stored outputs depend on: the teacher's weights, settings, and the files that it is shown."""

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn


def digest(parts: Mapping[str, Any]) -> str:
    """A short name for settings.

    Args:
        parts: the settings.

    Returns:
        20 hexadecimal digits.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:20]


def weights(net: nn.Module) -> str:
    """SHA-256 of all parameters and buffers, also those outside of the state dict, with names and shapes.

    Args:
        net: the net.

    Returns:
        64 hexadecimal digits.
    """
    sha = hashlib.sha256()
    tensors = net.state_dict()
    extra = {name: value for name, value in net.named_buffers(remove_duplicate=False) if name not in tensors}
    for name, value in (*tensors.items(), *extra.items()):
        value = value.detach().cpu().contiguous()
        sha.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        sha.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def sources(objects: Iterable[Any]) -> dict[str, str]:
    """Digests of the source files of classes and functions; installed packages count by name alone.

    Args:
        objects: the classes and functions.

    Returns:
        Name to digest.
    """
    digests: dict[str, str] = {}
    for part in objects:
        file = getattr(sys.modules.get(part.__module__), "__file__", None)
        installed = file is None or "site-packages" in file
        content = b"" if installed else Path(str(file)).read_bytes()
        digests[f"{part.__module__}.{part.__qualname__}"] = hashlib.sha256(content).hexdigest()[:20]
    return digests


def files(root: str | Path) -> dict[str, Any]:
    """What is known of the files below a folder, hidden ones left out.

    Args:
        root: the folder.

    Returns:
        Number, bytes, and a digest of names, sizes and times.
    """
    entries = sorted(_files(str(root), ""))
    state = hashlib.sha256("\n".join(f"{name} {size} {time}" for name, size, time in entries).encode())
    return {"files": len(entries), "bytes": sum(size for _, size, _ in entries), "state": state.hexdigest()[:20]}


def _files(folder: str, prefix: str) -> Iterator[tuple[str, int, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _files(entry.path, f"{prefix}{entry.name}/")
            else:
                status = entry.stat()
                yield f"{prefix}{entry.name}", status.st_size, status.st_mtime_ns


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two settings, in words.

    Args:
        before: settings of the stored outputs.
        now: settings of this run.
        prefix: key of both, for nested settings.

    Returns:
        One entry per key that differs.
    """
    changes = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changes += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            changes.append(f"{prefix}{key}: {old} then, {new} now")
    return changes

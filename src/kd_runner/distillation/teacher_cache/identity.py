"""What stored outputs depend on: the teacher's weights, settings, and the files that it is shown."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn


def digest(parts: Mapping[str, Any]) -> str:
    """A short name for settings."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:20]


def weights(net: nn.Module) -> str:
    """SHA-256 of all parameters and buffers, with names and shapes: wherever the weights came from."""
    found = hashlib.sha256()
    for name, value in net.state_dict().items():
        value = value.detach().cpu().contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def files(root: str | Path) -> dict[str, Any]:
    """Number, bytes and a digest of names, sizes and times of the files below a folder, hidden ones left out."""
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
                found = entry.stat()
                yield f"{prefix}{entry.name}", found.st_size, found.st_mtime_ns


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs, in words, key by key."""
    found = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key}: {old} then, {new} now")
    return found

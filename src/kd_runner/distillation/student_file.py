"""`student.safetensors`: the weights of one net, and in its header what rebuilds the net.

The header has one entry `kd_runner` (one, since safetensors writes several in random order), JSON with

- `net`: the net's configuration, `{"_target_": "package.Class", "width": 64, ...}`, resolved;
- `pruning`: JSON of what pruning kept (`pruning.spec`), where the net was pruned.
"""

import importlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from kd_runner.distillation.checkpoints import find_file, read
from kd_runner.errors import ConfigError, nearest
from kd_runner.pruning.pruned import rebuild
from kd_runner.runtime.digests import replace_with_digest

HEADER = "kd_runner"


@dataclass(frozen=True)
class Header:
    """What a weights file says of its net; both None for a file from elsewhere.

    Args:
        net: the net's configuration.
        pruning: JSON for `pruning.pruned.rebuild`.
    """

    net: dict[str, Any] | None = None
    pruning: str | None = None


def save_student(
    net: nn.Module, path: Path, net_config: Mapping[str, Any] | None = None, pruning: str | None = None
) -> None:
    """Write the weights of a net as `.safetensors`, atomically. They load into the plain class without this package.

    Args:
        net: the net.
        path: the file.
        net_config: the resolved configuration of the net; without it `load_student` cannot rebuild the net.
        pruning: `Pruned.header` of a pruned net.
    """
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in net.state_dict().items()}
    header: dict[str, Any] = {}
    if net_config is not None:
        header["net"] = net_config
    if pruning is not None:
        header["pruning"] = pruning
    metadata = {HEADER: json.dumps(header, default=str)} if header else None
    content = safetensors.torch.save(tensors, metadata=metadata)
    replace_with_digest(path, lambda file: file.write(content))


def read_header(path: str | Path) -> Header:
    """The header of a weights file. Builds and runs nothing.

    Args:
        path: a file, or the folder of a run.

    Returns:
        What it says.

    Raises:
        ConfigError: the net's configuration is no JSON mapping.
    """
    path = find_file(path)
    if path.suffix != ".safetensors" or not path.is_file():
        return Header()
    try:
        with safetensors.safe_open(path, "pt") as file:
            text = file.metadata() or {}
    except safetensors.SafetensorError:
        return Header()  # `read` says what is wrong with it
    if HEADER not in text:
        return Header()
    try:
        header = json.loads(text[HEADER])
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: the header's {HEADER} is not JSON: {error}") from error
    if not isinstance(header, dict) or not isinstance(header.get("net", {}), dict):
        raise ConfigError(f"{path}: the header's {HEADER} is no mapping")
    return Header(header.get("net"), header.get("pruning"))


def load_student(path: str | Path) -> nn.Module:
    """The net of a weights file that a run wrote: a plain `nn.Module` with its weights, in eval mode, on the CPU.

    Everything comes from the file: class, arguments and pruned widths. The package that defines the class must be
    importable. The class that the header names is called with the arguments that it gives, so load only files from
    people whose code you would run. Names from Python's standard library are refused.

    Args:
        path: `student.safetensors`, or the folder of a run.

    Returns:
        The net.

    Raises:
        ConfigError: no such file, no header, a class that cannot be imported, or weights that do not fit.

    Example:
        >>> import kd_runner
        >>> net = kd_runner.load_student("outputs/student.safetensors")
        >>> scores = net(torch.zeros(1, 3, 64, 64))
    """
    from hydra.utils import instantiate

    path = find_file(path)
    header, tensors = read_header(path), read(path, "load_student")
    if header.net is None:
        raise ConfigError(
            f"{path}: its header does not say which net it belongs to; build the net, then load_state_dict"
        )
    if "_target_" not in header.net:
        raise ConfigError(f"{path}: the header's {HEADER} names no _target_")
    for target in _targets(header.net):
        check_target(target, path)
    with torch.random.fork_rng(devices=[]):  # initial weights, which are overwritten
        try:
            net = instantiate(header.net, _convert_="all")
        except Exception as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            raise ConfigError(
                f"{path}: {header.net['_target_']} cannot be built as the header says: {reason}"
            ) from error
    if not isinstance(net, nn.Module):
        raise ConfigError(f"{path}: {header.net['_target_']} gives a {type(net).__name__}, not a torch.nn.Module")
    if header.pruning is not None:
        try:
            rebuild(net, header.pruning, str(path))
        except ValueError as error:
            raise ConfigError(f"{path}: the pruning in its header does not fit its net: {error}") from error
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise ConfigError(f"{path}: the weights do not fit the net that the header names: {error}") from error
    return net.eval()


def _targets(node: Any) -> Iterator[Any]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield node["_target_"]
        for part in node.values():
            yield from _targets(part)
    elif isinstance(node, list):
        for part in node:
            yield from _targets(part)


def check_target(target: Any, path: Path) -> None:
    """Refuse what is no importable name, and what comes from the standard library.

    Args:
        target: what a header names as the net's class.
        path: file of the header, for messages.

    Raises:
        ConfigError: with the file, the target, and the nearest name where a part is misspelt.
    """
    if not isinstance(target, str) or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", target):
        raise ConfigError(f"{path}: the header's _target_ {str(target)[:60]!r} is no dotted name of a class")
    if target.split(".")[0] in sys.stdlib_module_names:
        raise ConfigError(f"{path}: the header's _target_ {target} is no net: it belongs to Python's standard library")
    parts = target.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            value: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError as error:
            if error.name is None or not target.startswith(error.name):
                raise ConfigError(f"{path}: {target} needs the package {error.name!r}") from error
            continue
        for part in parts[length:]:
            if not hasattr(value, part):
                known = [name for name in dir(value) if not name.startswith("_")]
                raise ConfigError(f"{path}: {target}: no {part!r} in {parts[0]}.{nearest(part, known)}")
            value = getattr(value, part)
        return
    raise ConfigError(f"{path}: {target}: no package {parts[0]!r}; it must be importable")

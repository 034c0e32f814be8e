"""Read weights into a net: key layouts of other projects, and which names matched."""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from hydra.utils import get_method
from torch import Tensor, nn

from kd_runner.errors import ConfigError, named, nearest
from kd_runner.runtime.digests import check_digest

# Where the usual training frameworks put the weights inside a checkpoint.
CONTAINERS = ("state_dict", "model_state_dict", "model", "student")


@dataclass
class Coverage:
    """Result of matching checkpoint tensors to a model: names by what became of them."""

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    wrong_shape: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return not (self.missing or self.unexpected or self.wrong_shape)

    def __str__(self) -> str:
        parts = [f"{len(self.matched)} matched"]
        for name in ("missing", "unexpected", "wrong_shape", "dropped"):
            keys = getattr(self, name)
            shown = f" ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})" if keys else ""
            parts.append(f"{len(keys)} {name.replace('_', ' ')}{shown}")
        return ", ".join(parts)


def find_file(path: str | Path, role: str = "student") -> Path:
    """The weights file: the path itself, or in the folder of a run its `<role>.safetensors`.

    Args:
        path: a file, or the folder of a run.
        role: `student` or `teacher`; of a folder that has only the other one's file, that is taken.

    Returns:
        The file.

    Raises:
        ConfigError: the folder holds no such file.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        return path
    for name in (role, "student", "teacher"):
        if (path / f"{name}.safetensors").is_file():
            return path / f"{name}.safetensors"
    files = sorted(file.name for file in path.iterdir() if file.suffix in (".safetensors", ".ckpt", ".pt", ".pth"))
    hint = f"; it holds {', '.join(files[:5])}" if files else ""
    raise ConfigError(f"{path} is a folder without {role}.safetensors{hint}. Name a weights file")


def file_of_role(path: str | Path, role: str) -> Path:
    """`find_file` for `<role>.checkpoint` of the configuration.

    Args:
        path: a file, or the folder of a run.
        role: `student` or `teacher`.

    Returns:
        The file.

    Raises:
        ConfigError: the folder holds no such file.
    """
    try:
        return find_file(path, role)
    except ConfigError as error:
        raise ConfigError(f"{role}.checkpoint: {error}") from error


def read(path: str | Path, key: str) -> dict[str, Tensor]:
    """Tensors of a `.safetensors`, or of a torch file, by name. Runs no code from the file (`weights_only=True`).

    Args:
        path: a file, or the folder of a run (`find_file`).
        key: configuration key for messages, `student.checkpoint` or `teacher.checkpoint`.

    Returns:
        Name to tensor.

    Raises:
        ConfigError: no such file, not a checkpoint, cut short, holding objects other than tensors and plain data, or
            a tensor with nan or infinity.
    """
    try:
        path = find_file(path, key.partition(".")[0])
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error
    if not path.is_file():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        where = nearest(path.name, siblings) if siblings else f" The folder {path.parent} does not exist."
        raise ConfigError(f"{key}: no file {path}.{where}")
    check_digest(path, key)
    try:
        if path.suffix == ".safetensors":
            return _finite(safetensors.torch.load_file(path), key, path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except ConfigError:
        raise
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{key}: {path} holds objects other than tensors and plain data, or is no checkpoint; it was not loaded, "
            f"since loading could run code from it. Save its state dict alone. ({_reason(error)})"
        ) from error
    except Exception as error:  # a damaged file raises whatever its bytes happen to say: IndexError, struct.error, ...
        raise ConfigError(f"{key}: {path} is cut short or no checkpoint ({_reason(error)})") from error
    return _finite(_tensors(content, key, path), key, path)


def _finite(tensors: dict[str, Tensor], key: str, path: Path) -> dict[str, Tensor]:
    for name, value in tensors.items():
        if value.is_floating_point() and not (finite := value.isfinite()).all():
            count = value.numel() - int(finite.sum())
            raise ConfigError(f"{key}: {path}: tensor {name!r} has {count} nan or infinite of {value.numel()} values")
    return tensors


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]


def _tensors(content: Any, key: str, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inner = next((content[c] for c in CONTAINERS if isinstance(content.get(c), Mapping)), None)
        if inner is None:
            break
        content = inner
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not tensors:
        raise ConfigError(f"{key}: {path} holds no state dict, neither at the top nor under {', '.join(CONTAINERS)}")
    return tensors


def load(
    net: nn.Module,
    path: str | Path,
    key: str,
    strip: str = "",
    rename: Mapping[str, str] | None = None,
    drop: Sequence[str] = (),
    convert: str | None = None,
) -> Coverage:
    """Load a checkpoint into a net and report what matched. Nothing is loaded where a name is missing or misfits.

    Args:
        net: filled in place.
        path: a file, or the folder of a run.
        key: configuration key for messages.
        strip: prefix that is cut off; where any key has it, keys without it are dropped.
        rename: parts of names, the file's to the net's, replaced in the order given.
        drop: parts of names whose tensors belong to something else (`aux_classifier.`), dropped and counted.
        convert: dotted name of a function that turns tensors of another layout, by name, into the net's; done first.

    Returns:
        What matched.
    """
    tensors = read(path, key)
    if convert is not None:
        with named(f"{key}_keys.convert={convert}"):
            tensors = get_method(convert)(tensors)
    return fit(net, tensors, strip=strip, rename=rename, drop=drop)


def fit(
    net: nn.Module,
    tensors: Mapping[str, Tensor],
    strip: str = "",
    rename: Mapping[str, str] | None = None,
    drop: Sequence[str] = (),
) -> Coverage:
    """`load` for tensors at hand.

    Args:
        net: filled in place.
        tensors: name to tensor.
        strip: as for `load`.
        rename: as for `load`.
        drop: as for `load`.

    Returns:
        What matched.
    """
    coverage, expected, fitting = Coverage(), net.state_dict(), {}
    prefixed = bool(strip) and any(name.startswith(strip) for name in tensors)
    for foreign, value in tensors.items():
        if (prefixed and not foreign.startswith(strip)) or any(part in foreign for part in drop):
            coverage.dropped.append(foreign)
            continue
        name = foreign.removeprefix(strip)
        for old, new in (rename or {}).items():
            name = name.replace(old, new)
        if name not in expected or name in fitting:  # or two foreign names that `rename` made one
            coverage.unexpected.append(foreign)
        elif expected[name].shape != value.shape:
            coverage.wrong_shape.append(f"{name} {tuple(value.shape)} for {tuple(expected[name].shape)}")
        else:
            coverage.matched.append(name)
            fitting[name] = value
    misfits = {text.split(" ")[0] for text in coverage.wrong_shape}
    coverage.missing = [name for name in expected if name not in fitting and name not in misfits]
    if not coverage.missing and not coverage.wrong_shape:
        net.load_state_dict(fitting)
    return coverage


def require(coverage: Coverage, key: str, path: str | Path) -> Coverage:
    """Raise unless every tensor of the net was filled.

    Args:
        coverage: result of `load`.
        key: configuration key for messages.
        path: file of the tensors, for messages.

    Returns:
        The same result.

    Raises:
        ConfigError: with the counts, and the keys to change.
    """
    if coverage.missing or coverage.wrong_shape:
        raise ConfigError(
            f"{key}.checkpoint: {path} does not fit the net: {coverage}. Change {key}.net, or map its names with "
            f"{key}.checkpoint_keys (strip, rename, drop)."
        )
    return coverage


def pruning_spec(path: Path) -> dict[str, Any] | None:
    """What a run's own checkpoint says of its pruning.

    Args:
        path: the checkpoint.

    Returns:
        See `pruning.spec`; None where the student is not pruned.
    """
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True).get("pruning")  # reads this entry alone

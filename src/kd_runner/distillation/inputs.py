"""Names of tensors: the only place that resolves `student.low`, `teacher.logits`, `batch.target`."""

from collections.abc import Iterator, Mapping
from typing import Any

from kd_runner.errors import ConfigError, nearest

SOURCES = ("student", "teacher", "batch")

InputSpec = str | list["InputSpec"] | dict[str, "InputSpec"]


def names(wire: InputSpec) -> Iterator[tuple[str, str]]:
    """Yield (source, name) of every leaf of a wire: a string, or lists and mappings of strings.

    Raises:
        ConfigError: a leaf is not `source.name` with a known source.
    """
    if isinstance(wire, Mapping):
        wire = list(wire.values())
    if isinstance(wire, list):
        for part in wire:
            yield from names(part)
        return
    source, _, name = str(wire).partition(".")
    if source not in SOURCES or not name:
        raise ConfigError(
            f"{wire!r} is not a wire; write one of student.X, teacher.X, batch.X.{nearest(source, SOURCES)}"
        )
    yield source, name


def required_features(wires: list[InputSpec], source: str) -> set[str]:
    """Names that the wires read from one source."""
    return {name for wire in wires for where, name in names(wire) if where == source}


def resolve(wire: InputSpec, scope: Mapping[str, Mapping[str, Any]]) -> Any:
    """Tensors of a wire, in its own shape: a string gives a tensor, a list a list, a mapping a dict."""
    if isinstance(wire, Mapping):
        return {key: resolve(part, scope) for key, part in wire.items()}
    if isinstance(wire, list):
        return [resolve(part, scope) for part in wire]
    ((source, name),) = names(wire)
    values = scope.get(source, {})
    if name not in values:
        raise ConfigError(f"'{source}.{name}' is read but not there.{nearest(name, values)}")
    return values[name]

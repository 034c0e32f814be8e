"""Input specs: which tensors of `student`, `teacher` and `batch` a loss or metric reads, by name."""

from collections.abc import Iterator, Mapping
from typing import Any

from kd_runner.errors import ConfigError, nearest

SOURCES = ("student", "teacher", "batch")

Spec = str | list["Spec"] | dict[str, "Spec"]
"""`source.name`, or lists and mappings of such."""

Sources = Mapping[str, Mapping[str, Any]]
"""Source to its values by name."""


class InputSpec:
    """The inputs of a loss or metric. Parsed once, when it is made; `resolve` then only looks tensors up.

    Args:
        spec: a string `source.name`, or lists and mappings of such; the source is `student`, `teacher` or `batch`.

    Attributes:
        spec: the argument, as plain lists and dicts.
        sources: the sources that are read.

    Raises:
        ConfigError: an entry is not `source.name` with a known source.

    Example:
        >>> spec = InputSpec({"logits": "student.out", "target": "batch.label"})
        >>> spec.resolve({"student": {"out": 1.0}, "batch": {"label": 2}})
        {'logits': 1.0, 'target': 2}
    """

    def __init__(self, spec: Any):
        self.spec: Spec = _plain(spec)
        self._parsed = _parse(self.spec)
        self._names = tuple(dict.fromkeys(_names(self._parsed)))
        self.sources = frozenset(source for source, _ in self._names)

    def required_features(self, source: str) -> tuple[str, ...]:
        """Names that are read from one source, each once, in the order of the spec.

        Args:
            source: `student`, `teacher` or `batch`.

        Returns:
            The names.
        """
        return tuple(name for read, name in self._names if read == source)

    def resolve(self, sources: Sources) -> Any:
        """Replace the names of the spec by tensors.

        Args:
            sources: source to its values by name.

        Returns:
            The structure of the spec: a string gives a tensor, a list a list, a mapping a dict.

        Raises:
            ConfigError: a name is not among the values of its source.
        """
        return _resolve(self._parsed, sources)


def _plain(spec: Any) -> Any:
    if isinstance(spec, InputSpec):
        return spec.spec
    if isinstance(spec, Mapping):
        return {str(key): _plain(part) for key, part in spec.items() if part is not None}  # null: not given
    if isinstance(spec, list | tuple):
        return [_plain(part) for part in spec]
    return spec


def _parse(spec: Any) -> Any:
    """The spec with a tuple (source, name) for every string."""
    if isinstance(spec, dict):
        return {key: _parse(part) for key, part in spec.items()}
    if isinstance(spec, list):
        return [_parse(part) for part in spec]
    source, _, name = str(spec).partition(".")
    if source not in SOURCES or not name:
        raise ConfigError(
            f"{spec!r} is not an input spec; write one of student.X, teacher.X, batch.X.{nearest(source, SOURCES)}"
        )
    return source, name


def _names(parsed: Any) -> Iterator[tuple[str, str]]:
    if isinstance(parsed, tuple):
        yield parsed
        return
    for part in parsed.values() if isinstance(parsed, dict) else parsed:
        yield from _names(part)


def _resolve(parsed: Any, sources: Sources) -> Any:
    if isinstance(parsed, tuple):
        source, name = parsed
        values = sources.get(source, {})
        if name not in values:
            raise ConfigError(f"'{source}.{name}' is read but not there.{nearest(name, values)}")
        return values[name]
    if isinstance(parsed, dict):
        return {key: _resolve(part, sources) for key, part in parsed.items()}
    return [_resolve(part, sources) for part in parsed]

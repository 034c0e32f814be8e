"""What `_target_` names: it must exist, and take the arguments that it is given."""

import dataclasses
import importlib
import inspect
import pkgutil
import traceback
from collections.abc import Iterator
from typing import Any

from kd_runner.config.instantiation import instantiate_checked
from kd_runner.errors import ConfigError, nearest

_CALL_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}


def targets(node: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Nodes with a `_target_`; not the task, which is called with the whole configuration.

    Args:
        node: nested dicts and lists.
        key: key of the node.

    Yields:
        Key and content of each node.
    """
    if isinstance(node, list):
        for i, part in enumerate(node):
            yield from targets(part, f"{key}[{i}]")
    if isinstance(node, dict):
        if "_target_" in node and key != "task":
            yield key, node
        for name, part in node.items():
            yield from targets(part, f"{key}.{name}" if key else str(name))


def check_call(key: str, node: dict[str, Any]) -> None:
    """Find the class or function that a node names, and check the arguments by its signature.

    Args:
        key: of the node.
        node: `_target_`, and the arguments beside it.

    Raises:
        ConfigError: there is no such object, or it takes other arguments.
    """
    target = locate(node["_target_"], key)
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return  # built in C, without a signature
    given = set(node) - _CALL_KEYS
    kinds = {p.kind for p in parameters.values()}
    unknown = sorted(given - set(parameters)) if inspect.Parameter.VAR_KEYWORD not in kinds else []
    known = set(parameters)
    if unknown and dataclasses.is_dataclass(target):
        # A library may add to what a dataclass takes after its signature was made (configurations of transformers).
        known |= {name for name in dir(target) if not name.startswith("_")} | {*getattr(target, "attribute_map", ())}
        unknown = [name for name in unknown if name not in known]
        if not unknown:
            instantiate_checked(node, key)
            return
    for name in unknown:
        raise ConfigError(f"{key}.{name}: {node['_target_']} takes no {name!r}.{nearest(name, known)}")
    if node.get("_partial_") or node.get("_args_"):
        return
    # These are completed by the runner.
    if key in ("trainer", "logger"):
        return
    for name, parameter in parameters.items():
        positional = parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        if positional and parameter.default is inspect.Parameter.empty and name not in given:
            raise ConfigError(f"{key}.{name}: {node['_target_']} needs it")


def locate(path: Any, key: str) -> Any:
    """The object of a dotted path.

    Args:
        path: e.g. `package.module.Class`.
        key: of the node, for messages.

    Returns:
        The class or function.

    Raises:
        ConfigError: a part is misspelt (with the nearest name), or its file cannot be imported (with file and line).
    """
    if not isinstance(path, str) or not all(path.split(".")):
        raise ConfigError(f"{key}._target_={path}: expected the dotted name of a class or function")
    *parents, name = path.split(".")
    if not parents:
        raise ConfigError(f"{key}._target_={path}: expected a dotted name, e.g. my_file.{name}")
    for end in range(len(parents), 0, -1):
        value = _imported(".".join(parents[:end]), path, key)
        if value is None:
            continue
        for part in [*parents[end:], name]:
            if not hasattr(value, part):
                owner = getattr(value, "__name__", str(value))
                raise ConfigError(f"{key}._target_: no {part!r} in {owner}.{nearest(part, _public(value))}")
            value = getattr(value, part)
        if not callable(value):
            raise ConfigError(f"{key}._target_={path}: it is no class or function")
        return value
    raise ConfigError(
        f"{key}._target_: no module {parents[0]!r} (is its folder the current one, or that of --config-dir?)"
    )


def _imported(module: str, path: str, key: str) -> Any:
    """The module; None where there is none of that name."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(f"{key}._target_: {path} needs the package {error.name!r}") from error
        return None
    except SyntaxError as error:
        raise ConfigError(f"{key}._target_={path}: {error.filename}, line {error.lineno}: {error.msg}") from error
    except Exception as error:  # whatever a user's own file does when it is imported
        frame = traceback.extract_tb(error.__traceback__)[-1]
        first = str(error).splitlines()[0] if str(error) else ""
        raise ConfigError(
            f"{key}._target_={path}: {frame.filename}, line {frame.lineno}: {type(error).__name__}: {first}"
        ) from error


def _public(module: Any) -> list[str]:
    inside = [m.name for m in pkgutil.iter_modules(module.__path__)] if hasattr(module, "__path__") else []
    return [name for name in dir(module) if not name.startswith("_")] + inside

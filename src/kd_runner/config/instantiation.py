"""Objects from configuration nodes; whatever goes wrong names the key."""

import re
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from kd_runner.errors import ConfigError, reason


def instantiate_checked(node: Any, key: str, **more: Any) -> Any:
    """Make the object that a node describes.

    Args:
        node: `_target_`, and the arguments beside it.
        key: of the node, for messages.
        **more: further arguments.

    Returns:
        The object.

    Raises:
        ConfigError: the node is no such mapping, or its object cannot be made; in one line under the key.
    """
    if not isinstance(node, dict | DictConfig) or "_target_" not in node:
        value = "null" if node is None else str(node)
        raise ConfigError(f"{key}={value}: expected keys with a _target_, the dotted name of a class or function")
    try:
        return instantiate(node, _convert_="all", **more)
    except InstantiationException as error:
        if isinstance(error.__cause__, ConfigError):
            raise error.__cause__ from error
        part = re.search(rf"full_key: ({re.escape(key)}\.\S+)", str(error))  # what could not be made may lie within
        text = " ".join(str(error).split()) if error.__cause__ is None else reason(error.__cause__)
        raise ConfigError(f"{key if part is None else part[1]}: {text}") from error

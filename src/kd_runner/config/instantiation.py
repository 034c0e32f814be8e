"""Objects from configuration, with errors that name the key."""

import re
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from kd_runner.errors import ConfigError


def instantiate_checked(node: Any, key: str, **more: Any) -> Any:
    """Make the object that a node describes.

    Args:
        node: `_target_`, and the arguments beside it.
        key: of the node, for messages.
        **more: further arguments.

    Returns:
        The object.

    Raises:
        ConfigError: the constructor's error, in one line under the key.
    """
    try:
        return instantiate(node, _convert_="all", **more)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ConfigError):
            raise cause from error
        part = re.search(rf"full_key: ({re.escape(key)}\.\S+)", str(error))  # what could not be made may lie within
        key = key if part is None else part[1]
        if isinstance(cause, ValueError | TypeError | OSError):
            raise ConfigError(f"{key}: {cause}") from error
        if isinstance(cause, ArithmeticError | LookupError | RuntimeError):
            raise ConfigError(f"{key}: {type(cause).__name__}: {cause}") from error
        raise

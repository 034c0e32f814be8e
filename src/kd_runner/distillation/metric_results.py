"""What a metric computes: one number, or a mapping of names to numbers."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kd_runner.errors import ConfigError


def checked_result(name: str, result: Any) -> dict[str, Any]:
    """The numbers of a metric by the names under which they are logged.

    Args:
        name: of the metric in the configuration.
        result: what its `compute` returned.

    Returns:
        Name to number: the metric's own name where it returned one number.

    Raises:
        ConfigError: anything but numbers.
    """
    results = dict(result) if isinstance(result, Mapping) else {name: result}
    for key, value in results.items():
        is_number = isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1)
        if not isinstance(key, str) or not is_number:
            shown = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ConfigError(f"metric.{name}: compute returned {shown} for {key!r}; a metric gives numbers by name")
    return results

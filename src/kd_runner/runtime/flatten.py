"""Nested mappings as one flat mapping."""

from typing import Any


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Flattens nested dicts to one dict with dotted keys. Lists and empty dicts are values.

    Args:
        node: nested dicts; anything else is a value.
        prefix: key of `node` itself.

    Returns:
        `{"a.b.c": value}`, in the order of `node`.

    Example:
        >>> flatten({"kd": {"alpha": 0.5, "views": None}})
        {'kd.alpha': 0.5, 'kd.views': None}
    """
    if not isinstance(node, dict) or not node:
        return {prefix: node} if prefix else {}
    flat: dict[str, Any] = {}
    for key, part in node.items():
        flat |= flatten(part, f"{prefix}.{key}" if prefix else str(key))
    return flat

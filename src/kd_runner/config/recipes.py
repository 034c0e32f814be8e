"""Weights that a net begins with: what a published recipe asks for, and whether a net names any."""

from typing import Any

from omegaconf import DictConfig
from torch import nn

from kd_runner.errors import ConfigError


def check_pretrained(cfg: DictConfig) -> None:
    """Check that the trained net begins with the published weights that `pretrained` names, or with a checkpoint.

    Args:
        cfg: the composed configuration.

    Raises:
        ConfigError: it would begin with random weights; names what to give.
    """
    role = "teacher" if str(cfg.task._target_).endswith(".train_teacher") else "student"
    node = cfg[role]
    begins_with_file = role == "student" and (node.checkpoint is not None or node.init is not None)
    if not node.get("pretrained") or begins_with_file:
        return
    for argument, value in node.pretrained.items():
        if node.net.get(argument) is None:
            file = f"{role}.checkpoint=FILE, " if role == "student" else ""
            raise ConfigError(
                f"{role}.net.{argument} is null, and this recipe begins with published weights: give "
                f"{role}.net.{argument}={value}, {file}or {role}.pretrained=null for random weights"
            )


def is_random(net: nn.Module, node: Any) -> bool:
    """Whether a net without a checkpoint has random weights.

    Args:
        net: as it was built; one without any parameters is not random.
        node: the configuration that built it, plain mappings, lists and values.

    Returns:
        True where its weights are random.
    """
    return any(True for _ in net.parameters()) and not names_weights(node)


def names_weights(node: Any) -> bool:
    """Whether the configuration of a net names published weights, or a folder of such; also in an inner net.

    Args:
        node: plain mappings, lists and values.

    Returns:
        True for an argument `weights` or `pretrained` that is given, and for `from_pretrained` (Hugging Face).
    """
    if isinstance(node, dict):
        if any(node.get(name) for name in ("weights", "pretrained")):
            return True
        return str(node.get("_target_", "")).endswith(".from_pretrained") or any(map(names_weights, node.values()))
    return isinstance(node, list) and any(map(names_weights, node))

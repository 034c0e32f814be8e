"""What a published recipe asks for: weights to begin with."""

from omegaconf import DictConfig

from kd_runner.errors import ConfigError


def check_pretrained(cfg: DictConfig) -> None:
    """The net that is trained begins with the published weights that `pretrained` names, or with a checkpoint.

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

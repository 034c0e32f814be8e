"""Settings that depend on the device and precision of a run: one place decides them."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from kd_runner.config import calls
from kd_runner.errors import ConfigError


def uses_gpu(cfg: DictConfig) -> bool:
    """Whether the run trains on GPUs.

    Args:
        cfg: the composed configuration.

    Returns:
        True where it does.

    Raises:
        ConfigError: it asks for one, and torch sees none.
    """
    import torch

    available = torch.cuda.is_available()
    if cfg.trainer.accelerator in ("gpu", "cuda"):
        if not available:
            raise ConfigError("trainer: no GPU is visible to torch; use trainer=cpu")
        return True
    return cfg.trainer.accelerator == "auto" and available


def trainer_settings(cfg: DictConfig) -> dict[str, Any]:
    """Arguments of the Trainer that replace `auto`.

    `trainer.deterministic=auto` is true on CPUs and false on GPUs, where some losses have no deterministic kernel.

    Args:
        cfg: the composed configuration.

    Returns:
        Argument to value.
    """
    settings: dict[str, Any] = {"precision": precision(cfg)}
    if cfg.trainer.get("deterministic") == "auto":
        settings["deterministic"] = not uses_gpu(cfg)
    return settings


def precision(cfg: DictConfig) -> str:
    """The precision of a run.

    Args:
        cfg: the composed configuration.

    Returns:
        `trainer.precision`; for `auto` bf16-mixed on GPUs, 32-true on CPUs.
    """
    if cfg.trainer.precision == "auto":
        return "bf16-mixed" if uses_gpu(cfg) else "32-true"
    return str(cfg.trainer.precision)


def check_precision(cfg: DictConfig) -> None:
    """Refuse to round coordinates: `bf16-true` and `16-true` cast all of a batch, not pictures alone.

    Args:
        cfg: the configuration; the dataset of `data.val` may name, as `needs_float32`, what must be exact.

    Raises:
        ConfigError: the precision is not enough for the data.
    """
    target = OmegaConf.select(cfg, "data.val._target_")
    if str(cfg.trainer.precision) not in ("bf16-true", "16-true") or target is None:
        return
    exact = getattr(calls.locate(target, "data.val"), "needs_float32", None)
    if exact is not None:
        mixed = str(cfg.trainer.precision).replace("true", "mixed")
        raise ConfigError(f"trainer.precision={cfg.trainer.precision}: it would round {exact}; take {mixed}")


def optimizer_settings(cfg: DictConfig) -> dict[str, Any]:
    """Arguments of the optimizer that replace configured ones.

    A fused optimizer unscales gradients itself, so Lightning refuses to clip them under mixed precision. There
    `optimizer.fused` is off; the steps are the same but for rounding.

    Args:
        cfg: the composed configuration.

    Returns:
        Argument to value.
    """
    mixed = precision(cfg).endswith("-mixed") or precision(cfg) in ("16", "bf16")
    clips = bool(cfg.trainer.get("gradient_clip_val"))
    return {"fused": None} if mixed and clips and cfg.optimizer.get("fused") else {}

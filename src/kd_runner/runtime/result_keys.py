"""One classification of configuration keys: does a key change the result of a run or not?

Resuming, comparing and gathering runs all ask here, so that they agree on which runs are the same.
"""

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from kd_runner.runtime.flatten import flatten

# Keys, and all below them, that change no weight and no metric of a run beyond rounding.
NO_EFFECT = (
    "resume",
    "cache",
    "logger",
    "export",
    "threads",
    "teacher.fast",
    "task.workers",
    "data.num_workers",
    "data.images_in_memory_mb",
    "kd.teacher_cache.memory_mb",
    "trainer.log_every_n_steps",
    "trainer.profiler",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
)
# Callbacks that only watch. Any other callback, a user's own among them, may change the training.
WATCHING_CALLBACKS = (
    "kd_runner.callbacks.epoch_summary.EpochSummary",
    "kd_runner.callbacks.segmentation_visualizer.",
    "kd_runner.callbacks.roi_visualizer.",
    "kd_runner.callbacks.detection_visualizer.",
    "lightning.pytorch.callbacks.LearningRateMonitor",
    "lightning.pytorch.callbacks.DeviceStatsMonitor",
    "lightning.pytorch.callbacks.Timer",
)
_CHECKPOINT = "lightning.pytorch.callbacks.ModelCheckpoint"


def changes_result(key: str, settings: Mapping[str, Any]) -> bool:
    """Whether two runs that differ in this key may end with other weights or metrics.

    Args:
        key: flattened key, e.g. `kd.temperature`.
        settings: the flattened configuration it is part of.

    Returns:
        False for keys that change no weight and no metric beyond rounding.
    """
    if any(key == name or key.startswith(f"{name}.") for name in NO_EFFECT):
        return False
    group, _, rest = key.partition(".")
    if group == "callbacks" and rest:
        return _callback_changes_result(f"callbacks.{rest.split('.')[0]}", settings)
    return True


def _callback_changes_result(entry: str, settings: Mapping[str, Any]) -> bool:
    target = str(settings.get(f"{entry}._target_", ""))
    if target == _CHECKPOINT:  # one that chooses by a metric decides which weights are reported
        return settings.get(f"{entry}.monitor") is not None
    return not target.startswith(WATCHING_CALLBACKS)


def result_settings(cfg: Any) -> dict[str, Any]:
    """The flattened configuration without the keys that do not change the result.

    Args:
        cfg: nested or already flattened.

    Returns:
        Key to value.
    """
    settings = flatten(OmegaConf.to_container(cfg) if OmegaConf.is_config(cfg) else cfg)
    return {
        key: value
        for key, value in settings.items()
        if changes_result(key, settings) and not (key == "callbacks" and not value)
    }


def differences(saved: Any, new: Any) -> dict[str, tuple[Any, Any]]:
    """Keys that change the result and differ between two configurations.

    Args:
        saved: configuration of the run before.
        new: configuration of this run.

    Returns:
        Key to (saved value, new value).
    """
    before, after = result_settings(saved), result_settings(new)
    keys = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    return {key: (before.get(key), after.get(key)) for key in keys}

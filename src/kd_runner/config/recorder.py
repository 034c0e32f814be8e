"""The recorder of teacher outputs (`kd.teacher_cache`): what its stored outputs depend on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from kd_runner.config import hardware
from kd_runner.distillation.teacher_cache import identity
from kd_runner.distillation.teacher_cache.callback import RecordTeacher
from kd_runner.runtime.result_keys import result_settings
from kd_runner.runtime.run_folder import resolved


def _targets(node: Any) -> Iterator[dict[str, Any]]:
    """Every part of a configuration that names a class or function."""
    parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    if isinstance(node, dict) and "_target_" in node:
        yield node
    for part in parts:
        yield from _targets(part)


def teacher_recorder(cfg: DictConfig) -> Any:
    """The callback that keeps the teacher's outputs for what the training data and its transforms are now.

    Args:
        cfg: the composed configuration.

    Returns:
        The callback.
    """
    parts = (
        *("data.train.", "data.unlabeled.", "scale."),
        *("teacher.net.", "teacher.checkpoint_keys.", "teacher.channels_last."),
        *("teacher.input_transforms.", "teacher.feature_transforms."),
    )
    settings = {key: value for key, value in result_settings(resolved(cfg)).items() if f"{key}.".startswith(parts)}
    settings["precision"] = hardware.precision(cfg)
    data_nodes: Any = OmegaConf.to_container(resolved(cfg).data, resolve=True)
    targets = [node["_target_"] for part in ("train", "unlabeled") for node in _targets(data_nodes[part])]
    settings["data_sources"] = identity.sources(get_object(target) for target in targets)
    folder, cache = Path(cfg.cache).expanduser() / "teacher_outputs", cfg.kd.teacher_cache
    return RecordTeacher(folder, settings, cfg.data.root, cache.views, cache.map_dtype)

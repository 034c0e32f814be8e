"""task=export: the student as a checked ONNX file."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from kd_runner.config import build
from kd_runner.errors import ConfigError
from kd_runner.runtime.files import write_json

log = logging.getLogger(__name__)


def export(cfg: DictConfig, folder: Path) -> None:
    """Write `model.onnx` (with export=int8 also `model_int8.onnx`) from `student.checkpoint`."""
    if cfg.student.checkpoint is None:
        raise ConfigError("student.checkpoint: name the weights to export, e.g. outputs/.../student.safetensors")
    if not cfg.get("export"):
        raise ConfigError("export: choose export=onnx or export=int8")
    module = build.evaluator(cfg, build.student(cfg))
    found = build.instantiate_checked(cfg.export, "export").export(module, build.data(cfg), folder)
    write_json(folder / "metrics.json", found)
    log.info("%s", folder / "model.onnx")

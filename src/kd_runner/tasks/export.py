"""task=export: the student as a checked ONNX file."""

import logging

from omegaconf import DictConfig

from kd_runner.config import build
from kd_runner.distillation import checkpoints
from kd_runner.errors import ConfigError
from kd_runner.report.provenance import recorded_run, recorded_score
from kd_runner.runtime.files import write_json
from kd_runner.runtime.run_folder import RunFolder

log = logging.getLogger(__name__)


def export(cfg: DictConfig, run: RunFolder) -> None:
    """Write `model.onnx` (with export=int8 also `model_int8.onnx`) from `student.checkpoint`.

    Args:
        cfg: the composed configuration.
        run: folder where the files are written.

    Raises:
        ConfigError: no weights are named, no export is chosen, or a file differs from torch by more than its tolerance.
    """
    if cfg.student.checkpoint is None:
        raise ConfigError("student.checkpoint: name the weights to export, e.g. outputs/.../student.safetensors")
    if not cfg.get("export"):
        raise ConfigError("export: choose export=onnx or export=int8")

    def work() -> None:
        module = build.evaluator(cfg, build.student(cfg))
        file = checkpoints.find_file(cfg.student.checkpoint, "student")
        teacher = recorded_run(file).get("teacher_sha256")
        result = build.exporter(cfg).export(module, build.data(cfg), run.path, recorded_score(file), teacher)
        write_json(run.metrics_file, result)
        log.info("%s", run.path / "model.onnx")

    run.run_or_load(cfg, work)

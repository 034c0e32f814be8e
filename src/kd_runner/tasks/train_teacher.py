"""task=train_teacher: train the teacher's own net from labels."""

from pathlib import Path

from omegaconf import DictConfig

from kd_runner.config import build
from kd_runner.runtime import run_folder
from kd_runner.tasks.train import fit_and_report


def train_teacher(cfg: DictConfig, folder: Path) -> float | None:
    """Train `teacher.net` as a student without distillation; its weights are `teacher.safetensors`."""
    cfg = cfg.copy()
    cfg.kd.enabled = False
    if cfg.get("pruning"):
        cfg.pruning = None

    def work() -> float | None:
        net = build.feature_extractor(cfg, "teacher", build.net(cfg, "teacher"))
        return fit_and_report(cfg, folder, build.data(cfg), net, teacher=None)

    return run_folder.run_or_load(folder, cfg, work)

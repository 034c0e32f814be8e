"""run=teacher: train the teacher's own net from labels."""

from pathlib import Path

from omegaconf import DictConfig

from kd_runner import build, folders
from kd_runner.tasks.distill import train


def teacher(cfg: DictConfig, folder: Path) -> float | None:
    """Train `teacher.net` as a student without distillation; its weights are `teacher.safetensors`."""
    cfg = cfg.copy()
    cfg.kd.enabled = False
    if cfg.get("pruning"):
        cfg.pruning = None

    def work() -> float | None:
        net = build.tapped(cfg, "teacher", build.net(cfg, "teacher"))
        return train(cfg, folder, build.data(cfg), net, teacher=None)

    return folders.once(folder, cfg, work)

"""task=train_teacher: train the teacher's own net from labels."""

from omegaconf import DictConfig

from kd_runner.config import build
from kd_runner.runtime.run_folder import RunFolder
from kd_runner.tasks.train import fit_and_report


def train_teacher(cfg: DictConfig, run: RunFolder) -> float | None:
    """Train `teacher.net` as a student without distillation; its weights are `teacher.safetensors`.

    It starts from `teacher.checkpoint` where one is named, else from initial weights.

    Args:
        cfg: the composed configuration; it is not changed.
        run: folder of the run.

    Returns:
        The teacher's metric (`monitor`).

    Raises:
        ConfigError: the settings cannot work, or the folder holds a run of other ones.
    """
    cfg = cfg.copy()
    cfg.kd.enabled = False
    if cfg.get("pruning"):
        cfg.pruning = None

    def work() -> float | None:
        module = build.net(cfg, "teacher")
        pruned = build.rebuild_pruned(cfg, "teacher", module)
        build.load(cfg, "teacher", module)
        net = build.feature_extractor(cfg, "teacher", module)
        net.pruned = pruned
        return fit_and_report(cfg, run, build.data(cfg), net, teacher=None)

    return run.run_or_load(cfg, work)

"""Several processes for one run: torchrun's launcher, started anew for every run, so that it works inside a sweep."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from omegaconf import DictConfig

from kd_runner.errors import ConfigError

ALONE = ("kd_runner.tasks.check.check",)  # tasks that one process does


def num_processes(cfg: DictConfig) -> int:
    """Processes that `trainer.devices` asks for on this machine."""
    if "strategy" not in cfg.trainer:
        return 1
    devices = cfg.trainer.devices
    if isinstance(devices, int) and devices > 0:
        return devices
    if devices in ("auto", -1, "-1"):
        return max(1, torch.cuda.device_count())
    raise ConfigError(f"trainer.devices={devices}: give a number, or auto for every GPU")


def needed(cfg: DictConfig) -> bool:
    """Whether this process should start others: not where torchrun or srun has started it as one of several."""
    grouped = "LOCAL_RANK" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1
    return not grouped and cfg.run._target_ not in ALONE and num_processes(cfg) > 1


def processes(cfg: DictConfig, folder: Path) -> float | None:
    """Run this job in `trainer.devices` processes and return its metric.

    Raises:
        ConfigError: a process failed; its own message stands above.
    """
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    words = [*hydra.overrides.task, *(w for w in hydra.overrides.hydra if not w.startswith("hydra.mode"))]
    words = [w for w in words if not w.startswith(("hydra.run.dir", "hydra.sweep", "hydra/launcher"))]
    own = [s.path for s in hydra.runtime.config_sources if s.provider == "command-line"]
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes(cfg)}"),
        *("-m", "kd_runner", *words, f"hydra.run.dir={folder}", "hydra.output_subdir=null"),
        *(word for path in own for word in ("--config-dir", path)),
    ]
    environment = {**os.environ, "KD_RUNNER_LAUNCHED": "1", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    if subprocess.run(command, env=environment, cwd=hydra.runtime.cwd).returncode != 0:
        raise ConfigError(f"a process of trainer.devices={cfg.trainer.devices} failed; its message stands above")
    metrics = json.loads((folder / "metrics.json").read_text())
    return metrics.get("score")

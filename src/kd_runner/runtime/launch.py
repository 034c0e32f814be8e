"""Several processes for one run, started anew for every run, so that a sweep of such runs works too."""

import json
import os
import socket
import subprocess
import sys
import time
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
    return not grouped and cfg.task._target_ not in ALONE and num_processes(cfg) > 1


def processes(cfg: DictConfig, folder: Path) -> float | None:
    """Run this job in `trainer.devices` processes and return its metric. Lightning finds its place from LOCAL_RANK.

    Raises:
        ConfigError: a process failed; the others are stopped.
    """
    from hydra.core.hydra_config import HydraConfig

    count, hydra = num_processes(cfg), HydraConfig.get()
    own = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    flags = [word for path in own for word in ("--config-dir", path)]
    command = [sys.executable, "-m", "kd_runner", *flags, *hydra.overrides.task]
    command += [f"hydra.run.dir='{folder}'", "hydra.output_subdir=null"]
    shared = {
        "KD_RUNNER_LAUNCHED": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(count),
        # The cores are shared out, or every process would start a thread on each.
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count))),
    }
    running = []
    for rank in range(count):
        environment = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        quiet = subprocess.DEVNULL if rank else None  # all would say the same
        running.append(subprocess.Popen(command, env=environment, cwd=hydra.runtime.cwd, stdout=quiet))
    _wait(running)
    return json.loads((folder / "metrics.json").read_text()).get("score")


def _wait(running: list[subprocess.Popen[bytes]]) -> None:
    try:
        while any(process.poll() is None for process in running):
            if any(process.poll() not in (None, 0) for process in running):
                time.sleep(2)  # the one that failed first may not be the one that is shown
                break
            time.sleep(0.1)
        failed = {rank: p.poll() for rank, p in enumerate(running) if p.poll() not in (None, 0)}
        if failed:
            raise ConfigError(f"trainer.devices: processes {sorted(failed)} failed; the message stands above")
    finally:
        for process in running:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

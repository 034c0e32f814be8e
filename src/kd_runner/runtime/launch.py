"""Several processes for one run, started anew for every run, so that a sweep of such runs works too."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from kd_runner.errors import ConfigError
from kd_runner.runtime.ranks import LAUNCHER, is_grouped
from kd_runner.runtime.run_folder import TEMPERATURE, RunFolder, resolved

SINGLE_PROCESS_TASKS = ("kd_runner.tasks.check.check",)
HANDOFF = "job.json"
_GRACE_SECONDS = 10  # between SIGTERM and SIGKILL


def num_processes(cfg: DictConfig) -> int:
    """Processes that `trainer.devices` asks for on this machine.

    Args:
        cfg: the composed configuration.

    Returns:
        Their number, at least 1.
    """
    devices = cfg.trainer.get("devices")
    if "strategy" not in cfg.trainer:
        several = (isinstance(devices, int) and devices > 1) or (OmegaConf.is_list(devices) and len(devices) > 1)
        if several:
            raise ConfigError(f"trainer.devices={devices}: several devices need trainer=ddp")
        return 1
    if isinstance(devices, int) and devices > 0:
        return devices
    if devices in ("auto", -1, "-1"):
        return max(1, torch.cuda.device_count())
    raise ConfigError(f"trainer.devices={devices}: give a number, or auto for every GPU")


def is_needed(cfg: DictConfig) -> bool:
    """Whether this process should start others: not where it was started as one of several.

    Args:
        cfg: the composed configuration.

    Returns:
        True where `run_processes` is to be called.
    """
    return not is_grouped() and cfg.task._target_ not in SINGLE_PROCESS_TASKS and num_processes(cfg) > 1


def run_processes(cfg: DictConfig, run: RunFolder) -> float | None:
    """Run this job in `trainer.devices` processes. Lightning finds its rank from LOCAL_RANK.

    The processes get the resolved configuration, not the command line: they cannot compose another one.

    Args:
        cfg: the composed configuration.
        run: folder of the run.

    Returns:
        The run's metric.

    Raises:
        ConfigError: a process failed; the others are stopped.
    """
    count = num_processes(cfg)
    shared = {
        LAUNCHER: str(os.getpid()),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(count),
        # The cores are divided, or every process would start a thread on each.
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count))),
    }
    with tempfile.TemporaryDirectory(prefix="kd_runner_") as folder:
        handoff = Path(folder) / HANDOFF
        content = {
            "config": OmegaConf.to_yaml(resolved(cfg, keep=TEMPERATURE)),
            "hydra": run.hydra_files,
            "path": sys.path,
        }
        handoff.write_text(json.dumps({**content, "folder": str(run.path.absolute())}))
        command = [sys.executable, "-m", "kd_runner.cli.worker", str(handoff)]
        processes = []
        try:
            for rank in range(count):
                environment = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
                quiet = subprocess.DEVNULL if rank else None  # all would say the same
                processes.append(subprocess.Popen(command, env=environment, stdout=quiet))
            _wait(processes)
        finally:
            _stop(processes)
            run.adopt()
    return run.read_metrics().get("score") if run.metrics_file.is_file() else None


def _wait(processes: list[subprocess.Popen[bytes]]) -> None:
    while any(process.poll() is None for process in processes):
        if any(process.poll() not in (None, 0) for process in processes):
            time.sleep(2)  # the one that failed first may not be the one that prints
            break
        time.sleep(0.1)
    failed = {rank: code for rank, p in enumerate(processes) if (code := p.poll()) not in (None, 0)}
    if failed:
        codes = ", ".join(f"{rank} ({_exit_text(code)})" for rank, code in sorted(failed.items()))
        raise ConfigError(f"trainer.devices: of {len(processes)} processes, failed: {codes}; the message stands above")


def _exit_text(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """End what still runs: first by SIGTERM, so that the first process can record the state of the run."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + _GRACE_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

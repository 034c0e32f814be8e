"""Several processes for one run: what they are given, and that none outlives its parent."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
from omegaconf import OmegaConf

from kd_runner.errors import ConfigError
from kd_runner.runtime import launch
from kd_runner.runtime.processes import exit_with_parent
from kd_runner.runtime.run_folder import RunFolder


class Process:
    """Stands in for `subprocess.Popen`: keeps what it was given, ends at once."""

    started: ClassVar[list[dict[str, Any]]] = []
    codes: ClassVar[list[int]] = [0, 0]

    def __init__(self, command: list[str], env: dict[str, str], stdout: Any):
        self.code = self.codes[len(self.started)]
        self.started.append({"command": command, "env": env, "job": json.loads(Path(command[-1]).read_text())})

    def poll(self) -> int:
        return self.code

    def wait(self, timeout: float | None = None) -> int:
        return self.code


@pytest.fixture
def cfg(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(launch.subprocess, "Popen", Process)
    monkeypatch.setattr(launch.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(Process, "started", [])
    monkeypatch.setattr(sys, "path", [*sys.path, "/mine"])
    trainer = {"strategy": "ddp", "devices": 2}
    return OmegaConf.create({"seed": 3, "data": {"seed": "${seed}"}, "trainer": trainer, "task": {"_target_": "t"}})


def test_the_processes_get_the_resolved_configuration(cfg: Any, tmp_path: Path) -> None:
    """Not the words of the command line: `-cn`, `--config-path` and `hydra.searchpath` cannot mean another one."""
    launch.run_processes(cfg, RunFolder(tmp_path, {"overrides.yaml": "- seed=3\n"}))
    assert [one["env"]["RANK"] for one in Process.started] == ["0", "1"]
    for one in Process.started:
        assert one["command"][:3] == [sys.executable, "-m", "kd_runner.cli.worker"]
        assert OmegaConf.create(one["job"]["config"]) == {**cfg, "data": {"seed": 3}}
        assert one["job"]["hydra"] == {"overrides.yaml": "- seed=3\n"} and "/mine" in one["job"]["path"]
        assert Path(one["job"]["folder"]) == tmp_path


def test_a_process_that_fails_is_named(cfg: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Process, "codes", [1, -9])
    with pytest.raises(ConfigError, match=r"of 2 processes, failed: 0 \(exit code 1\), 1 \(killed by SIGKILL\)"):
        launch.run_processes(cfg, RunFolder(tmp_path))


def test_a_killed_parent_leaves_no_worker_behind() -> None:
    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:
        if os.fork() == 0:
            exit_with_parent()
            os.write(writing, b"up")
            time.sleep(60)
            os._exit(0)
        time.sleep(60)
        os._exit(0)
    os.close(writing)
    assert os.read(reading, 2) == b"up"
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    started = time.monotonic()
    assert os.read(reading, 1) == b""  # the last process that could write is gone
    assert time.monotonic() - started < 20
    os.close(reading)

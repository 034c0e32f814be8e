"""A run that is killed goes on, and ends with the same bits as one that was not."""

import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kd_runner.callbacks.random_state import RandomState
from kd_runner.errors import ConfigError
from kd_runner.runtime import run_names
from kd_runner.runtime.run_folder import RunFolder

WORDS = ["data.steps_per_epoch=6", "trainer.max_epochs=3", "export=none", "+callbacks.halt._target_=halt.Halt"]
IN_EPOCH = ["callbacks.last_in_epoch.every_n_train_steps=2"]
HALT = """
import os
from lightning.pytorch import Callback

class Halt(Callback):
    '''Sends this process a signal in the middle of the second epoch.'''
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 10 and "HALT" in os.environ:
            os.kill(os.getpid(), int(os.environ["HALT"]))
"""


def run_folders(cwd: Path) -> list[Path]:
    return sorted(p.parent for p in (cwd / "outputs" / "voc_kd").glob("*/config.yaml"))


def same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return isinstance(other, list | tuple) and len(one) == len(other) and all(map(same, one, other))
    return one == other


def epochs(folder: Path) -> list[str]:
    """Loss, metrics and rate of every epoch as the log says; without the time."""
    lines = re.findall(r"(epoch \d/3 .*) \| [\d.]+ s$", (folder / "run.log").read_text(), re.MULTILINE)
    return list(dict.fromkeys(lines))


@pytest.fixture
def halting(here: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A run with three epochs of six steps, in this process."""
    (tmp_path / "halt.py").write_text(HALT)
    monkeypatch.delitem(sys.modules, "halt", raising=False)
    return lambda *words: here(*WORDS, *words)


@pytest.mark.parametrize(
    ("callbacks", "number"),
    [
        ("checkpoints,epoch_summary,last_in_epoch", signal.SIGKILL),
        ("checkpoints,epoch_summary,last_in_epoch", signal.SIGTERM),
        ("checkpoints,epoch_summary", signal.SIGINT),
    ],
    ids=["kill -9", "SIGTERM", "SIGINT"],
)
def test_a_run_that_was_killed_or_stopped_ends_bit_equal(
    halting, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd, callbacks: str, number: int
) -> None:
    """Goes on from the middle of the second epoch, or from the end of the first."""
    mid_epoch = "last_in_epoch" in callbacks
    words = [f"callbacks=[{callbacks}]", *(IN_EPOCH if mid_epoch else [])]
    halting(*words, "hydra.run.dir=whole")
    monkeypatch.setenv("HALT", str(int(number)))
    capfd.readouterr()
    if number == signal.SIGKILL:
        command = [sys.executable, "-m", "kd_runner", *tiny, *WORDS, *words]
        assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == -number
    else:
        with pytest.raises(SystemExit) as end:
            halting(*words)
        assert end.value.code == 128 + number
        output = capfd.readouterr().out
        step = 8 if mid_epoch else 6
        assert output.splitlines()[-1] == f"stopped at step {step}; resume=auto goes on" and "Traceback" not in output
    monkeypatch.delenv("HALT")
    halting(*words, "resume=auto")
    output = capfd.readouterr().out

    whole, (other,) = tmp_path / "whole", run_folders(tmp_path)
    assert "going on from" in output and "exists and is not empty" not in output
    ended = [torch.load(p / "checkpoints" / "last.ckpt", weights_only=True) for p in (whole, other)]
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
        assert same(ended[0][key], ended[1][key]), key
    states = [next(v for k, v in c["callbacks"].items() if "RandomState" in k) for c in ended]
    assert same(*states)
    assert (whole / "student.safetensors").read_bytes() == (other / "student.safetensors").read_bytes()
    assert len(epochs(whole)) == 3 and epochs(whole) == epochs(other)  # an epoch's means are over all of its batches
    assert not list(other.rglob("*.part"))


def test_each_process_gets_its_own_random_state_back() -> None:
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
        states += RandomState().state_dict()["ranks"]
    for rank, ranks, restored in ((1, 2, True), (0, 2, True), (0, 1, False)):
        torch.manual_seed(9), np.random.seed(9), random.seed(9)
        callback = RandomState()
        callback.load_state_dict({"ranks": states})
        callback.on_train_start(SimpleNamespace(world_size=ranks, global_rank=rank), None)  # type: ignore[arg-type]
        seed = rank + 1 if restored else 9
        expected = torch.Generator().manual_seed(seed), np.random.RandomState(seed), random.Random(seed)
        assert torch.equal(torch.rand(3), torch.rand(3, generator=expected[0]))
        assert np.random.rand() == expected[1].rand() and random.random() == expected[2].random()


def test_resume_of_something_else_is_refused(here, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    here("export=none", "callbacks=[checkpoints]", "trainer.max_epochs=1")
    (folder,) = run_folders(tmp_path)
    with pytest.raises(SystemExit) as end:
        here("export=none", "callbacks=[checkpoints]", "trainer.max_epochs=1", "kd.temperature=3", f"resume={folder}")
    assert end.value.code == 1
    message = capfd.readouterr().out
    assert "kd.temperature: " in message and " there, 3" in message and "Traceback" not in message


def test_resume_names_a_path_that_is_no_run(here, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        here("resume=outputs/nothing")
    assert "resume: outputs/nothing is no run folder" in capfd.readouterr().out


def test_two_processes_cannot_hold_a_folder(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys,time\nfrom kd_runner.runtime.run_folder import RunFolder\n"
         "with RunFolder(sys.argv[1]).lock(): print('held', flush=True); time.sleep(60)", str(tmp_path)],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None and holder.stdout.readline()
    with pytest.raises(ConfigError, match=r"hydra\.run\.dir"), RunFolder(tmp_path).lock():
        pass
    holder.kill()
    holder.wait()
    with RunFolder(tmp_path).lock():  # a killed process lets go
        pass


def test_processes_that_cannot_agree_on_a_folder_are_told_how(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="torchrun --rdzv-id NAME"):
        run_names.check_name(None, tmp_path / "job_none")

"""A run that is killed goes on, and ends with the same bits as one that was not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from kd_runner.errors import ConfigError
from kd_runner.runtime import run_names
from kd_runner.runtime.run_folder import RunFolder

SLOW = ["data.steps_per_epoch=6", "trainer.max_epochs=3"]


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


@pytest.mark.parametrize("callbacks", ["checkpoints,epoch_summary", "checkpoints,epoch_summary,last_in_epoch"])
def test_a_killed_run_ends_bit_equal(tmp_path: Path, tiny: list[str], callbacks: str) -> None:
    """Killed in mid-epoch; goes on from the last epoch's end, or from the middle of the epoch."""
    words = [*tiny, *SLOW, f"callbacks=[{callbacks}]", "export=none"]
    if "last_in_epoch" in callbacks:
        words += ["callbacks.last_in_epoch.every_n_train_steps=2"]
    command = [sys.executable, "-m", "kd_runner", *words]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir(), broken.mkdir()
    subprocess.run(command, cwd=whole, check=True, capture_output=True)

    (broken / "slow.py").write_text(
        "import time\nfrom lightning.pytorch import Callback\n"
        "class Slow(Callback):\n"
        "    def on_train_batch_end(self, trainer, *_):\n"
        "        open('step', 'w').write(str(trainer.global_step))\n"
        "        if trainer.global_step == 10: time.sleep(60)\n"
    )
    process = subprocess.Popen([*command, "+callbacks.slow._target_=slow.Slow"], cwd=broken)
    while not (broken / "step").exists() or (broken / "step").read_text() != "10":
        time.sleep(0.05)
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (broken / "slow.py").write_text("from lightning.pytorch import Callback\nclass Slow(Callback): pass\n")
    words_again = [*command, "+callbacks.slow._target_=slow.Slow", "resume=auto"]
    again = subprocess.run(words_again, cwd=broken, check=True, capture_output=True, text=True)

    assert "going on from" in again.stdout
    (one,), (other,) = run_folders(whole), run_folders(broken)
    ended = [torch.load(p / "checkpoints" / "last.ckpt", weights_only=True) for p in (one, other)]
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
        assert same(ended[0][key], ended[1][key]), key
    states = [next(v for k, v in c["callbacks"].items() if "RandomState" in k) for c in ended]
    assert same(*states)
    assert (one / "student.safetensors").read_bytes() == (other / "student.safetensors").read_bytes()


def test_resume_of_something_else_is_refused(here, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    here("export=none", "callbacks=[checkpoints]", "trainer.max_epochs=1")
    (folder,) = run_folders(tmp_path)
    with pytest.raises(SystemExit) as end:
        here("export=none", "callbacks=[checkpoints]", "trainer.max_epochs=1", "kd.temperature=3", f"resume={folder}")
    assert end.value.code == 1
    message = capfd.readouterr().out
    assert "kd.temperature: " in message and " there, 3 now" in message and "Traceback" not in message


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

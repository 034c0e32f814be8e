import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

from tests import quick_hydra

torch.set_num_threads(1)
quick_hydra.patch()

# Tests of these files start processes of their own, and so does every test that uses `cli`.
STARTS_PROCESSES = {
    *("test_run_all.py", "test_ddp.py", "test_crd_ddp.py", "test_compare.py", "test_assistant_chain.py"),
    *("test_docs.py", "test_package.py", "test_rows.py"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With pytest-xdist (scripts/test), tests that start processes are one group, so that they run one after the other.

    All of a file with fixtures of module scope stays in one worker too, so that these are made once.
    """
    for item in items:
        if item.path.name in STARTS_PROCESSES or "cli" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("processes"))
        elif item.path.parent.name == "tasks":
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(scope="session")
def mini_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A very small VOC data set."""
    from kd_runner.synthetic import mini_voc

    root = tmp_path_factory.mktemp("mini") / "voc"
    mini_voc.write(root, num_train=12, num_val=7, num_unlabeled=10, size=32)
    return root


@pytest.fixture(scope="session")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a narrow teacher."""
    from kd_runner.distillation.student_file import save_student
    from kd_runner.models.segmentation.fcn_resnet import fcn_resnet

    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    torch.manual_seed(0)
    save_student(fcn_resnet(11, layers=(1, 1, 1, 1), width=4), path)
    return path


@pytest.fixture(scope="session")
def tiny(mini_root: Path, teacher_file: Path) -> list[str]:
    """Words that make the default experiment so small that a run takes a second or two."""
    return [
        f"data.root={mini_root}",
        "data.prepare=null",
        f"teacher.checkpoint={teacher_file}",
        "++teacher.net.layers=[1,1,1,1]",
        "++teacher.net.width=4",
        "data.train.transform.crop=32",
        "data.batch_size=4",
        "data.unlabeled_batch_size=2",
        "data.val_batch_size=2",
        "data.steps_per_epoch=3",
        "trainer.max_epochs=2",
        "trainer.check_val_every_n_epoch=1",
        "scheduler.warmup_steps=1",
        "student.net.width_mult=0.25",
        "student.net.aspp_channels=8",
        "student.net.skip_channels=8",
    ]


Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cli(tmp_path: Path, tiny: list[str]) -> Cli:
    """`python -m kd_runner` on the tiny task, in a fresh folder, as a user starts it."""

    def call(*words: str, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "kd_runner", *_without_export(tiny, words), *words]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)

    return call


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`python -m kd_runner` inside this process: no import time.

    Gives the newest run folder; raises SystemExit where the command would fail.
    """
    return lambda *words: _start(tmp_path, monkeypatch, *words)


@pytest.fixture(scope="module")
def started_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """The same for runs that all tests of a file share."""
    folder = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch:
        yield lambda *words: _start(folder, patch, *words)


def _start(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> Path:
    from kd_runner.cli import main

    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["kd_runner", *words])
    try:
        main.main()
    finally:
        logging.getLogger().handlers.clear()  # Hydra's own, on the streams of this test
    return max(folder.glob("outputs/*/*"), key=lambda p: p.stat().st_mtime, default=folder)


@pytest.fixture
def here(started: Callable[..., Path], tiny: list[str]) -> Callable[..., Path]:
    """The same on the tiny task."""
    return lambda *words: started(*_without_export(tiny, words), *words)


def _without_export(tiny: list[str], words: tuple[str, ...]) -> list[str]:
    """An export takes ten times as long as all else of a tiny run: only a test that sets something of it has one."""
    return tiny if any(word.startswith("export") for word in words) else [*tiny, "export=none"]

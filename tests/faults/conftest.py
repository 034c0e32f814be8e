"""The four systems in small, and the server that runs commands on them."""

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.faults.harness import Case, Commands
from tests.tasks.test_bevfusion_run import TINY as BEVFUSION
from tests.tasks.test_hierarchical_unet_run import TINY as UNET
from tests.tasks.test_orion_run import TINY as ORION

WORDS = {"unet": UNET, "orion": ORION, "bevfusion": BEVFUSION}


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    server = Commands()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def data_of(tmp_path_factory: pytest.TempPathFactory, mini_root: Path) -> Callable[[str], Path]:
    """The data set of a system, written when first asked for."""

    @cache
    def write(system: str) -> Path:
        from kd_runner.synthetic import mini_coco
        from kd_runner.synthetic.driving import bench2drive_writer, nuscenes_writer

        if system == "voc":
            return mini_root
        root = tmp_path_factory.mktemp(system) / "data"
        if system == "unet":
            return mini_coco.write(root, num_train=6, num_val=4, num_unlabeled=4, num_teacher=4, size=48)
        if system == "orion":
            return bench2drive_writer.write(root, num_train=3, num_val=2, num_frames=1, width=80, height=45)
        scenes = {"num_train_scenes": 2, "num_val_scenes": 1, "num_unlabeled_scenes": 2}
        return nuscenes_writer.write(root, **scenes, num_keyframes=2, sweeps_between=0, channels=12, azimuths=120)

    return write


def write_teacher(system: str, path: Path) -> Path:
    """Weights, random ones, that fit the small teacher of a system."""
    from kd_runner.config import build
    from kd_runner.config.compose import compose
    from kd_runner.distillation.student_file import save_student

    save_student(build.net(compose([*WORDS[system], "data.root=nowhere"]), "teacher"), path)
    return path


@pytest.fixture(scope="session")
def teacher_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The weights of a system's teacher, written when first asked for."""
    return cache(lambda system: write_teacher(system, tmp_path_factory.mktemp(system) / "teacher.safetensors"))


@pytest.fixture
def words_of(
    data_of: Callable[[str], Path], teacher_of: Callable[[str], Path], tiny: list[str], tmp_path: Path
) -> Callable[[Case], list[str]]:
    """The command line of a case, its data in place."""

    def words(case: Case) -> list[str]:
        root = data_of(case.system)
        if case.copy:
            root = Path(shutil.copytree(root, tmp_path / "case/data"))
        base = tiny
        if case.system != "voc":
            base = [*WORDS[case.system], f"teacher.checkpoint={teacher_of(case.system)}"]
        if "task=train_teacher" in case.words:  # what nothing reads then is refused
            base = [word for word in base if not word.startswith(("data.unlabeled", "loss.", "pruning."))]
        folder = str(tmp_path / "case")
        return [*base, f"data.root={root}", *(word.replace("{folder}", folder) for word in case.words.split())]

    return words

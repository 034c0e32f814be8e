"""The embedded classification images."""

from pathlib import Path

import numpy as np

from kd_runner.data.classification.cifar import Cifar
from kd_runner.synthetic import mini_cifar


def test_files_are_read_as_cifar_and_depend_on_seed_and_number_alone(tmp_path: Path) -> None:
    mini_cifar.write(tmp_path / "a", num_train=30, num_test=5)
    mini_cifar.write(tmp_path / "b", num_train=100, num_test=5, num_teacher=3)
    short, long = Cifar(tmp_path / "a", "train", num_classes=10), Cifar(tmp_path / "b", "train", num_classes=10)
    assert short.pixels.shape == (30, 3, 12, 12) and set(long.targets.tolist()) == set(range(10))
    assert np.array_equal(short.pixels, long.pixels[:30]) and short.targets.equal(long.targets[:30])
    assert len(Cifar(tmp_path / "b", "teacher", num_classes=10)) == 3

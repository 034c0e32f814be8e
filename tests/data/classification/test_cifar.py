"""CIFAR's Python files, written here as Python 2 wrote them."""

import pickle
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from kd_runner.data.classification.cifar import Cifar
from kd_runner.data.classification.transforms import shift


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined, misc]
    """Text and bytes as Python 2's `str`, as in the published files."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_text(self, value: str | bytes) -> None:
        data = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_text


def write(file: Path, **content: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    with file.open("wb") as stream:
        Python2Pickler(stream, protocol=2).dump(content)


PIXELS = np.random.default_rng(0).integers(0, 256, (4, 3072), np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        file = tmp_path / "cifar-100-python" / split
        write(file, data=PIXELS, fine_labels=[3, 99, 0, 5], coarse_labels=[1, 19, 0, 2], filenames=["a.png"] * 4)
    return tmp_path


def test_pixels_and_labels_of_a_published_file(root: Path) -> None:
    samples = Cifar(root, "train", mean=(0.5, 0.25, 0.0), std=(0.5, 0.5, 1.0))
    image, target = samples[1]["image"], samples[1]["target"]
    assert len(samples) == 4 and image.shape == (3, 32, 32) and (int(target), target.dtype) == (99, torch.int64)
    red, green, blue = PIXELS[1].reshape(3, 32, 32) / 255  # channels one after the other, rows within
    expected = np.stack([(red - 0.5) / 0.5, (green - 0.25) / 0.5, blue])
    assert torch.allclose(image.double(), torch.from_numpy(expected), atol=1e-5)
    assert samples.normalization["mean"] == [0.5, 0.25, 0.0]
    assert int(Cifar(root / "cifar-100-python", "test", labels="coarse_labels", num_classes=20)[1]["target"]) == 19


def test_cifar_10_is_read_batch_by_batch(tmp_path: Path) -> None:
    for i in range(1, 6):
        write(tmp_path / f"cifar-10-batches-py/data_batch_{i}", data=PIXELS[:1], labels=[i], batch_label="x")
    assert Cifar(tmp_path, "train", num_classes=10, labels="labels").targets.tolist() == [1, 2, 3, 4, 5]


def test_wrong_files_are_named(root: Path) -> None:
    with pytest.raises(ValueError, match=r"no file 'tset' .*'test'"):
        Cifar(root, "tset")
    with pytest.raises(ValueError, match="label 99, but with num_classes=10"):
        Cifar(root, "train", num_classes=10)
    with pytest.raises(ValueError, match=r"no 'fine_label'.*'fine_labels'"):
        Cifar(root, "train", labels="fine_label")
    with pytest.raises(ValueError, match="does not exist; it holds cifar-100-python or cifar-10-batches-py"):
        Cifar(root / "elsewhere", "train")


def test_a_shift_moves_and_mirrors_nothing_but_pixels() -> None:
    image = torch.arange(3 * 4 * 4, dtype=torch.uint8).reshape(3, 4, 4) + 1
    torch.manual_seed(0)
    seen = [shift(pad=1, flip=0.5)(image) for _ in range(200)]
    assert all(one.shape == image.shape for one in seen)
    assert any(torch.equal(one, image) for one in seen) and any(torch.equal(one, image.flip(-1)) for one in seen)
    moved = torch.zeros_like(image)
    moved[:, :-1, :-1] = image[:, 1:, 1:]
    assert any(torch.equal(one, moved) for one in seen)
    assert len({one.numpy().tobytes() for one in seen}) == 18  # 3 x 3 places, mirrored or not

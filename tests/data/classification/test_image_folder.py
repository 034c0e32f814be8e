"""Images in one folder a class."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from kd_runner.data.classification.image_folder import ImageFolder
from kd_runner.data.classification.transforms import center_crop, train_crop


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, color in {"cat": (255, 0, 0), "ant": (0, 255, 0)}.items():
        (tmp_path / "train" / name / "more").mkdir(parents=True)
        Image.new("RGB", (40, 20), color).save(tmp_path / "train" / name / "1.png")
        Image.new("L", (20, 40), 255).save(tmp_path / "train" / name / "more" / "2.JPEG")
        (tmp_path / "train" / name / "notes.txt").write_text("no image")
    return tmp_path


def test_classes_are_numbered_by_name(root: Path) -> None:
    samples = ImageFolder(root, "train", center_crop(8, 10), num_classes=2, mean=(0, 0, 0), std=(1, 1, 1))
    assert samples.classes == ["ant", "cat"] and [int(samples[i]["target"]) for i in range(4)] == [0, 0, 1, 1]
    ant, gray, cat = (samples[i]["image"] for i in (0, 1, 2))
    assert ant.shape == gray.shape == (3, 8, 8)
    assert ant[:, 4, 4].tolist() == [0, 1, 0] and gray[:, 4, 4].tolist() == [1, 1, 1] and cat[0, 4, 4] == 1


def test_training_crops_follow_torchs_generator(root: Path) -> None:
    samples = ImageFolder(root, "train", train_crop(8), num_classes=2)
    images = []
    for _ in range(2):
        torch.manual_seed(0)
        images.append(samples[0]["image"])
    assert torch.equal(*images) and images[0].shape == (3, 8, 8)


def test_missing_classes_are_named(root: Path) -> None:
    with pytest.raises(ValueError, match="2 class folders, num_classes=3"):
        ImageFolder(root, "train", center_crop(), num_classes=3)
    with pytest.raises(ValueError, match=r"no folder .*/val"):
        ImageFolder(root, "val", center_crop(), num_classes=2)
    (root / "train/dog").mkdir()
    with pytest.raises(ValueError, match="dog holds no image"):
        ImageFolder(root, "train", center_crop(), num_classes=3)

"""Images in one folder a class, as ImageNet is laid out for torchvision."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from kd_runner.data.classification.normalize import Normalize
from kd_runner.data.images import read_rgb

SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}


class ImageFolder(Dataset[dict[str, Tensor]]):
    """Images of `<root>/<split>/<class>/...`; class i is the i-th folder by name, as in torchvision's `ImageFolder`.

    A sample is a dictionary of

    * `image` (3, H, W) float, normalized;
    * `target` int64, the class.

    Args:
        root: the folder.
        split: name of the folder in it; empty for `root` itself.
        transform: maps pixels (3, H, W) uint8 to such, all of one size.
        num_classes: number of class folders.
        mean: subtracted per channel, for values in 0..1 (ImageNet's).
        std: divides what is left, per channel.

    Raises:
        ValueError: a folder is missing, has another number of classes, or a class without images. On access: a file
            that cannot be read.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        transform: Callable[[Tensor], Tensor],
        num_classes: int,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ):
        self.folder = folder = Path(root).expanduser() / split
        if not folder.is_dir():
            raise ValueError(f"there is no folder {folder}; it holds one folder a class")
        self.classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
        if len(self.classes) != num_classes:
            raise ValueError(f"{folder} has {len(self.classes)} class folders, num_classes={num_classes}")
        self.samples: list[tuple[Path, int]] = []
        for target, name in enumerate(self.classes):
            files = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in SUFFIXES)
            if not files:
                raise ValueError(f"{folder / name} holds no image ({', '.join(sorted(SUFFIXES))})")
            self.samples += [(file, target) for file in files]
        self.transform, self._normalize = transform, Normalize(mean, std)

    @property
    def normalization(self) -> dict[str, Any]:
        """How images are normalized, for the metadata of exported files."""
        return self._normalize.metadata

    @property
    def names(self) -> list[str]:
        """Names of the samples, `class/file`, for recorded teachers."""
        return [file.relative_to(self.folder).as_posix() for file, _ in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        file, target = self.samples[index]
        pixels = self.transform(torch.from_numpy(read_rgb(file)).permute(2, 0, 1))
        return {"image": self._normalize(pixels), "target": torch.tensor(target)}

"""CIFAR-10 and CIFAR-100, read from their published Python files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kd_runner.data import restricted_pickle
from kd_runner.data.classification.normalize import Normalize
from kd_runner.errors import nearest

_FOLDERS = ("cifar-100-python", "cifar-10-batches-py")
_PARTS = {"data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"}  # CIFAR-10's `train`


class Cifar(Dataset[dict[str, Tensor]]):
    """Images of `cifar-100-python/<split>` (or of `cifar-10-batches-py`), kept in memory.

    A sample is a dictionary of

    * `image` (3, H, W) float, normalized;
    * `target` int64, the class.

    The files are pickles; they are read by `restricted_pickle`, which runs no code from them.

    Args:
        root: folder that holds `cifar-100-python` or `cifar-10-batches-py`, or that folder itself.
        split: `train` or `test`; of CIFAR-10 also the name of one file.
        transform: maps pixels (3, H, W) uint8 to such; None for the images as they are.
        num_classes: labels are 0 .. num_classes - 1.
        mean: subtracted per channel, for values in 0..1.
        std: divides what is left, per channel.
        labels: entry of the files that holds the labels: `fine_labels` (100 classes), `coarse_labels` (20).

    Raises:
        ValueError: folder or file is missing or damaged, holds no such labels, or a label is out of range.

    Source:
        Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; www.cs.toronto.edu/~kriz/cifar.html.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        transform: Callable[[Tensor], Tensor] | None = None,
        num_classes: int = 100,
        mean: Sequence[float] = (0.5071, 0.4867, 0.4408),
        std: Sequence[float] = (0.2675, 0.2565, 0.2761),
        labels: str = "fine_labels",
    ):
        folder = _folder(Path(root).expanduser())
        parts = [_read(file, labels) for file in _files(folder, split)]
        self.pixels = torch.cat([pixels for pixels, _ in parts])
        self.targets = torch.cat([targets for _, targets in parts])
        wrong = self.targets[(self.targets < 0) | (self.targets >= num_classes)]
        if len(wrong):
            raise ValueError(
                f"{folder / split} has label {int(wrong[0])}, but with num_classes={num_classes} labels are "
                f"0..{num_classes - 1}"
            )
        self.transform, self._normalize = transform, Normalize(mean, std)

    @property
    def normalization(self) -> dict[str, Any]:
        """How images are normalized, for the metadata of exported files."""
        return self._normalize.metadata

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        pixels = self.pixels[index]
        if self.transform is not None:
            pixels = self.transform(pixels)
        return {"image": self._normalize(pixels), "target": self.targets[index]}


def _folder(root: Path) -> Path:
    folders = [root / name for name in _FOLDERS if (root / name).is_dir()]
    if folders:
        return folders[0]
    if root.name in _FOLDERS and root.is_dir():
        return root
    state = "holds neither" if root.is_dir() else "does not exist; it holds"
    raise ValueError(f"{root} {state} {' nor '.join(_FOLDERS) if root.is_dir() else ' or '.join(_FOLDERS)}")


def _files(folder: Path, split: str) -> list[Path]:
    names = {file.name for file in folder.iterdir()}
    if split in names:
        return [folder / split]
    if split == "train" and names >= _PARTS:
        return [folder / name for name in sorted(_PARTS)]
    if split == "test" and "test_batch" in names:
        return [folder / "test_batch"]
    raise ValueError(f"no file {split!r} in {folder}.{nearest(split, names)}")


def _read(file: Path, labels: str) -> tuple[Tensor, Tensor]:
    """Pixels (N, 3, side, side) uint8 and labels (N,) int64 of one file."""
    content = restricted_pickle.load(file, encoding="latin1")
    if not isinstance(content, dict) or "data" not in content:
        raise ValueError(f"{file} holds no 'data': it is no file of CIFAR")
    if labels not in content:
        raise ValueError(f"{file} holds no {labels!r}.{nearest(labels, map(str, content))}")
    data, targets = np.asarray(content["data"]), np.asarray(content[labels], np.int64)
    side = round((data.size / max(1, len(data)) / 3) ** 0.5)
    if data.dtype != np.uint8 or data.shape != (len(targets), 3 * side * side) or not len(data):
        raise ValueError(f"{file}: data {data.shape} of {data.dtype} for {len(targets)} labels; one row of bytes each")
    return torch.from_numpy(data.reshape(-1, 3, side, side)), torch.from_numpy(targets)

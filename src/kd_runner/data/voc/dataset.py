"""Pascal VOC segmentation, read from its published folder layout."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from kd_runner.data.images import read_labels, read_rgb, require_files
from kd_runner.errors import nearest

VOID = 255
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# As a deployer needs it: (pixel / 255 - mean) / std.
NORMALIZATION = {"mean": MEAN, "std": STD, "channel_order": "RGB", "value_range": [0, 1]}


class VOCSegmentation(Dataset[dict[str, Tensor]]):
    """Images and label maps listed in `ImageSets/Segmentation/<split>.txt`.

    A sample is a dictionary of

    * `image` (3, H, W) float, as the transform returns it;
    * `target` (H, W) int64, 255 for void and padding, and everywhere with `labeled=False`;
    * `valid` (H, W) bool, True inside the image where the label is not void: pixels that may be distilled. With
      `labeled=False` all pixels of the image.

    Args:
        root: folder that holds `VOCdevkit/VOC2012`, or that folder itself.
        split: name of a list; `rest` means all images that are on none of train, val and trainval.
        transform: maps (image, mask) to (image, mask), as tv_tensors; pads the mask with 255.
        num_classes: labels are 0 .. num_classes - 1.
        labeled: read the label maps.
        mask_folder: folder of the label maps; `SegmentationClassAug` holds those of the augmented list (`trainaug`).

    Raises:
        ValueError: folder, list or files are missing, or an image is listed twice. On access: a file that cannot be
            read, has more than 8 bits per channel or another size than its image, or a label out of range.
    """

    normalization = NORMALIZATION

    def __init__(
        self,
        root: str | Path,
        split: str,
        transform: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        num_classes: int = 21,
        labeled: bool = True,
        mask_folder: str = "SegmentationClass",
    ):
        self.folder = _folder(Path(root).expanduser())
        self.split, self.transform, self.num_classes, self.labeled = split, transform, num_classes, labeled
        self.mask_folder = mask_folder
        self.ids = self._rest() if split == "rest" else self._list(split)
        if not self.ids:
            raise ValueError(f"the list {split!r} of {self.folder} names no image")
        twice = next((name for name, count in Counter(self.ids).items() if count > 1), None)
        if twice is not None:
            raise ValueError(f"the list {split!r} of {self.folder} names {twice} twice")
        require_files(self.folder / "JPEGImages", [f"{name}.jpg" for name in self.ids], f"the list {split!r}")
        if labeled:
            require_files(self.folder / mask_folder, [f"{name}.png" for name in self.ids], f"the list {split!r}")

    @property
    def names(self) -> list[str]:
        """Names of the samples, for recorded teachers."""
        return self.ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        name = self.ids[index]
        pixels = torch.from_numpy(read_rgb(self._image(name)))
        labels = self._labels(name) if self.labeled else torch.zeros(pixels.shape[:2], dtype=torch.uint8)
        if labels.shape != pixels.shape[:2]:
            raise ValueError(f"{self._mask(name)} is {tuple(labels.shape)}, its image {tuple(pixels.shape[:2])} pixels")
        image, mask = tv_tensors.Image(pixels.permute(2, 0, 1)), tv_tensors.Mask(labels)
        image, mask = self.transform(image, mask)
        target = mask.as_subclass(Tensor).long()
        valid = target != VOID
        return {
            "image": image.as_subclass(Tensor),
            "target": target if self.labeled else torch.full_like(target, VOID),
            "valid": valid,
        }

    def _labels(self, name: str) -> Tensor:
        labels = torch.from_numpy(read_labels(self._mask(name)))
        out_of_range = labels[(labels >= self.num_classes) & (labels != VOID)]
        if len(out_of_range):
            raise ValueError(
                f"{self._mask(name)} has label {int(out_of_range[0])}, but with num_classes={self.num_classes} labels "
                f"are 0..{self.num_classes - 1} and {VOID}"
            )
        return labels

    def _image(self, name: str) -> Path:
        return self.folder / "JPEGImages" / f"{name}.jpg"

    def _mask(self, name: str) -> Path:
        return self.folder / self.mask_folder / f"{name}.png"

    def _list(self, split: str) -> list[str]:
        lists = self.folder / "ImageSets" / "Segmentation"
        file = lists / f"{split}.txt"
        if not file.is_file():
            known = [p.stem for p in lists.glob("*.txt")]
            raise ValueError(f"no list {split!r} in {lists}.{nearest(split, [*known, 'rest'])}")
        try:
            return file.read_text().split()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{file} cannot be read ({error})") from error

    def _rest(self) -> list[str]:
        used = {name for split in ("train", "val", "trainval") for name in self._list(split)}
        return sorted({p.stem for p in (self.folder / "JPEGImages").glob("*.jpg")} - used)


def _folder(root: Path) -> Path:
    for folder in (root / "VOCdevkit" / "VOC2012", root / "VOC2012", root):
        if (folder / "ImageSets" / "Segmentation").is_dir():
            return folder
    state = "is empty" if root.is_dir() and not any(root.iterdir()) else "does not exist" if not root.exists() else ""
    detail = f"{root} {state}" if state else f"{root} holds no VOCdevkit/VOC2012/ImageSets/Segmentation"
    raise ValueError(f"{detail}. Name the folder that holds VOCdevkit/VOC2012.")


def voc_palette() -> np.ndarray:
    """VOC's 256 palette colors (256, 3) uint8: a label's bits, spread over the high bits of red, green and blue."""
    colors = np.zeros((256, 3), np.uint8)
    for label in range(256):
        for channel in range(3):
            for bit in range(3):
                colors[label, channel] |= (label >> (3 * bit + channel) & 1) << (7 - bit)
    return colors

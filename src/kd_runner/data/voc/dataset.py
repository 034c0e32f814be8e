"""Pascal VOC segmentation in its own layout on disk."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from kd_runner.errors import ConfigError, nearest

VOID = 255


class VOCSegmentation(Dataset[dict[str, Tensor]]):
    """Images and label maps listed in `ImageSets/Segmentation/<split>.txt`.

    A sample: `image` (3, H, W) float, as the transform leaves it; `target` (H, W) int64 with 255 for void and
    padding; `valid` (H, W) bool, True where a pixel may be distilled: inside the image, and not void.
    Without labels (`labeled=False`) every target pixel is 255, and the whole image may be distilled.

    Args:
        root: folder that holds `VOCdevkit/VOC2012`, or that folder itself.
        split: name of a list; `rest` stands for every image that is on none of train, val and trainval.
        transform: (image, mask) to (image, mask), tv_tensors; pads the mask with 255.
        num_classes: labels are 0 .. num_classes - 1.
        labeled: read the label maps.

    Raises:
        ConfigError: folder, list or files missing; on access, a label out of range.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        transform: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        num_classes: int = 21,
        labeled: bool = True,
    ):
        self.folder = _folder(Path(root).expanduser())
        self.split, self.transform, self.num_classes, self.labeled = split, transform, num_classes, labeled
        self.ids = self._rest() if split == "rest" else self._list(split)
        if not self.ids:
            raise ConfigError(f"data.root: the list {split!r} of {self.folder} names no image")
        for file in (self._image(self.ids[0]), self._mask(self.ids[0])) if labeled else (self._image(self.ids[0]),):
            if not file.is_file():
                raise ConfigError(f"data.root: {file} is missing, which the list {split!r} names")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        name = self.ids[index]
        pixels = torch.from_numpy(_read(self._image(name), "RGB"))
        labels = self._labels(name) if self.labeled else torch.zeros(pixels.shape[:2], dtype=torch.uint8)
        if labels.shape != pixels.shape[:2]:
            raise ConfigError(
                f"data.root: {self._mask(name)} is {tuple(labels.shape)}, its image {tuple(pixels.shape[:2])} pixels"
            )
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
        labels = torch.from_numpy(_read(self._mask(name)))
        if labels.ndim != 2:
            raise ConfigError(f"data.root: {self._mask(name)} is a color picture; labels are palette or gray values")
        out_of_range = labels[(labels >= self.num_classes) & (labels != VOID)]
        if len(out_of_range):
            raise ConfigError(
                f"data.num_classes: {self._mask(name)} has label {int(out_of_range[0])}, but with "
                f"{self.num_classes} classes labels are 0..{self.num_classes - 1} and {VOID}"
            )
        return labels

    def _image(self, name: str) -> Path:
        return self.folder / "JPEGImages" / f"{name}.jpg"

    def _mask(self, name: str) -> Path:
        return self.folder / "SegmentationClass" / f"{name}.png"

    def _list(self, split: str) -> list[str]:
        lists = self.folder / "ImageSets" / "Segmentation"
        file = lists / f"{split}.txt"
        if not file.is_file():
            known = [p.stem for p in lists.glob("*.txt")]
            raise ConfigError(f"data: no list {split!r} in {lists}.{nearest(split, [*known, 'rest'])}")
        return file.read_text().split()

    def _rest(self) -> list[str]:
        used = {name for split in ("train", "val", "trainval") for name in self._list(split)}
        return sorted({p.stem for p in (self.folder / "JPEGImages").glob("*.jpg")} - used)


def _read(file: Path, mode: str | None = None) -> np.ndarray:
    try:
        with Image.open(file) as picture:
            return np.array(picture.convert(mode) if mode else picture)
    except OSError as error:  # missing, cut short, or no picture
        raise ConfigError(f"data.root: {file} cannot be read ({error})") from error


def _folder(root: Path) -> Path:
    for folder in (root / "VOCdevkit" / "VOC2012", root / "VOC2012", root):
        if (folder / "ImageSets" / "Segmentation").is_dir():
            return folder
    state = "is empty" if root.is_dir() and not any(root.iterdir()) else "does not exist" if not root.exists() else ""
    detail = f"{root} {state}" if state else f"{root} holds no VOCdevkit/VOC2012/ImageSets/Segmentation"
    raise ConfigError(f"data.root: {detail}. Name the folder that holds VOCdevkit/VOC2012.")


def voc_palette() -> np.ndarray:
    """The 256 colors (256, 3) of VOC's label maps: a label's bits, spread over the high bits of red, green, blue."""
    colors = np.zeros((256, 3), np.uint8)
    for label in range(256):
        for channel in range(3):
            for bit in range(3):
                colors[label, channel] |= (label >> (3 * bit + channel) & 1) << (7 - bit)
    return colors

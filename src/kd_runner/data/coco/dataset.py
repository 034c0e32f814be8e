"""Instance segmentation in given boxes, from COCO instance files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as rle
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional

from kd_runner.data.coco.annotations import read_instances
from kd_runner.data.coco.roi_augment import RoiAugment
from kd_runner.data.images import read_rgb, require_files
from kd_runner.data.voc.dataset import MEAN, NORMALIZATION, STD, VOID

BACKGROUND, TARGET, OTHER = 0, 1, 2


class CocoInstances(Dataset[dict[str, Tensor]]):
    """Images with instances of one category, up to N of their boxes (ROIs), and a label map inside each box.

    A sample is a dictionary of

    * `image` (3, H, W) float32, normalized with ImageNet's statistics; the aspect ratio is not kept;
    * `rois` (N, 4) float32: x1, y1, x2, y2 in 0..1 of the image's width and height; (0, 0, 1, 1) for padding;
    * `roi_mask` (N) bool: False for padding;
    * `roi_ids` (N) int64: annotation ids, -1 for padding;
    * `target` (N, h, w) int64: 1 on the box's own instance, 2 on other instances of the category, 0 elsewhere; 255
      for padding, and everywhere without labels;
    * `valid` (N, h, w) bool: `roi_mask` for every pixel, where masks may be distilled with or without labels.

    Cell (i, j) of a target is the label of the original pixel under the center of cell (i, j) of the box, where an
    aligned `torchvision.ops.roi_align` of h x w with one sample per cell reads.

    Crowds (`iscrowd`) and images without a box that is large enough are left out. The N largest boxes of an image are
    its ROIs, in descending order; smaller ones still count as other instances.

    Args:
        root: folder of the data set.
        images: folder of the images, below `root`.
        annotations: json file of boxes and segmentations (polygons or run lengths), below `root`.
        image_size: (height, width) of the image, in pixels.
        mask_size: (height, width) of a region's labels.
        category: name of the category.
        max_rois: N.
        min_side: a box whose width or height is below this number of original pixels is no ROI.
        padding: margin on each side as a fraction of the box's width and height, clipped at the image border.
        augment: random changes; None for evaluation.
        labeled: read the segmentations; boxes are read in any case.

    Raises:
        ValueError: files are missing, the annotations are invalid (see `read_instances`), or no image is left. On
            access: an image that cannot be read or has another size than annotated, an invalid segmentation.
    """

    normalization = NORMALIZATION
    needs_float32 = "the boxes of its regions"

    def __init__(
        self,
        root: str | Path,
        images: str,
        annotations: str,
        image_size: Sequence[int] = (640, 640),
        mask_size: Sequence[int] = (160, 120),
        category: str = "person",
        max_rois: int = 10,
        min_side: float = 16,
        padding: float = 0.0,
        augment: RoiAugment | None = None,
        labeled: bool = True,
    ):
        root = Path(root).expanduser()
        self.folder, self.annotations = root / images, root / annotations
        self.image_size, self.mask_size = _pair(image_size, "image_size"), _pair(mask_size, "mask_size")
        self.max_rois, self.min_side, self.padding = max_rois, min_side, padding
        self.augment, self.labeled = augment, labeled
        if max_rois < 1:
            raise ValueError(f"max_rois={max_rois}: must be at least 1")
        records = read_instances(self.annotations, category, check_shapes=labeled)
        self.images = [record for record in records if self._largest(record["instances"])]
        if not self.images:
            raise ValueError(f"{self.annotations} has no {category!r} of at least min_side={min_side} pixels each way")
        require_files(self.folder, [record["file_name"] for record in self.images], str(self.annotations))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        record = self.images[index]
        image = self._read_image(record)
        height, width = image.shape[1:]
        chosen = self._largest(record["instances"])
        boxes = _corners(np.array([record["instances"][k]["bbox"] for k in chosen]))
        boxes = _padded(boxes, self.padding).clip(0, [width, height, width, height])
        everything = np.array([0.0, 0.0, width, height])
        window, mirrored = everything, False
        if self.augment is not None:
            image = self.augment.color(image)
            window, mirrored = self.augment.view(height, width), self.augment.mirrored()
            boxes = self.augment.shaken(boxes)
        if not _seen(boxes, window)[1].any():  # the random window misses them all
            window = everything
        boxes, kept = _seen(boxes, window)
        chosen, boxes = [k for k, keep in zip(chosen, kept) if keep], boxes[kept]

        count = len(chosen)
        rois = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(self.max_rois, 1)
        rois[:count] = torch.from_numpy(_relative(boxes, window, mirrored)).float()
        roi_ids = torch.full((self.max_rois,), -1)
        roi_ids[:count] = torch.tensor([record["instances"][k]["id"] for k in chosen])
        target = torch.full((self.max_rois, *self.mask_size), VOID)
        if self.labeled and count:
            labels = torch.from_numpy(self._labels(record, chosen, boxes)).long()
            target[:count] = labels.flip(-1) if mirrored else labels
        roi_mask = torch.arange(self.max_rois) < count
        return {
            "image": _canvas(image, window, mirrored, self.image_size),
            "rois": rois,
            "roi_mask": roi_mask,
            "roi_ids": roi_ids,
            "target": target,
            "valid": roi_mask[:, None, None].expand_as(target).clone(),
        }

    def _largest(self, instances: list[dict[str, Any]]) -> list[int]:
        """Numbers of the boxes that become ROIs, largest first; equal ones in the order of the file."""
        sides = [(k, *instance["bbox"][2:]) for k, instance in enumerate(instances)]
        large = [(-w * h, k) for k, w, h in sides if min(w, h) >= self.min_side]
        return [k for _, k in sorted(large)[: self.max_rois]]

    def _read_image(self, record: dict[str, Any]) -> Tensor:
        file = self.folder / record["file_name"]
        pixels = torch.from_numpy(read_rgb(file)).permute(2, 0, 1)
        if pixels.shape[1:] != (record["height"], record["width"]):
            raise ValueError(
                f"{file} is {pixels.shape[1]} x {pixels.shape[2]} pixels (height x width), but "
                f"{self.annotations} says {record['height']} x {record['width']}"
            )
        return pixels

    def _labels(self, record: dict[str, Any], chosen: list[int], boxes: NDArray[np.float64]) -> NDArray[np.uint8]:
        """(n, h, w) labels of the chosen instances' boxes, given in original pixels."""
        instances, height, width = record["instances"], record["height"], record["width"]
        # Only instances that overlap some ROI are decoded.
        around = np.array([*boxes[:, :2].min(0), *boxes[:, 2:].max(0)])
        _, near = _seen(_corners(np.array([i["bbox"] for i in instances])), around, fraction=0.0)
        needed = sorted({*np.flatnonzero(near).tolist(), *chosen})
        masks = np.stack([self._mask(instances[k], height, width) for k in needed])
        labels = np.full((len(chosen), *self.mask_size), BACKGROUND, np.uint8)
        for n, (k, (x1, y1, x2, y2)) in enumerate(zip(chosen, boxes)):
            rows, columns = _middles(y1, y2, self.mask_size[0]), _middles(x1, x2, self.mask_size[1])
            inside = _within(rows, height)[:, None] & _within(columns, width)
            cells = masks[:, rows.clip(0, height - 1)[:, None], columns.clip(0, width - 1)] & inside
            labels[n][cells.any(0)] = OTHER
            labels[n][cells[needed.index(k)]] = TARGET
        return labels

    def _mask(self, instance: dict[str, Any], height: int, width: int) -> NDArray[np.bool_]:
        """(height, width) of polygons, or of run lengths, plain or compressed."""
        shape = instance["segmentation"]
        if not shape:
            raise ValueError(
                f"annotation {instance['id']} of {self.annotations} has no segmentation; labeled=false needs none"
            )
        try:
            if isinstance(shape, list):
                runs = rle.merge(rle.frPyObjects(shape, height, width))
            elif list(shape["size"]) != [height, width]:
                raise ValueError(f"run lengths of {shape['size']} pixels in an image of {[height, width]}")
            else:
                counts = shape["counts"]
                if isinstance(counts, list) and (sum(counts) != height * width or min(counts) < 0):
                    raise ValueError(f"its runs cover {sum(counts)} of {height * width} pixels")
                runs = rle.frPyObjects(shape, height, width) if isinstance(counts, list) else shape
            return rle.decode(runs).astype(bool)
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise ValueError(
                f"annotation {instance['id']} of {self.annotations}: invalid segmentation ({error})"
            ) from error


def _pair(size: Sequence[int], name: str) -> tuple[int, int]:
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"{name}={list(size)}: give height and width")
    return int(size[0]), int(size[1])


def _corners(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """x, y, width, height to x1, y1, x2, y2."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float64)


def _padded(boxes: NDArray[np.float64], fraction: float) -> NDArray[np.float64]:
    margin = fraction * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    return boxes + margin * [-1, -1, 1, 1]


def _seen(
    boxes: NDArray[np.float64], window: NDArray[np.float64], fraction: float = 0.5
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Boxes clipped to the window, and which of them keep more than this fraction of their area."""
    cut = np.concatenate([boxes[:, :2].clip(window[:2], window[2:]), boxes[:, 2:].clip(window[:2], window[2:])], axis=1)
    return cut, (cut[:, 2:] - cut[:, :2]).prod(1) > fraction * (boxes[:, 2:] - boxes[:, :2]).prod(1)


def _relative(boxes: NDArray[np.float64], window: NDArray[np.float64], mirrored: bool) -> NDArray[np.float64]:
    relative = (boxes - np.tile(window[:2], 2)) / np.tile(window[2:] - window[:2], 2)
    if mirrored:
        relative[:, [0, 2]] = 1 - relative[:, [2, 0]]
    return relative


def _middles(low: float, high: float, cells: int) -> NDArray[np.int64]:
    """Pixels under the centers of evenly spaced cells; pixel p covers p .. p + 1."""
    return np.floor(low + (np.arange(cells) + 0.5) * (high - low) / cells).astype(np.int64)


def _within(pixels: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    return (pixels >= 0) & (pixels < size)


def _canvas(image: Tensor, window: NDArray[np.float64], mirrored: bool, size: tuple[int, int]) -> Tensor:
    """The window of an image (3, h, w) uint8, resized and normalized; outside of the image the mean color."""
    x1, y1, x2, y2 = (int(v) for v in window)
    image = functional.normalize(image.float() / 255, list(MEAN), list(STD))
    image = functional.crop(image, y1, x1, y2 - y1, x2 - x1)  # pads with 0, after normalization the mean
    image = functional.resize(image, list(size), antialias=True)
    return functional.horizontal_flip(image) if mirrored else image

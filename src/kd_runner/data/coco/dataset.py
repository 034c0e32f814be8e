"""Instances of one class in COCO's layout: an image, its boxes as regions of interest, three labels inside of each."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional

from kd_runner.data.coco.roi_augment import RoiAugment
from kd_runner.data.voc.dataset import VOID
from kd_runner.data.voc.transforms import MEAN, STD
from kd_runner.errors import ConfigError, nearest

BACKGROUND, TARGET, OTHER = 0, 1, 2


class CocoInstances(Dataset[dict[str, Tensor]]):
    """Images that show the class, with up to N of its boxes and what each box holds.

    A sample:
    * `image` (3, H, W) float32, normalized with ImageNet's statistics; proportions are not kept;
    * `rois` (N, 4) float32: x1, y1, x2, y2 as shares of the image's width and height; (0, 0, 1, 1) where padded;
    * `roi_mask` (N) bool: False where padded;
    * `roi_ids` (N) int64: annotation ids, -1 where padded;
    * `target` (N, h, w) int64: 1 where the box's own instance is seen, 2 any other one of the class, 0 neither;
      255 where padded, and everywhere without labels;
    * `valid` (N, h, w) bool: `roi_mask` for every pixel: where masks may be distilled, labels or none.

    Cell (i, j) of a target is the label of the original pixel under the middle of cell (i, j) of the box, which is
    where an aligned `torchvision.ops.roi_align` of h x w with one sample a cell reads.

    Crowds (`iscrowd`) are left out, and so are images without a box that is large enough. The largest N boxes of an
    image become its regions, largest first; smaller ones still count as "other".

    Args:
        root: folder that the next two are in.
        images: folder of the pictures, below `root`.
        annotations: json file of boxes and segmentations (polygons or run lengths), below `root`.
        image_size, mask_size: (height, width) of the image and of a region's labels, in pixels.
        category: name of the class.
        max_rois: N.
        min_side: a box whose width or height is below this many original pixels is no region.
        padding: share of a box's width and height that is added on each side, cut at the image's border.
        augment: random changes; None for evaluation.
        labeled: read the segmentations; boxes are read in any case.

    Raises:
        ConfigError: files missing or not as COCO has them, an unknown category, nothing left; on access, an image
            that cannot be read or has another size than its annotation says, a segmentation that is none.
    """

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
            raise ConfigError(f"max_rois={max_rois}: an image needs at least one region")
        self.images = self._with_instances(_read_json(self.annotations), category)
        if not self.images:
            raise ConfigError(
                f"data.root: {self.annotations} has no {category!r} of at least min_side={min_side} pixels each way"
            )
        if not (first := self.folder / self.images[0]["file_name"]).is_file():
            raise ConfigError(f"data.root: {first} is missing, which {self.annotations} names")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        record = self.images[index]
        picture = self._picture(record)
        height, width = picture.shape[1:]
        chosen = self._largest(record["instances"])
        boxes = _corners(np.array([record["instances"][k]["bbox"] for k in chosen]))
        boxes = _padded(boxes, self.padding).clip(0, [width, height, width, height])
        everything = np.array([0.0, 0.0, width, height])
        window, mirrored = everything, False
        if self.augment is not None:
            picture = self.augment.color(picture)
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
            "image": _canvas(picture, window, mirrored, self.image_size),
            "rois": rois,
            "roi_mask": roi_mask,
            "roi_ids": roi_ids,
            "target": target,
            "valid": roi_mask[:, None, None].expand_as(target).clone(),
        }

    def _with_instances(self, content: dict[str, Any], category: str) -> list[dict[str, Any]]:
        """Records of images that have regions: `file_name`, `height`, `width`, `instances`."""
        try:
            ids = {entry["name"]: entry["id"] for entry in content["categories"]}
            if category not in ids:
                raise ConfigError(f"data: no category {category!r} in {self.annotations}.{nearest(category, ids)}")
            found: dict[int, list[dict[str, Any]]] = {}
            for entry in content["annotations"]:
                if entry["category_id"] == ids[category] and not entry.get("iscrowd", 0):
                    instance = {"id": entry["id"], "bbox": entry["bbox"], "segmentation": entry.get("segmentation")}
                    found.setdefault(entry["image_id"], []).append(instance)
            return [
                {
                    "file_name": entry["file_name"],
                    "height": entry["height"],
                    "width": entry["width"],
                    "instances": found[entry["id"]],
                }
                for entry in content["images"]
                if entry["id"] in found and self._largest(found[entry["id"]])
            ]
        except (KeyError, TypeError) as error:
            raise ConfigError(f"data.root: {self.annotations} is no COCO instance file ({error!r})") from error

    def _largest(self, instances: list[dict[str, Any]]) -> list[int]:
        """Places of the boxes that become regions, largest first; of equal ones the first."""
        sides = [(k, *instance["bbox"][2:]) for k, instance in enumerate(instances)]
        large = [(-w * h, k) for k, w, h in sides if min(w, h) >= self.min_side]
        return [k for _, k in sorted(large)[: self.max_rois]]

    def _picture(self, record: dict[str, Any]) -> Tensor:
        file = self.folder / record["file_name"]
        try:
            with Image.open(file) as opened:
                pixels = torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1)
        except OSError as error:  # missing, cut short, or no picture
            raise ConfigError(f"data.root: {file} cannot be read ({error})") from error
        if pixels.shape[1:] != (record["height"], record["width"]):
            raise ConfigError(
                f"data.root: {file} is {pixels.shape[1]} x {pixels.shape[2]} pixels (height x width), but "
                f"{self.annotations} says {record['height']} x {record['width']}"
            )
        return pixels

    def _labels(self, record: dict[str, Any], chosen: list[int], boxes: NDArray[np.float64]) -> NDArray[np.uint8]:
        """(n, h, w) labels of the chosen instances' boxes, given in original pixels."""
        instances, height, width = record["instances"], record["height"], record["width"]
        # Only what some region can see is decoded.
        around = np.array([*boxes[:, :2].min(0), *boxes[:, 2:].max(0)])
        _, near = _seen(_corners(np.array([i["bbox"] for i in instances])), around, share=0.0)
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
            raise ConfigError(
                f"data: annotation {instance['id']} of {self.annotations} has no segmentation; labeled=false needs none"
            )
        try:
            if isinstance(shape, list):
                # Lists of four numbers pycocotools would take for boxes.
                runs = rle.merge(rle.frPyObjects([polygon for polygon in shape if len(polygon) >= 6], height, width))
            elif list(shape["size"]) != [height, width]:
                raise ValueError(f"run lengths of {shape['size']} pixels in an image of {[height, width]}")
            else:
                runs = rle.frPyObjects(shape, height, width) if isinstance(shape["counts"], list) else shape
            return rle.decode(runs).astype(bool)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ConfigError(
                f"data.root: annotation {instance['id']} of {self.annotations}: no segmentation ({error})"
            ) from error


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        known = [p.name for p in file.parent.glob("*.json")]
        hint = nearest(file.name, known) if known else ""
        raise ConfigError(f"data.root: {file} cannot be read ({error.strerror}).{hint}") from error
    except ValueError as error:
        raise ConfigError(f"data.root: {file} is no JSON, or cut short ({error})") from error
    if not isinstance(content, dict):
        raise ConfigError(f"data.root: {file} is no COCO instance file: it holds a {type(content).__name__}")
    return content


def _pair(size: Sequence[int], name: str) -> tuple[int, int]:
    if len(size) != 2 or min(size) < 1:
        raise ConfigError(f"{name}={list(size)}: give height and width")
    return int(size[0]), int(size[1])


def _corners(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """x, y, width, height to x1, y1, x2, y2."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float64)


def _padded(boxes: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    margin = share * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    return boxes + margin * [-1, -1, 1, 1]


def _seen(
    boxes: NDArray[np.float64], window: NDArray[np.float64], share: float = 0.5
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Boxes cut at the window, and which of them keep more than this share of their area."""
    cut = np.concatenate([boxes[:, :2].clip(window[:2], window[2:]), boxes[:, 2:].clip(window[:2], window[2:])], axis=1)
    return cut, (cut[:, 2:] - cut[:, :2]).prod(1) > share * (boxes[:, 2:] - boxes[:, :2]).prod(1)


def _relative(boxes: NDArray[np.float64], window: NDArray[np.float64], mirrored: bool) -> NDArray[np.float64]:
    shares = (boxes - np.tile(window[:2], 2)) / np.tile(window[2:] - window[:2], 2)
    if mirrored:
        shares[:, [0, 2]] = 1 - shares[:, [2, 0]]
    return shares


def _middles(low: float, high: float, cells: int) -> NDArray[np.int64]:
    """Pixels under the middles of evenly spaced cells; pixel p covers p .. p + 1."""
    return np.floor(low + (np.arange(cells) + 0.5) * (high - low) / cells).astype(np.int64)


def _within(pixels: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    return (pixels >= 0) & (pixels < size)


def _canvas(picture: Tensor, window: NDArray[np.float64], mirrored: bool, size: tuple[int, int]) -> Tensor:
    """The window of a picture (3, h, w) uint8, resized and normalized; the mean color lies around the picture."""
    x1, y1, x2, y2 = (int(v) for v in window)
    image = functional.normalize(picture.float() / 255, list(MEAN), list(STD))
    image = functional.crop(image, y1, x1, y2 - y1, x2 - x1)  # pads with 0, after normalization the mean
    image = functional.resize(image, list(size), antialias=True)
    return functional.horizontal_flip(image) if mirrored else image

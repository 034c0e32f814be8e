"""A small data set of persons in COCO's layout: drawn figures that occlude each other, on real photographs.

Every scene is a crop of a photograph with groups of figures on it, the nearer ones in front. All are of one class,
so a box of an occluded figure holds parts of others, and a net has to find out which one the box fits.
Annotations are of the visible parts, as in COCO: area, box, and segmentation (polygons, or compressed run lengths where
the visible part has a hole).

No validation scene shares a photograph pixel with any other split, and no scene is in two splits.
"""

import json
from pathlib import Path
from typing import Any

import contourpy
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle

from kd_runner.synthetic.persons import figure
from kd_runner.synthetic.photographs import Photographs
from kd_runner.synthetic.writing import SPLITS, Arguments, sample_random, write_checked

# Raised whenever the same arguments would give other files.
FORMAT = 1

_LEAST_VISIBLE = 0.45  # fraction; else the figure, or the one that hides it, is left out
_LEAST_SIDE = 0.1  # of a visible part, as a fraction of the image's side

Mask = NDArray[np.bool_]


def write(
    root: str | Path,
    *,
    num_train: int = 150,
    num_val: int = 200,
    num_unlabeled: int = 1000,
    num_teacher: int = 0,
    size: int = 96,
    seed: int = 0,
) -> Path:
    """Write the data set once, see `synthetic.writing.write_checked`.

    Each split of `train`, `val`, `unlabeled`, `teacher` has a folder of images and
    `annotations/instances_<split>.json`. Those of `unlabeled` hold boxes, as a detector would give, and no
    segmentation. Scene k of a split depends on `seed`, `size`, the split and k alone, so a longer split begins with
    the shorter one.

    Args:
        root: folder of the data set.
        num_train: number of images of the split, as for the next three.
        num_val: likewise.
        num_unlabeled: likewise.
        num_teacher: likewise.
        size: height and width of the images in pixels.
        seed: seed of all scenes.

    Returns:
        `root`.

    Raises:
        ValueError: an argument is out of range, or `root` holds anything else.
    """
    counts = {"train": num_train, "val": num_val, "unlabeled": num_unlabeled, "teacher": num_teacher}
    named = {f"num_{split}": count for split, count in counts.items()}
    arguments = {"format": FORMAT, "size": size, "seed": seed, **named}
    # Smaller figures cannot be recognized.
    return write_checked(root, arguments, {"size": 32, **dict.fromkeys(named, 0)}, _fill)


def _fill(folder: Path, arguments: Arguments) -> None:
    size = arguments["size"]
    photographs = {held_out: Photographs(held_out) for held_out in (False, True)}
    (folder / "annotations").mkdir()
    for split, number in SPLITS.items():
        (folder / split).mkdir()
        images, annotations = [], []
        for k in range(arguments[f"num_{split}"]):
            random = sample_random(arguments["seed"], size, number, k)
            picture, instances = scene(photographs[split == "val"], size, random)
            image_id = number * 10_000_000 + k + 1
            name = f"{image_id:012d}.jpg"
            Image.fromarray(picture).save(folder / split / name, quality=92)
            images.append({"id": image_id, "file_name": name, "height": size, "width": size, "license": 1})
            for n, mask in enumerate(instances):
                entry = {"id": image_id * 100 + n, "image_id": image_id, "category_id": 1, "iscrowd": 0}
                annotations.append(entry | _measured(mask, with_shape=split != "unlabeled"))
        content = {
            "info": {"description": f"drawn figures on photographs, {split}", "version": str(FORMAT), "year": 2026},
            "licenses": [{"id": 1, "name": "CC BY 2.0", "url": "https://creativecommons.org/licenses/by/2.0/"}],
            "images": images,
            "annotations": annotations,
            "categories": [{"supercategory": "person", "id": 1, "name": "person"}],
        }
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def scene(photographs: Photographs, size: int, random: np.random.Generator) -> tuple[NDArray[np.uint8], list[Mask]]:
    """Draw a scene.

    Args:
        photographs: of the background.
        size: height and width in pixels.
        random: draws everything.

    Returns:
        Image (size, size, 3) and visible masks (size, size), the farthest first; at least one. Small visible parts are
        left out.
    """
    picture = photographs.patch(size, size, random).astype(np.float32) * random.uniform(0.55, 1.0)
    owners = np.zeros((size, size), np.uint8)
    whole: list[int] = []  # areas of the figures without occlusion
    # Higher up in the image is farther away, and smaller.
    near = np.sort(random.beta(1.6, 1.2, int(random.integers(2, 8))))
    middle = random.uniform(0.2, 0.8)
    for depth in near:
        height = size * (0.32 + 0.62 * depth) * random.uniform(0.92, 1.08)
        person = figure(int(height), random)
        if random.random() < 0.5:
            middle = random.uniform(0.1, 0.9)  # another group
        left = round(size * middle + random.normal(0, 0.38) * height - person.cover.shape[1] / 2)
        top = round(size * (0.52 + 0.5 * depth)) - person.cover.shape[0]
        window, part = _overlap(top, left, person.cover.shape, size)
        cover = person.cover[part]
        mask = np.zeros((size, size), bool)
        mask[window] = cover > 0.5
        seen = np.bincount(owners[~mask], minlength=len(whole) + 1)[1:]
        area = int((person.cover > 0.5).sum())
        if any(s < _LEAST_VISIBLE * w for s, w in zip([mask.sum(), *seen], [area, *whole])):
            continue
        light = photographs.patch(cover.shape[0], cover.shape[1], random)[..., :1]
        surface = person.colors[part] * (0.7 + 0.55 * light / 255)
        picture[window] += cover[..., None] * (surface - picture[window])
        whole.append(area)
        owners[mask] = len(whole)
    masks = [mask for n in range(len(whole)) if _large_enough(mask := owners == n + 1, size)]
    if not masks:
        return scene(photographs, size, random)
    return picture.clip(0, 255).astype(np.uint8), masks


def _overlap(top: int, left: int, shape: tuple[int, ...], size: int) -> tuple[Any, Any]:
    """Slices of the image that a figure covers, and slices of the figure that lie on the image."""
    first = np.maximum([top, left], 0)
    last = np.maximum(np.minimum([top + shape[0], left + shape[1]], size), first)
    window, part = (
        (slice(a, b) for a, b in zip(first - origin, last - origin)) for origin in (0, np.array([top, left]))
    )
    return tuple(window), tuple(part)


def _large_enough(mask: Mask, size: int) -> bool:
    return min(mask.any(0).sum(), mask.any(1).sum()) >= _LEAST_SIDE * size


def _measured(mask: Mask, with_shape: bool) -> dict[str, Any]:
    """`bbox` of a visible part and, with `with_shape`, its `area` and `segmentation`."""
    polygons = _polygons(mask)
    if polygons is None:
        runs = rle.encode(np.asfortranarray(mask, np.uint8))
    else:
        runs = rle.merge(rle.frPyObjects(polygons, *mask.shape))
    entry = {"bbox": rle.toBbox(runs).tolist()}
    if with_shape:
        compressed = {"size": list(mask.shape), "counts": runs["counts"].decode()}
        entry |= {"area": float(rle.area(runs)), "segmentation": compressed if polygons is None else polygons}
    return entry


def _polygons(mask: Mask) -> list[list[float]] | None:
    """COCO's polygons [x, y, x, y, ...] around the parts of a mask; None where one has a hole."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = rows[0], columns[0]
    inside = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1).astype(np.float64)
    polygons = []
    lines: list[NDArray[np.float64]] = contourpy.contour_generator(z=inside).lines(0.5)  # type: ignore[assignment]
    for line in lines:
        x, y = line.T
        if (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() < 0:  # a hole turns the other way
            return None
        steps = np.diff(line, axis=0)
        corners = np.any(steps != np.roll(steps, 1, axis=0), axis=1)
        # From the center of a padding pixel to the corner of the image.
        polygons.append((line[:-1][corners] + [left - 0.5, top - 0.5]).ravel().tolist())
    return polygons

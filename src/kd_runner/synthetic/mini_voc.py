"""A small data set in the layout of VOC2012, composed of real images.

Every scene is a crop of a photograph with one to three handwritten digits on it; a digit is an object whose
surface is another, tinted crop of a photograph, so neither color nor texture tells its class: digit d has
label d + 1, label 0 is the background, 255 the one-pixel contour around each object, as in VOC.

Sources, both shipped inside scikit-learn:
* `load_digits`: 1,797 digits of 8 x 8 pixels (UCI "Optical Recognition of Handwritten Digits", E. Alpaydin
  and C. Kaynak, 1998, CC BY 4.0);
* two photographs (`photographs`).

Validation scenes share no digit and no photograph pixel with any other split. The teacher's scenes come from
the same digits and photograph halves as `train` and `unlabeled`, but no scene is in two lists.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kd_runner.data.voc.dataset import VOID, voc_palette
from kd_runner.synthetic.digits import Sources, dim, silhouette, surface
from kd_runner.synthetic.writing import write_checked

Array = NDArray[np.uint8]

NUM_CLASSES = 11
CLASS_NAMES = ("background", *(f"digit {digit}" for digit in range(10)))
# Raised whenever the same arguments would give other files.
FORMAT = 1

_SPLITS = {"train": 0, "val": 1, "unlabeled": 2, "teacher": 3}


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
    """Write the data set once, see `write_checked`.

    `ImageSets/Segmentation` lists `train`, `val`, `trainval`, `unlabeled` (images without a mask file) and `teacher`
    (images with one). Scene k of a list depends on `seed`, `size`, the list and k alone, so a longer list begins with
    the shorter one.

    Args:
        root: folder of the data set.
        num_train, num_val, num_unlabeled, num_teacher: number of images of each list.
        size: height and width of the images in pixels.
        seed: seed of all scenes.

    Returns:
        The folder `root/VOCdevkit/VOC2012`.

    Raises:
        ValueError: an argument is out of range, or `root` holds anything else.
    """
    counts = {"train": num_train, "val": num_val, "unlabeled": num_unlabeled, "teacher": num_teacher}
    arguments = {"format": FORMAT, "size": size, "seed": seed, **{f"num_{k}": v for k, v in counts.items()}}
    at_least = {"size": 32, **{f"num_{k}": 0 for k in counts}}  # smaller digits cannot be recognized
    folder = Path("VOCdevkit") / "VOC2012"
    return write_checked(root, arguments, at_least, lambda new: _write_files(new / folder, counts, size, seed)) / folder


def _write_files(folder: Path, counts: dict[str, int], size: int, seed: int) -> None:
    for name in ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    sources = {held_out: Sources(held_out) for held_out in (False, True)}
    palette = voc_palette().tobytes()
    lists = {}
    for split, number in _SPLITS.items():
        lists[split] = [f"{split}_{k:05d}" for k in range(counts[split])]
        for k, name in enumerate(lists[split]):
            random = np.random.default_rng([seed, size, number, k])
            image, classes, instances = _scene(sources[split == "val"], size, random)
            Image.fromarray(image).save(folder / "JPEGImages" / f"{name}.jpg", quality=95)
            if split == "unlabeled":
                continue
            for kind, labels in (("SegmentationClass", classes), ("SegmentationObject", instances)):
                mask = Image.fromarray(labels)
                mask.putpalette(palette)
                mask.save(folder / kind / f"{name}.png")
    lists["trainval"] = lists["train"] + lists["val"]
    for split, names in lists.items():
        (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("".join(f"{n}\n" for n in names))


def _scene(sources: Sources, size: int, random: np.random.Generator) -> tuple[Array, Array, Array]:
    """Image (H, W, 3), class labels (H, W) and instance numbers (H, W), the last two with the void contour."""
    image = dim(sources.photographs.patch(size, size, random), random)
    classes = np.zeros((size, size), np.uint8)
    instances = np.zeros((size, size), np.uint8)
    squares: list[tuple[int, int, int]] = []
    for instance in range(1, int(random.integers(1, 4)) + 1):
        square = _free_square(squares, size, random)
        if square is None:
            continue
        squares.append(square)
        top, left, side = square
        chosen = int(random.integers(len(sources.digits)))
        # One pixel wider than the image on each side, so that the contour can be cut like the object.
        canvas = np.zeros((size + 2, size + 2), bool)
        canvas[top + 1 : top + 1 + side, left + 1 : left + 1 + side] = silhouette(sources.digits[chosen], side, random)
        contour = _dilate(canvas)[1:-1, 1:-1]
        body = canvas[1:-1, 1:-1]
        image[body] = surface(sources.photographs.patch(size, size, random), random)[body]
        for labels, value in ((classes, int(sources.labels[chosen]) + 1), (instances, instance)):
            labels[contour] = VOID
            labels[body] = value
    return image, classes, instances


def _free_square(
    others: list[tuple[int, int, int]], size: int, random: np.random.Generator
) -> tuple[int, int, int] | None:
    """Random (top, left, side) of a square that hides little of the others; None after ten attempts."""
    for _ in range(10):
        side = int(size * random.uniform(0.46, 0.72))
        top, left = (int(v) for v in random.integers(0, size - side + 1, size=2))
        overlaps = (
            max(0, min(top + side, t + s) - max(top, t)) * max(0, min(left + side, x + s) - max(left, x)) / (s * s)
            for t, x, s in others
        )
        if max(overlaps, default=0.0) < 0.2:
            return top, left, side
    return None


def _dilate(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask grown by one pixel in all eight directions."""
    rows = mask.copy()
    rows[1:] |= mask[:-1]
    rows[:-1] |= mask[1:]
    grown = rows.copy()
    grown[:, 1:] |= rows[:, :-1]
    grown[:, :-1] |= rows[:, 1:]
    return grown

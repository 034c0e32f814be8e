"""A small data set in the layout of VOC2012, composed of real images.

Every scene is a crop of a photograph with a few handwritten digits on it; a digit is an object whose surface is
another, tinted crop of a photograph, so neither color nor texture tells its class: digit d has label d + 1, label 0 is
the background, 255 the one-pixel contour around each object, as in VOC.

Sources, both shipped inside scikit-learn:
* `load_digits`: 1,797 digits of 8 x 8 pixels (UCI "Optical Recognition of Handwritten Digits", E. Alpaydin
  and C. Kaynak, 1998, CC BY 4.0);
* two photographs (`photographs`).

Validation scenes share no digit and no photograph pixel with any other split. The teacher's scenes come from
the same digits and photograph halves as `train` and `unlabeled`, but no scene is in two lists.

The same scenes with printed letters in place of the digits (`objects="letters"`) are what the mini student's encoder is
trained on beforehand, as the published student's is on ImageNet: they tell nothing of the digits.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kd_runner.data.voc.dataset import VOID, voc_palette
from kd_runner.synthetic.digits import Sources, dim, silhouette, surface
from kd_runner.synthetic.letters import letters
from kd_runner.synthetic.writing import SPLITS, sample_random, write_checked

Array = NDArray[np.uint8]

NUM_CLASSES = 11
CLASS_NAMES = ("background", *(f"digit {digit}" for digit in range(10)))
# Raised whenever the same arguments would give other files.
FORMAT = 1


def write(
    root: str | Path,
    *,
    num_train: int = 150,
    num_val: int = 200,
    num_unlabeled: int = 1000,
    num_teacher: int = 0,
    size: int = 96,
    side: Sequence[float] = (0.46, 0.72),
    max_objects: int = 3,
    objects: str = "digits",
    seed: int = 0,
) -> Path:
    """Write the data set once, see `synthetic.writing.write_checked`.

    `ImageSets/Segmentation` lists `train`, `val`, `trainval`, `unlabeled` (images without a mask file) and `teacher`
    (images with one). Scene k of a list does not depend on the number of scenes, so a longer list begins with the
    shorter one.

    Args:
        root: folder of the data set.
        num_train: number of images of the list, as for the next three.
        num_val: likewise.
        num_unlabeled: likewise.
        num_teacher: likewise.
        size: height and width of the images in pixels.
        side: smallest and largest side of an object's square, as fractions of `size`.
        max_objects: objects of a scene at most; one is left out where it would hide too much of the others.
        objects: `digits`, or `letters`: see the module's docstring.
        seed: seed of all scenes.

    Returns:
        The folder `root/VOCdevkit/VOC2012`.

    Raises:
        ValueError: an argument is out of range, or `root` holds anything else.
    """
    counts = {"train": num_train, "val": num_val, "unlabeled": num_unlabeled, "teacher": num_teacher}
    if objects not in ("digits", "letters"):
        raise ValueError(f"objects={objects}: digits or letters")
    if max_objects < 1:
        raise ValueError(f"max_objects={max_objects}: must be at least 1")
    if len(side) != 2 or not 0.1 <= side[0] <= side[1] <= 1:
        raise ValueError(f"side={list(side)}: must be the smallest and the largest fraction of the image, 0.1 to 1")
    scenes = {"size": size, "side": list(side), "max_objects": max_objects, "objects": objects, "seed": seed}
    new = {"side": [0.46, 0.72], "max_objects": 3, "objects": "digits"}  # data sets from before these arguments count
    changed = {key: value for key, value in scenes.items() if new.get(key) != value}
    arguments = {"format": FORMAT, **changed, **{f"num_{k}": v for k, v in counts.items()}}
    at_least = {"size": 32, **{f"num_{k}": 0 for k in counts}}  # smaller digits cannot be recognized
    folder = Path("VOCdevkit") / "VOC2012"
    return write_checked(root, arguments, at_least, lambda new, _: _write_files(new / folder, counts, scenes)) / folder


def _write_files(folder: Path, counts: dict[str, int], scenes: dict[str, Any]) -> None:
    for name in ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    sources = {held_out: _sources(held_out, scenes["objects"]) for held_out in (False, True)}
    palette = voc_palette().tobytes()
    lists = {}
    for split, number in SPLITS.items():
        lists[split] = [f"{split}_{k:05d}" for k in range(counts[split])]
        for k, name in enumerate(lists[split]):
            random = sample_random(scenes["seed"], scenes["size"], number, k)
            image, classes, instances = _scene(
                sources[split == "val"], scenes["size"], scenes["side"], scenes["max_objects"], random
            )
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


def _sources(held_out: bool, objects: str) -> Sources:
    """Digits or letters, and photograph parts, for the scenes of training or, with `held_out`, of validation."""
    sources = Sources(held_out)
    if objects == "letters":
        sources.digits, sources.labels = letters()
    return sources


def _scene(
    sources: Sources, size: int, side_range: Sequence[float], max_objects: int, random: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Image (H, W, 3), class labels (H, W) and instance numbers (H, W), the last two with the void contour."""
    image = dim(sources.photographs.patch(size, size, random), random)
    classes = np.zeros((size, size), np.uint8)
    instances = np.zeros((size, size), np.uint8)
    squares: list[tuple[int, int, int]] = []
    for instance in range(1, int(random.integers(1, max_objects + 1)) + 1):
        square = _free_square(squares, size, side_range, random)
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
    others: list[tuple[int, int, int]], size: int, side_range: Sequence[float], random: np.random.Generator
) -> tuple[int, int, int] | None:
    """Random (top, left, side) of a square that hides little of the others; None after ten attempts."""
    for _ in range(10):
        side = int(size * random.uniform(side_range[0], side_range[1]))
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

"""A small data set in the layout of CIFAR-100, composed of real images.

An image is a crop of a photograph with one handwritten digit on it, whose surface is another, tinted crop; class d is
digit d. `test` shares no digit and no photograph pixel with the other files. `train` has few labels; `teacher` holds
many images of all training digits. Sources: `digits`, `photographs`.
"""

import pickle
from pathlib import Path

import numpy as np

from kd_runner.synthetic.digits import Array, Sources, dim, silhouette, surface
from kd_runner.synthetic.writing import write_checked

FOLDER = "cifar-100-python"
# Raised whenever the same arguments would give other files.
FORMAT = 1

_SPLITS = {"train": 0, "test": 1, "teacher": 2}


def write(
    root: str | Path,
    *,
    num_train: int = 200,
    num_test: int = 1000,
    num_teacher: int = 0,
    size: int = 12,
    seed: int = 0,
) -> Path:
    """Write the data set once, see `write_checked`.

    Image k of a file depends on `seed`, `size`, the file and k alone, so a longer file begins with the shorter one.

    Args:
        root: folder of the data set.
        num_train: number of images of each file.
        num_test: number of images of each file.
        num_teacher: number of images of each file.
        size: height and width of the images in pixels.
        seed: seed of all images.

    Returns:
        The folder `root/cifar-100-python`.

    Raises:
        ValueError: an argument is out of range, or `root` holds anything else.
    """
    counts = {"train": num_train, "test": num_test, "teacher": num_teacher}
    arguments = {"format": FORMAT, "size": size, "seed": seed, **{f"num_{k}": v for k, v in counts.items()}}
    at_least = {"size": 12, **{f"num_{k}": 0 for k in counts}}  # smaller digits cannot be recognized
    return (
        write_checked(root, arguments, at_least, lambda new, _: _write_files(new / FOLDER, counts, size, seed)) / FOLDER
    )


def _write_files(folder: Path, counts: dict[str, int], size: int, seed: int) -> None:
    folder.mkdir(parents=True)
    for split, number in _SPLITS.items():
        sources = Sources(held_out=split == "test")
        images, labels = np.empty((counts[split], 3 * size * size), np.uint8), []
        for k in range(counts[split]):
            pixels, label = _image(sources, size, np.random.default_rng([seed, size, number, k]))
            images[k] = pixels.transpose(2, 0, 1).ravel()
            labels.append(label)
        content = {
            "data": images,
            "fine_labels": labels,
            "filenames": [f"{split}_{k:05d}.png" for k in range(len(labels))],
        }
        (folder / split).write_bytes(pickle.dumps(content, protocol=4))
    meta = {"fine_label_names": [str(digit) for digit in range(10)]}
    (folder / "meta").write_bytes(pickle.dumps(meta, protocol=4))


def _image(sources: Sources, size: int, random: np.random.Generator) -> tuple[Array, int]:
    """Pixels (size, size, 3) and the digit on them."""
    pixels = dim(sources.photographs.patch(size, size, random), random)
    side = int(size * random.uniform(0.75, 1.0))
    top, left = (int(v) for v in random.integers(0, size - side + 1, size=2))
    chosen = int(random.integers(len(sources.digits)))
    body = np.zeros((size, size), bool)
    body[top : top + side, left : left + side] = silhouette(sources.digits[chosen], side, random)
    pixels[body] = surface(sources.photographs.patch(size, size, random), random)[body]
    return pixels, int(sources.labels[chosen])

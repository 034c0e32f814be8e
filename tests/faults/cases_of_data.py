"""Faults in segmentation data: VOC's and COCO's files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.faults.harness import Case

_VOC = "data/VOCdevkit/VOC2012"
_LISTS = f"{_VOC}/ImageSets/Segmentation"
Arrange = Callable[[Path], Any]


def _replace(file: str, content: bytes) -> Arrange:
    return lambda folder: (folder / file).write_bytes(content)


def _remove(file: str) -> Arrange:
    return lambda folder: (folder / file).unlink()


def _halve(file: str) -> Arrange:
    def arrange(folder: Path) -> None:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: len(content) // 2])

    return arrange


def _image(file: str, pixels: np.ndarray) -> Arrange:
    def arrange(folder: Path) -> None:
        with (folder / file).open("wb") as stream:
            Image.fromarray(pixels).save(stream, format="PNG")

    return arrange


def _lines(text: str) -> Arrange:
    return lambda folder: (folder / _LISTS / "train.txt").write_text(text)


_SIDE = (32, 32)
_JPG, _PNG = f"{_VOC}/JPEGImages/train_00000.jpg", f"{_VOC}/SegmentationClass/train_00000.png"
_VAL = f"{_VOC}/JPEGImages/val_00006.jpg"  # read after the first epoch

_OF_VOC: dict[str, tuple[str, Arrange]] = {
    "an image of 16 bits": (r"train_00000\.jpg.*8 bits", _image(_JPG, np.full(_SIDE, 999, np.uint16))),
    "labels of 16 bits": (r"train_00000\.png.*8 bits", _image(_PNG, np.full(_SIDE, 999, np.uint16))),
    "an image of floats": (r"train_00000\.jpg", _replace(_JPG, b"II*\0 no image")),
    "an image cut short": (r"train_00000\.jpg cannot be read", _halve(_JPG)),
    "labels cut short": (r"train_00000\.png cannot be read", _halve(_PNG)),
    "an empty image": (r"train_00000\.jpg cannot be read", _replace(_JPG, b"")),
    "an image that is text": (r"train_00000\.jpg cannot be read", _replace(_JPG, b"hello")),
    "an image that is missing": (r"train_00000\.jpg is missing", _remove(_JPG)),
    "labels that are missing": (r"train_00000\.png is missing", _remove(_PNG)),
    "the last image missing": (r"val_00006\.jpg is missing", _remove(_VAL)),
    "the last image cut short": (r"data\.val: .*val_00006\.jpg cannot be read", _halve(_VAL)),
    "labels in color": (r"train_00000\.png is a color image", _image(_PNG, np.zeros((*_SIDE, 3), np.uint8))),
    "an unknown label": (r"train_00000\.png has label 99", _image(_PNG, np.full(_SIDE, 99, np.uint8))),
    "labels of another size": (r"train_00000\.png is \(16, 16\)", _image(_PNG, np.zeros((16, 16), np.uint8))),
    "an image listed twice": (r"names train_00000 twice", _lines("train_00000\ntrain_00001\ntrain_00000\n")),
    "a list that is empty": (r"'train' .*names no image", _lines("\n")),
    "a list of other files": (r"nothing\.jpg is missing.*'train'", _lines("nothing\n")),
    "a list that is missing": (r"no list 'train'", _remove(f"{_LISTS}/train.txt")),
    "a list of bytes": (r"train\.txt cannot be read", _replace(f"{_LISTS}/train.txt", b"\xff\xfe\x80")),
}


def _json(change: Callable[[dict[str, Any]], Any]) -> Arrange:
    """Change every instance file."""

    def arrange(folder: Path) -> None:
        for file in (folder / "data/annotations").glob("*.json"):
            content = json.loads(file.read_text())
            change(content)
            file.write_text(json.dumps(content))

    return arrange


def _first(kind: str, **values: Any) -> Arrange:
    return _json(lambda content: content[kind][0].update(values))


def _without(kind: str, key: str) -> Arrange:
    return _json(lambda content: content[kind][0].pop(key))


def _twice(kind: str, **values: Any) -> Arrange:
    return _json(lambda content: content[kind].append({**content[kind][0], **values}))


def _all_files(pattern: str, change: Callable[[Path], Any]) -> Arrange:
    def arrange(folder: Path) -> None:
        files = sorted(folder.glob(pattern))
        assert files
        for file in files:
            change(file)

    return arrange


def _cut(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def _deep(file: Path) -> None:
    with file.open("wb") as stream:
        Image.fromarray(np.full((48, 48), 999, np.uint16)).save(stream, format="PNG")


def _wide(file: Path) -> None:
    Image.new("RGB", (64, 48)).save(file)


_OF_COCO: dict[str, tuple[str, Arrange]] = {
    "a negative box": (r"annotation \d+ .*negative width", _first("annotations", bbox=[4, 4, -9, 9])),
    "a box of nan": (r"annotation \d+ .*four finite numbers", _first("annotations", bbox=[4, float("nan"), 9, 9])),
    "a box of three numbers": (r"annotation \d+ .*four finite numbers", _first("annotations", bbox=[4, 4, 9])),
    "a box outside of its image": (
        r"annotation \d+ .*outside of its image",
        _first("annotations", bbox=[400, 4, 9, 9]),
    ),
    "a polygon of seven numbers": (
        r"polygon of 7 numbers",
        _first("annotations", segmentation=[[0, 0, 9, 0, 9, 9, 0]]),
    ),
    "a polygon of text": (r"not a list of finite numbers", _first("annotations", segmentation=[["a"] * 6])),
    "runs of another size": (
        r"invalid segmentation",
        _first("annotations", segmentation={"size": [3, 3], "counts": [9]}),
    ),
    "an annotation of no image": (r"image 99 is not among the images", _first("annotations", image_id=99)),
    "an unknown category": (r"category 99 is not among", _first("annotations", category_id=99)),
    "an annotation without a box": (r"annotations\[0\] has no 'bbox'", _without("annotations", "bbox")),
    "an annotation without its image": (r"annotations\[0\] has no 'image_id'", _without("annotations", "image_id")),
    "an image without a name": (r"images\[0\] has no 'file_name'", _without("images", "file_name")),
    "an image without a width": (r"images\[0\] has no 'width'", _without("images", "width")),
    "an image of no width": (r"images\[0\] .*size of 48 x 0", _first("images", width=0)),
    "an image listed twice": (r"two images have the file_name", _twice("images", id=98)),
    "an annotation listed twice": (r"two annotations have the id", _twice("annotations")),
    "no categories": (r"no list 'categories'", _json(lambda content: content.pop("categories"))),
    "no annotations": (r"no list 'annotations'", _json(lambda content: content.pop("annotations"))),
    "json cut short": (r"instances_\w+\.json is no JSON, or cut short", _all_files("data/annotations/*.json", _cut)),
    "json missing": (r"instances_\w+\.json cannot be read", _all_files("data/annotations/*.json", Path.unlink)),
    "images missing": (r"\.jpg is missing, which .*\.json names", _all_files("data/*/*.jpg", Path.unlink)),
    "images cut short": (r"\.jpg cannot be read", _all_files("data/*/*.jpg", _cut)),
    "images of 16 bits": (r"\.jpg cannot be read .*8 bits", _all_files("data/*/*.jpg", _deep)),
    "images of another size": (r"\.jpg is 48 x 64 pixels", _all_files("data/*/*.jpg", _wide)),
}

CASES = {
    f"VOC: {name}": Case("voc", "export=none callbacks=[checkpoints] logger=none", message, change, copy=True)
    for name, (message, change) in _OF_VOC.items()
}
CASES |= {
    f"COCO: {name}": Case("unet", "task=train_teacher export=none callbacks=[checkpoints]", message, change, copy=True)
    for name, (message, change) in _OF_COCO.items()
}

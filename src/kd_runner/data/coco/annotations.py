"""Reading and checking of a COCO instance file."""

import json
import logging
import math
from pathlib import Path
from typing import Any

from kd_runner.errors import nearest

log = logging.getLogger(__name__)

_KEYS = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}


_MAX_COORDINATE = 1e6  # far outside of any image


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


# Column to what is right for it, and the same in words.
_ENTRY_VALUES = {
    "id": (_is_count, "a whole number from 0"),
    "image_id": (_is_count, "a whole number from 0"),
    "category_id": (_is_count, "a whole number from 0"),
    "file_name": (lambda value: isinstance(value, str) and bool(value), "the name of a file"),
    "name": (lambda value: isinstance(value, str), "text"),
}


def read_instances(file: Path, category: str, check_shapes: bool) -> list[dict[str, Any]]:
    """Images with their annotations of one category, without crowds.

    Polygons of two points, of which the published COCO files hold a few, are dropped with one warning.

    Args:
        file: instance file.
        category: name of the category.
        check_shapes: check the segmentations too.

    Returns:
        One record per image, in the order of the file: `file_name`, `height`, `width`, `instances`, the last a list of
        `id`, `bbox`, `segmentation`.

    Raises:
        ValueError: the file is missing or no COCO instance file, an entry is listed twice, refers to an image or
            category that is not there, or has an invalid box or polygon; an unknown category.
    """
    content = _read_json(file)
    _check_entries(content, file)
    ids = {entry["name"]: entry["id"] for entry in content["categories"]}
    if category not in ids:
        raise ValueError(f"no category {category!r} in {file}.{nearest(category, ids)}")
    for kind, key in (("images", "id"), ("images", "file_name"), ("annotations", "id"), ("categories", "id")):
        _check_unique(content[kind], kind, key, file)
    images = {entry["id"]: entry for entry in content["images"]}
    instances: dict[Any, list[dict[str, Any]]] = {number: [] for number in images}
    known, dropped = set(ids.values()), 0
    for entry in content["annotations"]:
        subject = f"annotation {entry['id']} of {file}"
        if entry["image_id"] not in images:
            raise ValueError(f"{subject}: image {entry['image_id']} is not among the images")
        if entry["category_id"] not in known:
            raise ValueError(f"{subject}: category {entry['category_id']} is not among the categories")
        if entry["category_id"] != ids[category] or entry.get("iscrowd", 0):
            continue
        _check_box(entry["bbox"], images[entry["image_id"]], subject)
        shape = entry.get("segmentation")
        if check_shapes and isinstance(shape, list):
            usable = [polygon for polygon in shape if _is_polygon(polygon, subject)]
            dropped += len(shape) - len(usable)
            shape = usable
        instances[entry["image_id"]].append({"id": entry["id"], "bbox": entry["bbox"], "segmentation": shape})
    if dropped:
        log.warning("%s: %d polygons of fewer than three points are left out", file, dropped)
    keys = ("file_name", "height", "width")
    return [{**{key: entry[key] for key in keys}, "instances": instances[n]} for n, entry in images.items()]


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        known = [p.name for p in file.parent.glob("*.json")]
        hint = nearest(file.name, known) if known else ""
        raise ValueError(f"{file} cannot be read ({error.strerror}).{hint}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON, or cut short ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is no COCO instance file: it holds a {type(content).__name__}")
    return content


def _check_entries(content: dict[str, Any], file: Path) -> None:
    """Every list is there, and every entry has its keys."""
    for kind, keys in _KEYS.items():
        if not isinstance(content.get(kind), list):
            raise ValueError(f"{file} is no COCO instance file: it has no list {kind!r}")
        for number, entry in enumerate(content[kind]):
            if not isinstance(entry, dict):
                raise ValueError(f"{file}: {kind}[{number}] is a {type(entry).__name__}, not a mapping")
            for key in keys:
                if key not in entry:
                    raise ValueError(f"{file}: {kind}[{number}] has no {key!r}")
                if key in _ENTRY_VALUES and not _ENTRY_VALUES[key][0](entry[key]):
                    value, expected = entry[key], _ENTRY_VALUES[key][1]
                    raise ValueError(f"{file}: {kind}[{number}] has the {key} {value!r}: expected {expected}")
            if kind == "annotations" and entry.get("iscrowd", 0) not in (0, 1, None):
                raise ValueError(f"{file}: annotations[{number}] has the iscrowd {entry['iscrowd']!r}: expected 0 or 1")
            if kind == "images" and not all(_is_count(entry[k]) and entry[k] > 0 for k in ("height", "width")):
                size = f"{entry['height']!r} x {entry['width']!r}"
                raise ValueError(f"{file}: images[{number}] ({entry['file_name']}) has a size of {size}")


def _check_unique(entries: list[dict[str, Any]], kind: str, key: str, file: Path) -> None:
    seen = set()
    for entry in entries:
        if entry[key] in seen:
            raise ValueError(f"{file}: two {kind} have the {key} {entry[key]!r}")
        seen.add(entry[key])


def _check_box(box: Any, image: dict[str, Any], subject: str) -> None:
    """Four finite numbers, no negative size, not outside of the image. Published files hold boxes of size 0."""
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        raise ValueError(f"{subject}: bbox {box} is not four finite numbers x, y, width, height")
    x, y, width, height = box
    if width < 0 or height < 0:
        raise ValueError(f"{subject}: bbox {box} has a negative width or height")
    if x > image["width"] or y > image["height"] or x + width < 0 or y + height < 0:
        size = f"{image['width']} x {image['height']}"
        raise ValueError(f"{subject}: bbox {box} lies outside of its image of {size} pixels (width x height)")


def _is_polygon(polygon: Any, subject: str) -> bool:
    """Whether a polygon has three points or more; it must be pairs of finite numbers."""
    if not isinstance(polygon, list) or not all(_is_number(value) for value in polygon):
        raise ValueError(f"{subject}: a polygon is not a list of finite numbers")
    if any(abs(value) > _MAX_COORDINATE for value in polygon):
        raise ValueError(f"{subject}: a polygon is not a list of finite numbers in pixels")
    if len(polygon) % 2:
        raise ValueError(f"{subject}: a polygon of {len(polygon)} numbers; x, y pairs are needed")
    return len(polygon) >= 6


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

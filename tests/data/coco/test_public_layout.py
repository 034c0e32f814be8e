"""COCO's layout, end to end: from the annotation file to corners and masks in pixels of the image."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from kd_runner.data.coco.dataset import CocoInstances
from kd_runner.metrics.mask_ap import _paste, _pixels

HEIGHT, WIDTH = 24, 31
# x, y, width, height: no edge but the last one's is at the border; /24 and /31 are no floats.
BOXES = [[5.0, 5.0, 6.0, 6.0], [13.0, 1.0, 10.0, 17.0], [23.0, 11.0, 8.0, 13.0]]
LABELED = {"person": 18, "car": 90, "dog": 1}  # not the numbers of COCO: the name counts


def write(root: Path, ids: dict[str, int]) -> Path:
    def annotation(number: int, name: str, box: list[float]) -> dict[str, Any]:
        x, y, w, h = box
        polygon = [x, y, x + w, y, x + w, y + h / 2, x, y + h]
        return {"id": number, "image_id": 7, "category_id": ids[name], "iscrowd": 0, "bbox": box, "area": w * h,
                "segmentation": [polygon]}  # fmt: skip

    annotations = [annotation(10 + n, "person", box) for n, box in enumerate(BOXES)]
    content = {
        "images": [{"id": 7, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
        "annotations": [*annotations, annotation(20, "dog", [0.0, 0.0, 20.0, 20.0])],
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
    }
    Image.new("RGB", (WIDTH, HEIGHT)).save(root / "a.png")
    (root / "instances.json").write_text(json.dumps(content))
    return root / "instances.json"


@pytest.mark.parametrize("ids", [LABELED, {"person": 1, "car": 3, "dog": 18}])
def test_boxes_and_masks_of_an_annotation_file(tmp_path: Path, ids: dict[str, int]) -> None:
    public = COCO(str(write(tmp_path, ids)))
    for number, (x, y, w, h) in enumerate(BOXES):
        # A mask of as many cells as the box has pixels, so that pasting it back loses nothing.
        data = CocoInstances(tmp_path, ".", "instances.json", (HEIGHT, WIDTH), (int(h), int(w)), min_side=2)
        sample = data[0]
        roi = sample["roi_ids"].tolist().index(10 + number)
        assert sample["roi_mask"].sum() == len(BOXES)  # the dog is no person
        corners = _pixels(sample["rois"][roi].tolist(), HEIGHT, WIDTH)
        assert corners == (y, y + h, x, x + w)
        target = sample["target"][roi][None]
        ((_, mask, _),) = _paste(target.new_zeros(1, 3, 4, 4).float(), target, [corners], HEIGHT, WIDTH)
        inside = np.zeros((HEIGHT, WIDTH), bool)
        inside[int(y) : int(y + h), int(x) : int(x + w)] = True
        truth = public.annToMask(public.anns[10 + number]).astype(bool)
        assert truth.sum() > w * h / 2 and np.array_equal(mask.numpy(), truth & inside)

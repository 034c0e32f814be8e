"""Average precision of instance masks, the COCO way."""

import logging
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core import mask as rle
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from kd_runner.losses.functional.rois import valid

logging.getLogger("faster_coco_eval").setLevel(logging.WARNING)  # at INFO it prints its tables

# What a ROI's record begins with; two run-length codes follow, a number a byte.
_INDEX, _SCORE, _HEIGHT, _WIDTH, _PREDICTED, _TRUE, _HEADER = range(7)


class MaskAP(Metric):
    """COCO's AP of masks (Lin et al. 2014), as faster-coco-eval counts it, of ROI masks pasted back into the image.

    A ROI gives one detection: the pixels of its box where the target has the largest logit after bilinear resizing to
    the box. Its score is the mean probability of the target there. The truth of a ROI is its label mask, pasted in
    the same way (nearest), so that 1 can be reached. The boxes are given and true: this measures masks alone, and
    its values do not compare with those of a detector.

    The state is a row of run-length codes of all ROIs, so that shards of any size, merged in any order, give what one
    process gives. (torchmetrics' own `MeanAveragePrecision` fails where processes hold different numbers of images.)
    """

    higher_is_better = True
    full_state_update = False
    records: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        # Flat and of the default type, because torchmetrics stands in such a vector for a process without samples.
        self.add_state("records", [], dist_reduce_fx="cat")

    def update(
        self, logits: Tensor, target: Tensor, rois: Tensor, roi_mask: Tensor, image: Tensor, index: Tensor
    ) -> None:
        """Take B images.

        Args:
            logits: (R, 3, h, w) of all ROIs or of those that count.
            target, rois, roi_mask: labels (B, N, h, w), boxes (B, N, 4) as x1, y1, x2, y2 in 0..1, and (B, N) bool.
            image: (B, 3, H, W), for its size alone.
            index: numbers of the images in the data set (B,), below 2^24.
        """
        height, width = image.shape[-2:]
        scores, truths = valid(logits, roi_mask).float(), target[roi_mask]
        boxes = [_pixels(box, height, width) for box in rois[roi_mask].tolist()]
        owners = index[:, None].expand_as(roi_mask)[roi_mask].tolist()
        for owner, (mask, truth, score) in zip(owners, _paste(scores, truths, boxes, height, width), strict=True):
            codes = [_encode(mask), _encode(truth)]
            header = [owner, score, height, width, *map(len, codes)]
            self.records.append(torch.tensor([*header, *codes[0], *codes[1]], dtype=torch.float32, device=self.device))

    def compute(self) -> dict[str, Tensor]:
        """`mask_ap`, mean over IoUs of 0.50 to 0.95; `mask_ap/50`, `mask_ap/75`. In 0..1."""
        truths, detections = _annotations(dim_zero_cat(self.records).cpu().numpy())
        truth = COCO()
        sizes = {one["image_id"]: one["segmentation"]["size"] for one in truths}
        images = [{"id": number, "height": size[0], "width": size[1]} for number, size in sorted(sizes.items())]
        truth.dataset = {"images": images, "annotations": truths, "categories": [{"id": 1, "name": "target"}]}
        truth.createIndex()
        found = COCOeval_faster(truth, truth.loadRes(detections), "segm")
        found.evaluate()
        found.accumulate()
        found.summarize()
        names = ("mask_ap", "mask_ap/50", "mask_ap/75")
        return {name: torch.tensor(float(value)) for name, value in zip(names, found.stats)}


def _encode(mask: Tensor) -> bytes:
    return rle.encode(np.asfortranarray(mask.cpu().numpy(), dtype=np.uint8))["counts"]


def _annotations(row: np.ndarray) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """COCO's annotations and results, from records one after the other."""
    truths: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    at = 0
    while at < len(row):
        header = row[at : at + _HEADER]
        split = at + _HEADER + int(header[_PREDICTED])
        end = split + int(header[_TRUE])
        size = [int(header[_HEIGHT]), int(header[_WIDTH])]
        codes = [row[first:last].astype(np.uint8).tobytes() for first, last in ((at + _HEADER, split), (split, end))]
        masks = [{"size": size, "counts": code} for code in codes]
        common = {"image_id": int(header[_INDEX]), "category_id": 1}
        truths.append(
            {
                **common,
                "id": len(truths) + 1,
                "segmentation": masks[1],
                "area": float(rle.area(masks[1])),
                "bbox": rle.toBbox(masks[1]).tolist(),
                "iscrowd": 0,
            }
        )
        detections.append({**common, "segmentation": masks[0], "score": float(header[_SCORE])})
        at = end
    return truths, detections


Box = tuple[int, int, int, int]


def _pixels(box: list[float], height: int, width: int) -> Box:
    """Rows and columns (top, bottom, left, right) that a box touches; at least one of each."""
    x1, y1, x2, y2 = box
    left, top = min(int(x1 * width), width - 1), min(int(y1 * height), height - 1)
    right, bottom = math.ceil(x2 * width), math.ceil(y2 * height)
    return max(top, 0), min(max(bottom, top + 1), height), max(left, 0), min(max(right, left + 1), width)


def _paste(
    scores: Tensor, truths: Tensor, boxes: list[Box], height: int, width: int
) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Mask (H, W), true mask (H, W) and score of each ROI."""
    for logits, truth, (top, bottom, left, right) in zip(scores, truths, boxes, strict=True):
        size = (bottom - top, right - left)
        probability = F.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0].softmax(0)
        label = F.interpolate((truth == 1)[None, None].float(), size, mode="nearest-exact")[0, 0]
        target = probability.argmax(0) == 1
        mask = torch.zeros(2, height, width, dtype=torch.bool, device=logits.device)
        mask[0, top:bottom, left:right] = target
        mask[1, top:bottom, left:right] = label > 0
        yield mask[0], mask[1], float(probability[1][target].mean()) if target.any() else 0.0

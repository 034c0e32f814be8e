"""COCO's average precision of instance masks."""

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

from kd_runner.geometry.rois import valid
from kd_runner.metrics.row_state import RowStateMetric

logging.getLogger("faster_coco_eval").setLevel(logging.WARNING)  # at INFO it prints its tables

# Header of a ROI's record; two run-length codes follow, one number per byte.
_INDEX, _SCORE, _HEIGHT, _WIDTH, _PREDICTED, _TRUE, _HEADER = range(7)


class MaskAP(RowStateMetric):
    """COCO's mask AP (Lin et al. 2014), computed by faster-coco-eval on ROI masks pasted back into the image.

    A ROI gives one detection: the pixels of its box where target has the largest logit after bilinear resizing to the
    box. Its score is the mean probability of target there. The truth is the label mask, pasted in the same way
    (nearest), so that 1 can be reached. The boxes are ground truth: only masks are measured, and values do not compare
    with those of a detector.

    The state holds the run-length codes of all ROIs. (torchmetrics' own `MeanAveragePrecision` fails where processes
    hold different numbers of images.)
    """

    records: list[Tensor]

    def __init__(self) -> None:
        super().__init__("records")

    def update(
        self, logits: Tensor, target: Tensor, rois: Tensor, roi_mask: Tensor, image: Tensor, index: Tensor
    ) -> None:
        """Add B images.

        Args:
            logits: (R, 3, h, w) of all B * N ROIs or of the valid ones.
            target: labels (B, N, h, w).
            rois: boxes (B, N, 4), x1, y1, x2, y2 in 0..1.
            roi_mask: (B, N) bool, False for padding.
            image: (B, 3, H, W), only its size is used.
            index: numbers of the images in the data set (B,), below 2^24.
        """
        height, width = image.shape[-2:]
        scores, truths = valid(logits, roi_mask).float(), target[roi_mask]
        boxes = [_pixels(box, height, width) for box in rois[roi_mask].tolist()]
        numbers = index[:, None].expand_as(roi_mask)[roi_mask].tolist()
        for number, (mask, truth, score) in zip(numbers, _paste(scores, truths, boxes, height, width), strict=True):
            codes = [_encode(mask), _encode(truth)]
            header = [number, score, height, width, *map(len, codes)]
            self.records.append(torch.tensor([*header, *codes[0], *codes[1]], dtype=torch.float32, device=self.device))

    def compute(self) -> dict[str, Tensor]:
        """Compute the metric of all samples.

        Returns:
            `mask_ap`, the mean over IoUs of 0.50 to 0.95, and `mask_ap/50`, `mask_ap/75`; all in 0..1.
        """
        truths, detections = _annotations(self.flat(self.records).cpu().numpy())
        truth = COCO()
        sizes = {one["image_id"]: one["segmentation"]["size"] for one in truths}
        images = [{"id": number, "height": size[0], "width": size[1]} for number, size in sorted(sizes.items())]
        truth.dataset = {"images": images, "annotations": truths, "categories": [{"id": 1, "name": "target"}]}
        truth.createIndex()
        evaluation = COCOeval_faster(truth, truth.loadRes(detections), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        names = ("mask_ap", "mask_ap/50", "mask_ap/75")
        return {name: torch.tensor(float(value)) for name, value in zip(names, evaluation.stats)}


def _encode(mask: Tensor) -> bytes:
    return rle.encode(np.asfortranarray(mask.cpu().numpy(), dtype=np.uint8))["counts"]


def _annotations(row: np.ndarray) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """COCO's annotations and results from the concatenated records."""
    truths: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    start = 0
    while start < len(row):
        header = row[start : start + _HEADER]
        split = start + _HEADER + int(header[_PREDICTED])
        end = split + int(header[_TRUE])
        size = [int(header[_HEIGHT]), int(header[_WIDTH])]
        codes = [row[first:last].astype(np.uint8).tobytes() for first, last in ((start + _HEADER, split), (split, end))]
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
        start = end
    return truths, detections


Box = tuple[int, int, int, int]
_EDGE = 1e-3  # pixels


def _pixels(box: list[float], height: int, width: int) -> Box:
    """Rows and columns (top, bottom, left, right) covered by a box; at least one of each.

    Boxes are fractions in float32: an edge on a border of pixels may come back just beside it, which counts as on it.
    """
    x1, y1, x2, y2 = box
    left, top = math.floor(x1 * width + _EDGE), math.floor(y1 * height + _EDGE)
    left, top = max(min(left, width - 1), 0), max(min(top, height - 1), 0)
    right, bottom = math.ceil(x2 * width - _EDGE), math.ceil(y2 * height - _EDGE)
    return top, min(max(bottom, top + 1), height), left, min(max(right, left + 1), width)


def _paste(
    scores: Tensor, truths: Tensor, boxes: list[Box], height: int, width: int
) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Predicted mask (H, W), true mask (H, W) and score of each ROI."""
    for logits, truth, (top, bottom, left, right) in zip(scores, truths, boxes, strict=True):
        size = (bottom - top, right - left)
        probability = F.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0].softmax(0)
        label = F.interpolate((truth == 1)[None, None].float(), size, mode="nearest-exact")[0, 0]
        target = probability.argmax(0) == 1
        mask = torch.zeros(2, height, width, dtype=torch.bool, device=logits.device)
        mask[0, top:bottom, left:right] = target
        mask[1, top:bottom, left:right] = label > 0
        yield mask[0], mask[1], float(probability[1][target].mean()) if target.any() else 0.0

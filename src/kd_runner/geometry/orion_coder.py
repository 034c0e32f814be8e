"""Box codes of ORION's detection head, and decoding of its best boxes.

A code is ten numbers in the order of the public code: x, y, log w, log l, z, log h, sin, cos, vx, vy, of boxes in
Bench2Drive's convention (w, l, h; yaw = -heading - pi/2). Meters, radians, m/s.

The public head has a peculiarity that public weights were trained with: it adds the reference point to the numbers 0,
1, 2 of its output and maps them through a sigmoid to the range of x, y, z, although number 2 is log w; z (number 4) is
the plain output. See `models.orion.detection_head`. Codes here are those after this step.
"""

import torch
from torch import Tensor

from kd_runner.geometry.boxes3d import from_bench2drive, to_bench2drive

CODE_SIZE = 10
_MIN_SIZE_M = 1e-3


def encode(boxes: Tensor) -> Tensor:
    """Codes of boxes.

    Args:
        boxes: `(..., 9)`, as in `geometry.boxes3d`.

    Returns:
        `(..., 10)`.
    """
    x, y, z, width, length, height, yaw, vx, vy = to_bench2drive(boxes).unbind(-1)
    log_w, log_l, log_h = (size.clamp(min=_MIN_SIZE_M).log() for size in (width, length, height))
    return torch.stack((x, y, log_w, log_l, z, log_h, yaw.sin(), yaw.cos(), vx, vy), dim=-1)


def decode(codes: Tensor) -> Tensor:
    """Inverse of `encode`; yaw within [-pi, pi).

    Args:
        codes: `(..., 10)`.

    Returns:
        `(..., 9)`, as in `geometry.boxes3d`.
    """
    x, y, log_w, log_l, z, log_h, sin, cos, vx, vy = codes.unbind(-1)
    boxes = (x, y, z, log_w.exp(), log_l.exp(), log_h.exp(), torch.atan2(sin, cos), vx, vy)
    return from_bench2drive(torch.stack(boxes, dim=-1))


def best_boxes(
    logits: Tensor, codes: Tensor, num: int, min_score: float, bounds: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The `num` best pairs of query and class, best first.

    Boxes with a score of at most `min_score` or a center outside `bounds` get score 0 and label -1, so that shapes do
    not depend on the data.

    Args:
        logits: `(B, Q, classes)`.
        codes: `(B, Q, 10)`.
        num: number K of boxes, at most Q * classes.
        min_score: scores must exceed it.
        bounds: `(6,)`, minimum x, y, z and maximum x, y, z in meters.

    Returns:
        Boxes `(B, K, 9)` as in `geometry.boxes3d`, scores `(B, K)`, labels `(B, K)`.
    """
    classes = logits.shape[-1]
    scores, index = logits.sigmoid().flatten(1).topk(min(num, logits.shape[1] * classes), dim=1)
    labels, query = index % classes, index // classes
    boxes = decode(codes.gather(1, query[..., None].expand(-1, -1, CODE_SIZE)))
    center = boxes[..., :3]
    keep = (scores > min_score) & ((center >= bounds[:3]) & (center <= bounds[3:])).all(-1)
    return boxes, torch.where(keep, scores, torch.zeros_like(scores)), torch.where(keep, labels, -1)

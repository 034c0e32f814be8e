"""Box codes of ORION's detection head, and decoding of its best boxes.

A code is ten numbers: x, y, z, log w, log l, log h, sin, cos, vx, vy, of boxes in Bench2Drive's convention (w, l, h;
yaw = -heading - pi/2). Meters, radians, m/s.
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
    center, size, yaw, velocity = to_bench2drive(boxes).split((3, 3, 1, 2), dim=-1)
    return torch.cat((center, size.clamp(min=_MIN_SIZE_M).log(), yaw.sin(), yaw.cos(), velocity), dim=-1)


def decode(codes: Tensor) -> Tensor:
    """Inverse of `encode`; yaw within [-pi, pi).

    Args:
        codes: `(..., 10)`.

    Returns:
        `(..., 9)`, as in `geometry.boxes3d`.
    """
    center, size, sine, cosine, velocity = codes.split((3, 3, 1, 1, 2), dim=-1)
    return from_bench2drive(torch.cat((center, size.exp(), torch.atan2(sine, cosine), velocity), dim=-1))


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

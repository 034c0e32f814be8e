"""Boxes as the ten numbers that the detection head regresses, and its best boxes."""

import torch
from torch import Tensor

from kd_runner.geometry.boxes3d import from_bench2drive, to_bench2drive

CODE_SIZE = 10


def encode(boxes: Tensor) -> Tensor:
    """Boxes `(..., 9)` as in `geometry.boxes3d` to codes `(..., 10)`, which are in Bench2Drive's convention: center,
    logarithms of width, length, height, sine and cosine of the yaw (-heading - pi/2), vx, vy. Meters, radians, m/s.
    """
    center, size, yaw, velocity = to_bench2drive(boxes).split((3, 3, 1, 2), dim=-1)
    return torch.cat((center, size.clamp(min=1e-3).log(), yaw.sin(), yaw.cos(), velocity), dim=-1)


def decode(codes: Tensor) -> Tensor:
    """Inverse of `encode`; the yaw lies in [-pi, pi)."""
    center, size, sine, cosine, velocity = codes.split((3, 3, 1, 1, 2), dim=-1)
    return from_bench2drive(torch.cat((center, size.exp(), torch.atan2(sine, cosine), velocity), dim=-1))


def best_boxes(
    logits: Tensor, codes: Tensor, num: int, min_score: float, bounds: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The `num` best pairs of query and class: boxes `(B, num, 9)`, scores and labels `(B, num)`, best first.

    Those below `min_score`, or with a center outside `bounds (6,)`, get the score 0 and the label -1: the shapes do
    not depend on the data.

    Args:
        logits: `(B, Q, classes)`.
        codes: `(B, Q, 10)`.
    """
    classes = logits.shape[-1]
    scores, which = logits.sigmoid().flatten(1).topk(min(num, logits.shape[1] * classes), dim=1)
    labels, query = which % classes, which // classes
    boxes = decode(codes.gather(1, query[..., None].expand(-1, -1, CODE_SIZE)))
    center = boxes[..., :3]
    keep = (scores > min_score) & ((center >= bounds[:3]) & (center <= bounds[3:])).all(-1)
    return boxes, torch.where(keep, scores, torch.zeros_like(scores)), torch.where(keep, labels, -1)

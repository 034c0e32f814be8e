"""Attributes of detected objects. No LiDAR detector predicts them; their class and speed stand in, as everywhere."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kd_runner.data.nuscenes.taxonomy import ATTRIBUTES, MOVING_SPEED, attribute_of


def usual_attributes(boxes: Tensor, labels: Tensor, class_names: Sequence[str]) -> Tensor:
    """Attributes that boxes usually have at their speed.

    Args:
        boxes: (..., 9).
        labels: (...).
        class_names: names of the labels.

    Returns:
        Numbers in ATTRIBUTES (...), -1 where there is none.
    """
    names = [[attribute_of(name, speed) for speed in (0.0, 2 * MOVING_SPEED)] for name in class_names]
    numbers = [[ATTRIBUTES.index(name) if name else -1 for name in pair] for pair in names]
    table = torch.tensor([*numbers, [-1, -1]], device=labels.device)  # the last row is for label -1
    moves = torch.linalg.vector_norm(boxes[..., 7:9], dim=-1) > MOVING_SPEED
    return table[labels, moves.long()]

"""Random changes of a LiDAR frame; whatever moves the points moves the boxes, their headings and velocities with them.

All draw from torch's global generator, which `data.order.SeededDataset` sets for every sample.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from kd_runner.data.nuscenes.frame import LidarFrame
from kd_runner.geometry.boxes3d import wrap_angle


class RandomFlip:
    """Mirror left and right, front and back.

    Args:
        chance: probability of each.
    """

    def __init__(self, chance: float = 0.5):
        self.chance = chance

    def __call__(self, frame: LidarFrame) -> LidarFrame:
        x, y = (torch.rand(2) < self.chance).tolist()
        return flip(frame, x=x, y=y)


class RandomPose:
    """Turn about z, scale, then shift: BEVFusion's `GlobalRotScaleTrans`.

    Args:
        rotation_deg: the angle is drawn evenly from -rotation_deg..rotation_deg.
        scale: lowest and highest factor; it changes velocities too.
        translation_std: standard deviation of the shift along x, y and z in m.
    """

    def __init__(self, rotation_deg: float = 45.0, scale: Sequence[float] = (0.9, 1.1), translation_std: float = 0.5):
        self.rotation, self.scale = math.radians(rotation_deg), (scale[0], scale[1])
        self.translation_std = translation_std

    def __call__(self, frame: LidarFrame) -> LidarFrame:
        angle = (2 * torch.rand(()).item() - 1) * self.rotation
        factor = self.scale[0] + (self.scale[1] - self.scale[0]) * torch.rand(()).item()
        shift = self.translation_std * torch.randn(3)
        return move(frame, angle=angle, factor=factor, shift=shift.tolist())


class Compose:
    """Apply changes of a frame one after the other.

    Args:
        steps: the changes.
    """

    def __init__(self, steps: Sequence[RandomFlip | RandomPose]):
        self.steps = list(steps)

    def __call__(self, frame: LidarFrame) -> LidarFrame:
        for step in self.steps:
            frame = step(frame)
        return frame


def bevfusion(
    rotation_deg: float = 45.0, scale: Sequence[float] = (0.9, 1.1), translation_std: float = 0.5, flip: float = 0.5
) -> Compose:
    """Rotation, scale, shift and flips of BEVFusion's LiDAR recipe.

    Args:
        rotation_deg: largest angle to either side.
        scale: lowest and highest factor.
        translation_std: standard deviation of the shift, in meters.
        flip: probability of each flip.

    Returns:
        The changes.
    """
    return Compose([RandomPose(rotation_deg, scale, translation_std), RandomFlip(flip)])


def flip(frame: LidarFrame, *, x: bool, y: bool) -> LidarFrame:
    """Mirror a frame.

    Args:
        frame: the frame.
        x: change the sign of x.
        y: change the sign of y.

    Returns:
        The mirrored frame.
    """
    points, boxes = frame.points.clone(), frame.objects.boxes.clone()
    if x:
        points[:, 0].neg_()
        boxes[:, [0, 7]] *= -1
        boxes[:, 6] = math.pi - boxes[:, 6]
    if y:
        points[:, 1].neg_()
        boxes[:, [1, 8]] *= -1
        boxes[:, 6].neg_()
    boxes[:, 6] = wrap_angle(boxes[:, 6])
    return LidarFrame(points, replace(frame.objects, boxes=boxes))


def move(frame: LidarFrame, *, angle: float, factor: float, shift: Sequence[float]) -> LidarFrame:
    """Turn about z, then scale, then shift a frame.

    Args:
        frame: the frame.
        angle: radians.
        factor: of the scale.
        shift: x, y, z in meters.

    Returns:
        The moved frame.
    """
    points, boxes = frame.points.clone(), frame.objects.boxes.clone()
    c, v = math.cos(angle), math.sin(angle)
    turn = points.new_tensor([[c, -v], [v, c]])
    offset = points.new_tensor(list(shift))
    points[:, :2] = points[:, :2] @ turn.T
    points[:, :3] = points[:, :3] * factor + offset
    boxes[:, :2] = boxes[:, :2] @ turn.T
    boxes[:, 7:9] = boxes[:, 7:9] @ turn.T * factor
    boxes[:, :6] *= factor
    boxes[:, :3] += offset
    boxes[:, 6] = wrap_angle(boxes[:, 6] + angle)
    return LidarFrame(points, replace(frame.objects, boxes=boxes))

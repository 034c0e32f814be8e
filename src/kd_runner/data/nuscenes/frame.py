"""The points and objects of one frame, as augmentations take and return them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Objects:
    """M annotated objects.

    Attributes:
        boxes: (M, 9) as in `geometry.boxes3d`, nan for unknown velocities.
        labels: (M,) int64.
        ids: (M,) int64.
        attributes: (M,) int64.
    """

    boxes: Tensor
    labels: Tensor
    ids: Tensor
    attributes: Tensor

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, which: Tensor) -> "Objects":
        """Some of the objects.

        Args:
            which: a mask (M,), or numbers.

        Returns:
            Those objects.
        """
        return Objects(self.boxes[which], self.labels[which], self.ids[which], self.attributes[which])


def join(parts: Sequence[Objects]) -> Objects:
    """All objects of several sets, in order.

    Args:
        parts: the sets.

    Returns:
        One set.
    """
    columns = ("boxes", "labels", "ids", "attributes")
    return Objects(*(torch.cat([getattr(part, name) for part in parts]) for name in columns))


@dataclass(frozen=True)
class LidarFrame:
    """`points` (P, 5): x, y, z in m, intensity, time lag in s. Points and boxes are in one frame of reference."""

    points: Tensor
    objects: Objects

"""From one frame of a drive to the next (StreamPETR, Wang et al. 2023, arXiv 2303.11926)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kd_runner.models.orion.memory import Memory, seen_from, where

MAX_GAP_S = 2.0


@dataclass(frozen=True)
class Moment:
    """When and where the frames of a batch were taken: `ego_pose (B, 4, 4)`, LiDAR frame to world in m, and `timestamp
    (B,)` in s, both float64; `scene (B,)`, the number of the drive.

    Raises:
        ValueError: no float64, or two frames of one drive, neither of which can be the other's past.
    """

    ego_pose: Tensor
    timestamp: Tensor
    scene: Tensor

    def __post_init__(self) -> None:
        for name in ("ego_pose", "timestamp"):
            if (dtype := getattr(self, name).dtype) != torch.float64:
                raise ValueError(f"{name}: {dtype} rounds off what lies between two frames, float64 is needed")
        numbers = self.scene.tolist()
        if len(set(numbers)) < len(numbers):
            raise ValueError(
                f"scene: the rows of a batch are of the drives {numbers}; with temporal=True each needs its own, "
                "e.g. batches of one frame"
            )


class Stream:
    """Memories as the last batch left them.

    Plain tensors rather than buffers: no state dict has them, and DDP does not put the first process's in the place of
    each process's own.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew: the next frames are first frames."""
        self._last: tuple[Moment, bool, tuple[Memory, ...]] | None = None

    def recall(self, now: Moment, training: bool, first: tuple[Memory, ...]) -> tuple[Memory, ...]:
        """What is remembered at `now`. A row starts from its `first` memory unless the row of the last batch is of the
        same drive and up to `MAX_GAP_S` earlier; all do after a batch of another size, device or mode.
        """
        if self._last is None:
            return first
        last, mode, memories = self._last
        if mode != training or (last.scene.shape, last.scene.device) != (now.scene.shape, now.scene.device):
            return first
        gap_s = now.timestamp - last.timestamp
        goes_on = (now.scene == last.scene) & (gap_s > 0) & (gap_s < MAX_GAP_S)
        motion = torch.linalg.solve(now.ego_pose, last.ego_pose)
        return tuple(where(goes_on, seen_from(old, motion, gap_s), new) for old, new in zip(memories, first))

    def keep(self, now: Moment, training: bool, memories: tuple[Memory, ...]) -> None:
        """Store the memories after the frames of `now`."""
        self._last = now, training, memories

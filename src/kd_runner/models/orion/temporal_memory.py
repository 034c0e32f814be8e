"""Memories carried from one frame of a drive to the next (StreamPETR, Wang et al. 2023, arXiv 2303.11926)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kd_runner.models.orion.memory import Memory, select_rows, transform_memory

MAX_GAP_S = 2.0


@dataclass(frozen=True)
class FramePose:
    """Pose and time of the B frames of a batch.

    Attributes:
        ego_pose: `(B, 4, 4)` float64, LiDAR frame to world in meters.
        timestamp: `(B,)` float64, seconds.
        scene: `(B,)` integer, number of the drive.

    Raises:
        ValueError: a dtype other than float64, or two frames of the same drive in one batch.
    """

    ego_pose: Tensor
    timestamp: Tensor
    scene: Tensor

    def __post_init__(self) -> None:
        for name in ("ego_pose", "timestamp"):
            if (dtype := getattr(self, name).dtype) != torch.float64:
                raise ValueError(f"{name}: float64 is needed for differences between frames, got {dtype}")
        scenes = self.scene.tolist()
        if len(set(scenes)) < len(scenes):
            raise ValueError(
                f"scene: the frames of a batch belong to the drives {scenes}; temporal=True needs one frame per drive "
                "in a batch, e.g. batches of one frame"
            )


class TemporalMemory:
    """The memories after the last batch.

    Plain tensors, not buffers: they are not in the state dict, and DDP does not overwrite them with those of rank 0.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Empty the memory: the next frames count as first frames."""
        self._last: tuple[FramePose, tuple[Memory, ...]] | None = None

    def read(self, pose: FramePose, initial: tuple[Memory, ...]) -> tuple[Memory, ...]:
        """Memories transformed to the frames of `pose`.

        A sample gets its `initial` memory unless the same row of the last batch is of the same drive and less than
        `MAX_GAP_S` earlier. All samples do after a batch of another size or device.

        Args:
            pose: poses of the current batch.
            initial: memories of a first frame, one per head.

        Returns:
            Memories, one per head.
        """
        if self._last is None:
            return initial
        last, memories = self._last
        if (last.scene.shape, last.scene.device) != (pose.scene.shape, pose.scene.device):
            return initial
        gap_s = pose.timestamp - last.timestamp
        continues = (pose.scene == last.scene) & (gap_s > 0) & (gap_s < MAX_GAP_S)
        motion = torch.linalg.solve(pose.ego_pose, last.ego_pose)
        return tuple(
            select_rows(continues, transform_memory(old, motion, gap_s), new) for old, new in zip(memories, initial)
        )

    def write(self, pose: FramePose, memories: tuple[Memory, ...]) -> None:
        """Store memories for the next batch.

        Args:
            pose: poses of the current batch.
            memories: after its frames, one per head.
        """
        self._last = pose, memories

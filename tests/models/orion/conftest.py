"""A detector of a few thousand parameters and a frame for it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kd_runner.models.orion.detector import Orion

SMALL: dict[str, Any] = {
    "in_channels": 8, "stride": 8, "embed_dim": 16, "num_heads": 2, "hidden": 24, "depth": 2, "dropout": 0.0,
    "num_query": 6, "num_propagated": 3, "memory_length": 5, "num_lane": 4, "one_to_many": 2, "num_points": 3,
    "num_depths": 4, "dn_groups": 3, "num_detections": 10, "score_threshold": 0.0,
}  # fmt: skip


@pytest.fixture
def small() -> Callable[..., Orion]:
    """Builds the detector, with changed arguments."""

    def build(**changes: Any) -> Orion:
        torch.manual_seed(0)
        backbone = changes.pop("backbone", None) or nn.Conv2d(3, 8, 8, stride=8)
        return Orion(backbone, **{**SMALL, **changes})

    return build


@pytest.fixture
def frame() -> dict[str, Tensor]:
    """Two frames of two cameras: three objects, none."""
    generator = torch.Generator().manual_seed(1)
    matrix = torch.eye(4).repeat(2, 2, 1, 1)
    matrix[..., :3, :3] = (
        torch.tensor([[20.0, 0, 12], [0, 20, 8], [0, 0, 1]])
        @ torch.linalg.qr(torch.randn(2, 2, 3, 3, generator=generator))[0]
    )
    boxes = torch.rand(2, 5, 9, generator=generator) + 0.5
    mask = torch.tensor([[True, False, True, True, False], [False] * 5])
    return {
        "images": torch.randn(2, 2, 3, 16, 24, generator=generator),
        "lidar2img": matrix,
        "gt_boxes": boxes.masked_fill(~mask[..., None], 0.0),
        "gt_labels": torch.tensor([[1, -1, 4, 8, -1], [-1] * 5]),
        "gt_mask": mask,
    }

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kd_runner.models.bevfusion import BEVFusionLidar

SMALL = {
    "voxel_size": (0.4, 0.4, 0.2),
    "point_cloud_range": (-6.4, -6.4, -2.0, 6.4, 6.4, 2.0),
    "encoder_channels": (4, 8, 8),
    "encoder_out_channels": 8,
    "second_channels": (8, 12),
    "second_layers": (1, 1),
    "fpn_channels": (6, 8),
    "num_classes": 3,
    "num_proposals": 12,
    "hidden_channels": 16,
    "num_heads": 2,
    "ffn_channels": 24,
    "point_classes": (2,),
    "branch_hidden": 8,
}


@pytest.fixture
def small() -> Callable[..., BEVFusionLidar]:
    """Makes a net of 8 x 8 cells."""

    def make(seed: int = 0, **changes: object) -> BEVFusionLidar:
        torch.manual_seed(seed)
        return BEVFusionLidar(**{**SMALL, **changes})

    return make


@pytest.fixture
def cloud() -> dict[str, Tensor]:
    """Two samples of 300 and 200 points."""
    noise = torch.Generator().manual_seed(1)
    points = torch.rand(2, 300, 5, generator=noise) * torch.tensor([12.0, 12.0, 3.0, 1.0, 0.5])
    return {"points": points - torch.tensor([6.0, 6.0, 1.5, 0.0, 0.0]), "num_points": torch.tensor([300, 200])}

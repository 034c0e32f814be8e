from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from kd_runner.models.bevfusion import BEVFusionLidar
from kd_runner.models.bevfusion.transfusion_head import TransFusionHead

SMALL = {
    "voxel_size": (0.4, 0.4, 0.2),
    "point_cloud_range": (-6.4, -6.4, -2.0, 6.4, 6.4, 2.0),
    "encoder_channels": (4, 8, 8),
    "encoder_out_channels": 8,
    "second_channels": (8, 12),
    "second_layers": (1, 1),
    "fpn_channels": (6, 8),
}
SMALL_HEAD = {
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
    """Makes a net of 8 x 8 cells; `head` changes arguments of its head."""

    def build(seed: int = 0, head: dict[str, object] | None = None, **changes: object) -> BEVFusionLidar:
        torch.manual_seed(seed)
        make_head = partial(TransFusionHead, **{**SMALL_HEAD, **(head or {})})
        return BEVFusionLidar(**{**SMALL, "head": make_head, **changes})

    return build


@pytest.fixture
def cloud() -> dict[str, Tensor]:
    """Two samples of 300 and 200 points."""
    noise = torch.Generator().manual_seed(1)
    points = torch.rand(2, 300, 5, generator=noise) * torch.tensor([12.0, 12.0, 3.0, 1.0, 0.5])
    return {"points": points - torch.tensor([6.0, 6.0, 1.5, 0.0, 0.0]), "num_points": torch.tensor([300, 200])}

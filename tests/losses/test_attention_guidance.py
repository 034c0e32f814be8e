"""AttentionGuidance: which tokens count, and the value."""

import math

import pytest
import torch
from torch import Tensor

from kd_runner.losses.attention_guidance import AttentionGuidance

RANGE = (-8.0, -8.0, -8.0, 8.0, 8.0, 8.0)


def inputs(*points: tuple[float, float, float]) -> dict[str, Tensor]:
    """Two cameras at the origin, one facing along y, one backwards; 4 x 4 tokens of 16 pixels each."""
    ahead = torch.tensor([[32.0, 32.0, 0, 0], [0, 32.0, -32.0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    back = torch.tensor([[-32.0, -32.0, 0, 0], [0, -32.0, -32.0, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])
    return {
        "references": (torch.tensor(points)[None] + 8) / 16,
        "features": torch.zeros(2, 5, 4, 4),
        "images": torch.zeros(1, 2, 3, 64, 64),
        "lidar2img": torch.stack((ahead, back))[None],
    }


def attend(*tokens: int) -> Tensor:
    """All heads of every query attend to one token: (1, 2, Q, 32)."""
    return torch.nn.functional.one_hot(torch.tensor(tokens), 32).float().expand(1, 2, -1, -1)


def test_attention_on_the_projected_point_costs_nothing() -> None:
    loss = AttentionGuidance(RANGE, radius=0.6)
    arguments = inputs(
        (0.3, 4.0, -0.3), (0.3, -4.0, -0.3)
    )  # right below the middle ahead; behind, so left of the middle
    assert loss([attend(10, 16 + 9)], **arguments).item() == pytest.approx(0.0, abs=1e-5)
    assert loss([attend(10, 9)], **arguments).item() == pytest.approx(-math.log(1e-6) / 2, rel=1e-4)


def test_points_outside_all_images_do_not_count() -> None:
    loss = AttentionGuidance(RANGE, radius=0.6)
    alone, both = inputs((0.3, 4.0, -0.3)), inputs((0.3, 4.0, -0.3), (4.0, 0.1, 0.0))
    even = torch.full((1, 2, 1, 32), 1 / 32)
    assert loss([even], **alone).item() == pytest.approx(math.log(32), rel=1e-5)
    assert loss([even.expand(-1, -1, 2, -1)], **both).item() == pytest.approx(math.log(32), rel=1e-5)
    assert loss([even], **inputs((4.0, 0.1, 0.0))).item() == 0.0


def test_layers_are_averaged_and_maps_get_gradients() -> None:
    loss, arguments = AttentionGuidance(RANGE, radius=0.6), inputs((0.3, 4.0, -0.3))
    scores = torch.zeros(2, 1, 2, 1, 32, requires_grad=True)
    value = loss(list(scores.softmax(-1)), **arguments)
    value.backward()
    assert value.item() == pytest.approx(math.log(32), rel=1e-5)
    assert scores.grad is not None and (scores.grad[..., 10] < 0).all() and (scores.grad[..., 11] > 0).all()


def test_above_min_fraction_there_is_no_loss() -> None:
    arguments = inputs((0.3, 4.0, -0.3))
    third = (attend(10) + attend(11) + attend(12)) / 3
    assert AttentionGuidance(RANGE, radius=0.6, min_fraction=0.3)([third], **arguments).item() == 0.0
    short = AttentionGuidance(RANGE, radius=0.6, min_fraction=0.5)([third], **arguments).item()
    assert short == pytest.approx(math.log(1.5), rel=1e-5)
    with pytest.raises(ValueError, match="min_fraction"):
        AttentionGuidance(RANGE, min_fraction=0.0)


def test_columns_and_rows_have_their_own_stride() -> None:
    """A picture twice as wide as high in 4 x 4 tokens: a point at pixel (80, 24) lies in column 2, row 1."""
    project = torch.tensor([[0.0, 80.0, 0, 0], [0, 24.0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    arguments = {
        "references": torch.tensor([[[0.5, 0.75, 0.5]]]),
        "features": torch.zeros(1, 5, 4, 4),
        "images": torch.zeros(1, 1, 3, 64, 128),
        "lidar2img": project[None, None],
    }
    loss = AttentionGuidance(RANGE, radius=0.6)
    for token, value in ((6, 0.0), (7, -math.log(1e-6)), (5, -math.log(1e-6)), (2, -math.log(1e-6))):
        maps = torch.nn.functional.one_hot(torch.tensor([token]), 16).float().expand(1, 2, -1, -1)
        assert loss([maps], **arguments).item() == pytest.approx(value, abs=1e-5)

"""ImageObjects: targets of the tokens, and training of its head."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from kd_runner.losses.image_objects import ImageObjects, token_targets

FOCAL, SIZE, GRID = 32.0, torch.Size((64, 64)), torch.Size((4, 4))


def camera() -> Tensor:
    """One camera at the origin of the LiDAR frame facing along y: (1, 1, 4, 4)."""
    matrix = torch.tensor([[FOCAL, 32.0, 0, 0], [0, 32.0, -FOCAL, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    return matrix[None, None]


def boxes(*rows: tuple[float, ...]) -> Tensor:
    """x, y, z, width, length, height of boxes that head along y: (1, M, 9)."""
    return torch.tensor([[*row[:3], row[4], row[3], row[5], math.pi / 2, 0.0, 0.0] for row in rows])[None]


def test_targets_of_a_box_straight_ahead() -> None:
    targets = token_targets(
        boxes((0.0, 4.0, 0.0, 1.9, 1.0, 1.9)), torch.ones(1, 1, dtype=torch.bool), camera(), SIZE, GRID
    )
    assert targets.shown[0, 0].int().tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    code = targets.codes[0, 0][targets.shown[0, 0]]
    assert torch.allclose(code[:, :2], torch.full((4, 2), 2.0))  # the middle of four tokens
    assert torch.allclose(code[:, 2], torch.tensor(3 * math.log(4.0)))
    assert torch.allclose(code[:, 3:], torch.tensor([1.9, 1.0, 1.9]).log())


@pytest.mark.parametrize("upright", [1, -1])
@pytest.mark.parametrize("yaw", [0.3 + i * math.pi / 4 for i in range(8)])
def test_a_token_shows_a_box_by_all_eight_corners(yaw: float, upright: int) -> None:
    """Tokens of one pixel; at some heading, and upside down, each corner is the outermost one on either side."""
    view = camera()
    view[..., 1, 2] *= upright
    box = torch.tensor([[[0.3, 6.0, 0.2, 4.0, 1.5, 1.2, yaw, 0.0, 0.0]]])
    grid = torch.Size((64, 64))
    targets = token_targets(box, torch.ones(1, 1, dtype=torch.bool), view, SIZE, grid)
    columns, rows = [], []
    for along, across, up in itertools.product((-2.0, 2.0), (-0.75, 0.75), (-0.6, 0.6)):
        x = 0.3 + along * math.cos(yaw) - across * math.sin(yaw)
        depth = 6.0 + along * math.sin(yaw) + across * math.cos(yaw)
        columns.append(32 + FOCAL * x / depth)
        rows.append(32 - upright * FOCAL * (0.2 + up) / depth)
    shown = targets.shown[0, 0]
    expected = torch.zeros(64, 64, dtype=torch.bool)
    expected[math.floor(min(rows)) : math.ceil(max(rows)), math.floor(min(columns)) : math.ceil(max(columns))] = True
    assert torch.equal(shown, expected)


def test_the_nearest_box_in_front_of_the_camera_is_shown() -> None:
    three = boxes((0.0, 8.0, 0.0, 4.0, 1.0, 4.0), (0.0, 4.0, 0.0, 1.9, 1.0, 1.9), (0.0, -4.0, 0.0, 9.0, 1.0, 9.0))
    targets = token_targets(three, torch.ones(1, 3, dtype=torch.bool), camera(), SIZE, GRID)
    assert targets.object_index[0, 0][targets.shown[0, 0]].unique().tolist() == [1]
    padded = token_targets(three, torch.tensor([[True, False, False]]), camera(), SIZE, GRID)
    assert padded.object_index[0, 0][padded.shown[0, 0]].unique().tolist() == [0]


def test_the_head_learns_the_targets() -> None:
    torch.manual_seed(0)
    features, images = torch.randn(1, 8, 4, 4), torch.zeros(1, 1, 3, 64, 64)
    ground_truth = {"gt_boxes": boxes((0.0, 4.0, 0.0, 1.9, 1.0, 1.9)), "gt_labels": torch.tensor([[1]])}
    loss = ImageObjects(num_classes=3)
    inputs = {
        "features": features,
        "images": images,
        "lidar2img": camera(),
        **ground_truth,
        "gt_mask": torch.ones(1, 1).bool(),
    }
    loss.build(**inputs)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    first = loss(**inputs).item()
    for _ in range(150):
        optimizer.zero_grad()
        loss(**inputs).backward()
        optimizer.step()
    assert loss(**inputs).item() < 0.05 * first
    best = loss.head(features.permute(0, 2, 3, 1))[0, 1:3, 1:3, :3].argmax(-1)
    assert (best == 1).all()


def test_a_frame_without_objects() -> None:
    loss, features = ImageObjects(num_classes=3), torch.randn(1, 8, 4, 4, requires_grad=True)
    inputs = {"images": torch.zeros(1, 1, 3, 64, 64), "lidar2img": camera(), "gt_boxes": torch.zeros(1, 2, 9),
              "gt_labels": torch.full((1, 2), -1), "gt_mask": torch.zeros(1, 2).bool()}  # fmt: skip
    loss.build(features, **inputs)
    value = loss(features, **inputs)
    value.backward()
    assert value.item() == pytest.approx(value.item()) and features.grad is not None and features.grad.isfinite().all()

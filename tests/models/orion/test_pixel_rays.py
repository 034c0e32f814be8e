"""Points on pixel rays compared with float64 matrices."""

import pytest
import torch
from torch import Tensor

from kd_runner.models.orion.pixel_rays import invert_projection, lid_depths, lift_pixels


def cameras(focal_px: float, number: int = 8) -> Tensor:
    """Projections `(1, number, 4, 4)`, float64, of cameras with random rotations, up to 2 m from the origin."""
    generator = torch.Generator().manual_seed(0)
    rotation, _ = torch.linalg.qr(torch.randn(number, 3, 3, generator=generator, dtype=torch.float64))
    intrinsic = torch.tensor([[focal_px, 0, 320.0], [0, 1.3 * focal_px, 240.0], [0, 0, 1]], dtype=torch.float64)
    matrix = torch.eye(4, dtype=torch.float64).repeat(number, 1, 1)
    matrix[:, :3, :3] = intrinsic @ rotation
    position = torch.rand(number, 3, 1, generator=generator, dtype=torch.float64) * 4 - 2
    matrix[:, :3, 3:] = -matrix[:, :3, :3] @ position
    return matrix[None]


@pytest.mark.parametrize("focal_px", [30.0, 500.0, 5000.0])
def test_a_projection_is_inverted_to_a_millimeter_in_float32(focal_px: float) -> None:
    matrix = cameras(focal_px)
    inverse, origin = invert_projection(matrix.float())
    pixel = torch.tensor([600.0, 20.0, 1.0, 0.0], dtype=torch.float64) * 61.2
    pixel[3] = 1
    expected = (torch.linalg.inv(matrix) @ pixel)[..., :3]
    assert (inverse @ pixel[:3].float() + origin - expected).abs().max() < 2e-3


def test_lifted_pixels_project_back_to_the_centers_of_their_patches() -> None:
    matrix, depths = cameras(200.0), torch.tensor([1.0, 7.0, 50.0])
    points = lift_pixels(matrix.float(), (4, 6), 16, depths)
    assert points.shape == (1, 8, 24, 3, 3)
    homogeneous = torch.cat((points, torch.ones_like(points[..., :1])), dim=-1).double()
    seen = (matrix[:, :, None, None] @ homogeneous[..., None])[..., :3, 0]
    torch.testing.assert_close(seen[..., 2], depths.double().expand(1, 8, 24, 3), rtol=0, atol=1e-3)
    u, v = (seen[..., :2] / seen[..., 2:]).unbind(-1)
    assert torch.allclose(u[0, 0, 1 * 6 + 4], torch.tensor(4.5 * 16, dtype=torch.float64), atol=0.05)
    assert torch.allclose(v[0, 3, 2 * 6 + 5], torch.tensor(2.5 * 16, dtype=torch.float64), atol=0.05)


def test_lid_depths_start_and_stop_with_linear_spacing() -> None:
    depths = lid_depths(64, 1.0, 61.2).double()
    gaps = depths.diff()
    assert depths[0] == 1 and len(depths) == 64
    torch.testing.assert_close(gaps.diff(), gaps[0].expand(62), rtol=0, atol=1e-4)
    assert depths[-1] + 64 * gaps[0] == pytest.approx(61.2, abs=1e-3)

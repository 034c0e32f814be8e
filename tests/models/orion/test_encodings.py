"""Encodings compared with closed forms."""

import math

import pytest
import torch

from kd_runner.models.orion.encodings import (
    denormalize_points,
    inverse_sigmoid,
    nerf_encoding,
    normalize_points,
    time_encoding,
)


def test_nerf_encoding_orders_sines_before_cosines_of_each_frequency() -> None:
    x = torch.tensor([[0.3, 0.7]])
    code = nerf_encoding(x)
    expected = [f(2**k * value) for k in range(6) for f in (math.sin, math.cos) for value in (0.3, 0.7)]
    torch.testing.assert_close(code[0], torch.tensor(expected), atol=1e-5, rtol=0)


def test_time_encoding_interleaves_sine_and_cosine() -> None:
    code = time_encoding(torch.tensor([0.4]), 8)
    angle = [0.4 * 2 * math.pi / 10000 ** (k / 8) for k in (0, 2, 4, 6)]
    expected = [f(a) for a in angle for f in (math.sin, math.cos)]
    torch.testing.assert_close(code, torch.tensor(expected))
    torch.testing.assert_close(time_encoding(torch.zeros(3, 1), 4), torch.tensor([0.0, 1, 0, 1]).expand(3, -1))


def test_normalized_points_and_their_inverse_sigmoid() -> None:
    bounds = torch.tensor([-50.0, -50, -5, 50, 50, 3])
    points = torch.tensor([[0.0, 25, 1], [-50, 50, 3]])
    unit = normalize_points(points, bounds)
    torch.testing.assert_close(unit, torch.tensor([[0.5, 0.75, 0.75], [0, 1, 1]]))
    torch.testing.assert_close(denormalize_points(unit, bounds), points)
    torch.testing.assert_close(inverse_sigmoid(unit[:1]).sigmoid(), unit[:1])
    assert inverse_sigmoid(torch.tensor([-3.0, 4.0])).abs().tolist() == pytest.approx([math.log(1e5)] * 2, rel=1e-3)

"""Edges of boxes, and edges as a camera sees them."""

import numpy as np
import pytest
import torch

from kd_runner.geometry.boxes3d import corners
from kd_runner.visualization.wireframe import EDGES, FLOOR, FRONT, polyline_edges, visible_edges

LOOKING_AHEAD = np.array([[50.0, 50, 0, 0], [0, 50, -100, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # 100 x 100, along y


def box(heading: float) -> np.ndarray:
    return corners(torch.tensor([[1.0, 2, 3, 4, 2, 1.5, heading]], dtype=torch.float64))[0].numpy()


@pytest.mark.parametrize("heading", [0.0, 0.7, -2.0, np.pi / 2])
def test_front_and_floor_are_those_of_the_car(heading: float) -> None:
    actual = box(heading)
    ahead = np.array([np.cos(heading), np.sin(heading)])
    front = actual[EDGES[FRONT]].reshape(-1, 3)
    assert np.allclose((front[:, :2] - [1, 2]) @ ahead, 2)  # half the length ahead
    assert np.allclose(actual[FLOOR, 2], 3 - 0.75)
    assert np.allclose((actual[FLOOR[1], :2] - actual[FLOOR[0], :2]) / 2, [-ahead[1], ahead[0]])  # left of right


def test_edges_are_the_twelve_of_a_box() -> None:
    actual = box(0.3)
    lengths = np.linalg.norm(actual[EDGES[:, 0]] - actual[EDGES[:, 1]], axis=1)
    assert sorted(lengths.round(6)) == [1.5] * 4 + [2.0] * 4 + [4.0] * 4
    assert len({frozenset(edge) for edge in EDGES.tolist()}) == 12 and FRONT.sum() == 4


def test_edges_in_view_are_projected_as_they_are() -> None:
    edges = np.array([[[0.0, 10, 0.0], [2, 10, 2.5]]])
    pixels, which = visible_edges(
        edges, np.array([[50.0, 50, 0, 0], [0, 50, -50, 0], [0, 1, 0, 0], [0, 0, 0, 1]]), 100, 100
    )
    assert np.allclose(pixels, [[[50, 50], [60, 37.5]]]) and which.tolist() == [0]


def test_what_is_behind_or_beside_is_left_out() -> None:
    edges = np.array([[[0.0, -5, 0], [1, -9, 0]], [[30.0, 5, 0], [40, 6, 0]], [[0.0, 5, 0], [0, 6, 0]]])
    assert visible_edges(edges, LOOKING_AHEAD, 100, 100)[1].tolist() == [2]
    pixels, which = visible_edges(edges[:0], LOOKING_AHEAD, 100, 100)
    assert pixels.shape == (0, 2, 2) and which.shape == (0,)


def test_cut_edges_lie_on_the_old_ones_within_the_image() -> None:
    """Each end is a point of the uncut edge; inside the border; nothing that is visible is lost."""
    random = np.random.default_rng(0)
    edges = random.uniform(-20, 20, (200, 2, 3))
    pixels, which = visible_edges(edges, LOOKING_AHEAD, 100, 100)
    assert (pixels >= -1e-6).all() and (pixels <= 100 + 1e-6).all()
    for fraction in np.linspace(0, 1, 41):
        points = (edges[:, 0] * (1 - fraction) + edges[:, 1] * fraction) @ LOOKING_AHEAD[:3, :3].T
        visible = (points[:, 2] > 0.3) & ((points[:, :2] > 0) & (points[:, :2] < 100 * points[:, 2:])).all(1)
        assert set(np.flatnonzero(visible)) <= set(which.tolist())
        for number in np.flatnonzero(visible):
            a, b = pixels[which.tolist().index(number)]
            pixel = points[number, :2] / points[number, 2]
            along = np.linalg.norm(pixel - a) + np.linalg.norm(pixel - b)
            assert along == pytest.approx(np.linalg.norm(a - b), abs=1e-5)


def test_steps_go_line_by_line() -> None:
    lines = np.arange(12.0).reshape(2, 3, 2)
    assert polyline_edges(lines).tolist() == [[[0, 1], [2, 3]], [[2, 3], [4, 5]], [[6, 7], [8, 9]], [[8, 9], [10, 11]]]
    assert polyline_edges(np.zeros((0, 3, 2))).shape == (0, 2, 2)

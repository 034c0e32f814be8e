"""Where things land in a figure: by their colors."""

import numpy as np
import torch

from kd_runner.geometry.boxes3d import corners
from kd_runner.visualization.driving import _BOX_COLORS, _LINE_COLORS, DrivingFigure, View, stack

SIDE, TOP = 120, 24  # of a view; rows of its caption and the gap


def figure(**options: object) -> DrivingFigure:
    return DrivingFigure(["car", "truck"], ["Solid"], range_m=30.0, camera_size=(40, 20), **options)


def view(boxes: list[list[float]] = (), label: int = 0, **content: object) -> View:
    actual = corners(torch.tensor(boxes, dtype=torch.float64).reshape(-1, 7)).numpy()
    return View("truth", actual, np.full(len(actual), label), **content)


def near(picture: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """(row, column) of the pixels of about a color."""
    return np.argwhere(np.abs(picture.astype(int) - color).sum(-1) < 60)


def test_right_is_right_and_ahead_is_up() -> None:
    picture = figure().draw([view([[15, 20, 0, 4, 2, 1.5, 0.0]])])[TOP : TOP + SIDE]
    rows, columns = near(picture, _BOX_COLORS[0]).T
    scale = SIDE / 60
    assert abs(rows.mean() - (30 - 20) * scale) < 1
    assert abs(columns.min() - (30 + 13) * scale) <= 2
    assert rows[columns == columns.max()].tolist() == [20] and columns.max() >= 94  # the heading, beyond the front


def test_views_stand_side_by_side_with_their_own_boxes() -> None:
    picture = figure().draw([view([[0, 10, 0, 4, 2, 1.5, 0]]), view([[0, 10, 0, 4, 2, 1.5, 0]], label=1)])
    picture = picture[TOP : TOP + SIDE]
    assert near(picture, _BOX_COLORS[0])[:, 1].max() < SIDE < near(picture, _BOX_COLORS[1])[:, 1].min()


def test_a_line_goes_from_end_to_end() -> None:
    lines = np.array([[[-20.0, -10], [0, -10], [20, -10]]])
    actual = near(figure().draw([view(lines=lines, line_labels=np.array([0]))])[TOP : TOP + SIDE], _LINE_COLORS[0])
    assert abs(actual[:, 0] - 80).max() <= 2 and np.ptp(actual[:, 1]) > 75


def test_points_and_heat() -> None:
    """Heat is x by y; the picture has y upwards."""
    heat = np.zeros((30, 30))
    heat[25, 20] = 1.0
    points = np.array([[-22.0, -22, 0, 1]] * 3)
    picture = figure().draw([view(), view(heat=heat)], points=points)
    assert (picture[TOP + 103 : TOP + 106, 15:18] < 200).any()
    lower = picture[TOP + SIDE + 6 : TOP + 2 * SIDE + 6]
    position = near(lower[2:-2, SIDE + 8 : -2], (40, 0, 60)).mean(0)
    assert np.allclose(position, [(30 - 20.5) * 4 - 2, 25.5 * 4 - 2], atol=1)
    assert (lower[:, :SIDE] == 255).all()  # a view without a heat map


def test_points_beyond_the_picture_are_left_out_and_those_at_its_border_are_drawn() -> None:
    empty = figure().draw([view()], points=np.zeros((0, 4)))
    for x, y in (
        (-33.0, 5),
        (33, 5),
        (5, -33),
        (5, 33),
        (-33, -33),
        (33, 33),
        (30.0, 5),
        (5, -30.0),
        (29.9, 5),
        (5, -29.9),
    ):
        assert np.array_equal(figure().draw([view()], points=np.array([[x, y, 0, 1.0]] * 3)), empty), (x, y)
    for x, y in ((-28.9, 5), (28.6, 5), (5, -28.6), (5, 28.9)):
        picture = figure().draw([view()], points=np.array([[x, y, 0, 1.0]] * 3))
        row, column = np.argwhere(np.abs(picture.astype(int) - empty).sum(-1) > 30).mean(0) - [TOP, 0]
        assert abs(row - (30 - y) * 2) < 1 and abs(column - (x + 30) * 2) < 1


def test_boxes_are_drawn_where_a_camera_sees_them() -> None:
    """Two cameras, one ahead and one back; the car ahead is in the first alone. The order is the one asked for."""
    ahead = np.array([[50.0, 50, 0, 0], [0, 25, -50, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # 100 x 50
    back = ahead @ np.diag([-1.0, -1, 1, 1])
    images = np.full((2, 50, 100, 3), 90, np.uint8)
    for order, left in (([0, 1], 0), ([1, 0], 40)):
        picture = figure(order=order).draw(
            [view([[0, 12, 0, 4, 4, 2, 0]])], images=images, lidar2img=np.stack([ahead, back])
        )
        actual = near(picture[TOP : TOP + 20], _BOX_COLORS[0])
        assert len(actual) and abs(actual[:, 1].mean() - left - 20) < 1 and abs(actual[:, 0].mean() - 10) < 2


def test_a_scene_without_anything() -> None:
    picture = figure().draw([view()])
    assert picture.dtype == np.uint8 and picture.shape[1:] == (SIDE, 3)
    assert stack([picture, picture]).shape == (2 * len(picture) + 6, SIDE, 3)

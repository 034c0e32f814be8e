"""Road coordinates and what is painted on roads."""

import numpy as np
import pytest

from kd_runner.synthetic.driving.road import LANE_WIDTH, crossing_road, main_road

BEND = {"origin": (900.0, -40.0), "heading": 2.0, "forward": 2, "backward": 1, "shoulder": 0.0, "center": "SolidSolid"}


@pytest.mark.parametrize("curvature", [6e-3, -6e-3, 2e-4])
def test_coordinates_there_and_back(curvature: float) -> None:
    road = main_road(**BEND, curvature=curvature, gap=None, stop=None)
    s, d = np.meshgrid(np.linspace(-100, 100, 9), np.linspace(-20, 20, 5))
    again = road.coordinates(road.points(s, d))
    assert np.allclose(again, (s, d), atol=1e-6)
    # d is to the left of the direction of travel, and a meter of s on the axis is a meter.
    ahead = np.diff(road.points(np.array([0.0, 1e-3]), np.zeros(2)), axis=0)[0] / 1e-3
    left = road.points(np.array(0.0), np.array(1.0)) - road.points(np.array(0.0), np.array(0.0))
    assert np.allclose(ahead, [np.cos(2.0), np.sin(2.0)], atol=1e-4)
    assert ahead[0] * left[1] - ahead[1] * left[0] == pytest.approx(1.0, abs=1e-4)


def test_lines_of_a_three_lane_road() -> None:
    road = main_road(**BEND, curvature=1e-3, gap=(20.0, 32.0), stop="TrafficLight")
    offsets = {kind: sorted({line.offset / LANE_WIDTH for line in road.lines if line.kind == kind}) for kind in
               ("Solid", "SolidSolid", "Broken", "Center")}  # fmt: skip
    assert offsets == {"Solid": [-2, 1], "SolidSolid": [0], "Broken": [-1], "Center": [-1.5, -0.5, 0.5]}
    assert all(not (line.start < 26 < line.end) for line in road.lines if line.kind != "Center")
    (kind, corners), = road.map_volumes()  # fmt: skip
    s, d = road.coordinates(corners[:, :2])
    assert kind == "TrafficLight" and corners.shape == (4, 3)
    assert np.allclose([s.min(), s.max(), d.min(), d.max()], [16.0, 19.5, -2 * LANE_WIDTH, 0.0])


def test_a_crossing_keeps_off_the_main_road() -> None:
    main = main_road(**BEND, curvature=-4e-3, gap=(20.0, 32.0), stop=None)
    crossing = crossing_road(main, position=26.0, angle=np.pi / 2 - 0.2)
    s, d = main.coordinates(crossing.points(np.array(0.0), np.array(0.0)))
    assert (s, d) == pytest.approx((26.0, 0.0), abs=1e-6)
    for kind, points in crossing.map_lines():
        if kind != "Center":
            across = main.coordinates(points[:, :2])[1]
            assert (across > main.left).all() or (across < main.right).all()

"""A submission, read back as the devkit reads it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from kd_runner.data.nuscenes.taxonomy import CLASSES
from kd_runner.export.nuscenes_submission import NuScenesSubmission
from kd_runner.geometry.poses import pose

PLACE = torch.from_numpy(pose([1500.0, 820.0, 1.8], [np.cos(0.6), 0.0, 0.0, np.sin(0.6)]))
LOCAL = PLACE.clone()
LOCAL[:3, 3] = torch.tensor([0.9, 0.0, 1.8])


def submission(rows: list[list[float]], labels: list[int], scores: list[float], **more: int) -> NuScenesSubmission:
    submitted = NuScenesSubmission(["one"], **more)
    boxes = torch.tensor([rows], dtype=torch.float32)
    places = {"lidar2local": LOCAL.float()[None], "lidar2global": PLACE[None], "index": torch.tensor([0])}
    submitted.add(boxes, torch.tensor([scores]), torch.tensor([labels]), **places)
    return submitted


def test_round_trip(tmp_path: Path) -> None:
    box = [10.0, -4.0, 0.5, 4.2, 1.9, 1.6, 0.7, 3.0, -1.0]
    submission([box], [CLASSES.index("car")], [0.625]).write(tmp_path / "result.json")
    content = json.loads((tmp_path / "result.json").read_text())
    assert content["meta"]["use_lidar"] is True
    assert sum(content["meta"].values()) == 1
    (row,) = content["results"]["one"]
    turn = Rotation.from_euler("z", 1.2)
    assert np.allclose(row["translation"], turn.apply(box[:3]) + np.array([1500, 820, 1.8]))
    assert np.allclose(row["size"], [1.9, 4.2, 1.6])
    w, x, y, z = row["rotation"]
    assert Rotation.from_quat([x, y, z, w]).as_euler("zyx") == pytest.approx([1.9, 0, 0], abs=1e-6)
    assert np.allclose(row["velocity"], turn.apply([3, -1, 0])[:2])
    assert (row["sample_token"], row["detection_name"], row["detection_score"]) == ("one", "car", 0.625)
    assert row["attribute_name"] == "vehicle.moving"


@pytest.mark.parametrize(
    ("name", "standing", "moving"),
    [
        ("car", "vehicle.parked", "vehicle.moving"),
        ("bus", "vehicle.stopped", "vehicle.moving"),
        ("bicycle", "cycle.without_rider", "cycle.with_rider"),
        ("pedestrian", "pedestrian.standing", "pedestrian.moving"),
        ("barrier", "", ""),
        ("traffic_cone", "", ""),
    ],
)
def test_attributes_follow_class_and_speed(name: str, standing: str, moving: str) -> None:
    rows = [[5.0, 5, 0, 1, 1, 1, 0, speed, 0] for speed in (0.1, 0.3)]
    submitted = submission(rows, [CLASSES.index(name)] * 2, [0.9, 0.8]).results["one"]
    assert [row["attribute_name"] for row in submitted] == [standing, moving]


def test_best_boxes_in_range_only() -> None:
    """45 m is too far for a pedestrian; label -1 is none; of the rest the best two."""
    rows = [[x, 0.0, 0, 1, 1, 1, 0, 0, 0] for x in (45.0, 45, 20, 21, 22, 5)]
    car, pedestrian = CLASSES.index("car"), CLASSES.index("pedestrian")
    labels = [pedestrian, car, car, car, pedestrian, -1]
    submitted = submission(rows, labels, [0.99, 0.2, 0.5, 0.4, 0.7, 0.95], max_predictions=2).results["one"]
    assert [row["detection_score"] for row in submitted] == pytest.approx([0.7, 0.5])


def test_a_part_of_the_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lacks 2 of 2 samples"):
        NuScenesSubmission(["one", "two"]).write(tmp_path / "result.json")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="Did you mean 'truck'"):
        NuScenesSubmission([], ["truckk"])

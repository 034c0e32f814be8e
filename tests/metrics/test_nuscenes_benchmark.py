"""The benchmark's own rules: ranges around the car, racks, unknown velocities, attributes by speed."""

import pytest
import torch
from torch import Tensor

from kd_runner.data.nuscenes.taxonomy import ATTRIBUTES, CLASSES
from kd_runner.metrics.nuscenes_benchmark import RANGES, NuScenesBenchmark


def sample(rows: list[tuple[float, float, str]], **more: Tensor) -> dict[str, Tensor]:
    """Objects (x, y, class) that stand, found as they are; the LiDAR is 1 m in front of the car, and turned."""
    boxes = torch.tensor([[[x, y, 0, 4, 2, 1.5, 0.4, 0, 0] for x, y, _ in rows]])
    labels = torch.tensor([[CLASSES.index(name) for *_, name in rows]])
    pose = torch.eye(4)
    pose[:2, :2] = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    pose[0, 3] = 1.0
    usual = {"vehicle": "vehicle.parked", "pedestrian": "pedestrian.standing", "bicycle": "cycle.without_rider"}
    kinds = [usual.get(name, usual["vehicle"]) for *_, name in rows]
    truth = {
        "gt_boxes": boxes,
        "gt_labels": labels,
        "gt_mask": torch.ones_like(labels, dtype=torch.bool),
        "gt_velocity_mask": torch.ones_like(labels, dtype=torch.bool),
        "gt_attributes": torch.tensor([[ATTRIBUTES.index(kind) for kind in kinds]]),
        "lidar2local": pose[None],
        "racks": torch.zeros(1, 2, 7),
    }
    predictions = {"boxes": boxes, "scores": torch.linspace(0.9, 0.5, len(rows))[None], "labels": labels}
    return {**predictions, **truth, "index": torch.zeros(1, dtype=torch.long), **more}


def measure(batch: dict[str, Tensor]) -> dict[str, float]:
    metric = NuScenesBenchmark()
    metric.update(**batch)
    return {name: value.item() for name, value in metric.compute().items()}


def test_standing_objects_found_as_they_are() -> None:
    result = measure(sample([(5, 5, "car"), (9, 1, "pedestrian"), (3, 9, "bicycle")]))
    assert [result[f"ap/{name}"] for name in ("car", "pedestrian", "bicycle", "bus")] == pytest.approx([1, 1, 1, 0])
    assert [result[f"{e}/car"] for e in ("ate", "ase", "aoe", "ave", "aae")] == pytest.approx([0] * 5, abs=1e-6)
    assert result["map"] == pytest.approx(0.3)


def test_the_range_is_around_the_car_not_the_sensor() -> None:
    """LiDAR (0, 49.5) is (50.5, 0) from the car, its (0, -50.5) is (-49.5, 0)."""
    near, far = (0.0, -50.5, "car"), (0.0, 49.5, "car")
    assert measure(sample([near]))["ap/car"] == pytest.approx(1)
    assert measure(sample([far]))["ap/car"] == 0
    assert measure(sample([near, far]))["ap/car"] == pytest.approx(1)


def test_bicycles_in_racks_are_left_out_cars_are_not() -> None:
    """A rack around two of three; what is found there is not false either."""
    rows = [(5.0, 5.0, "bicycle"), (5.5, 5.0, "car"), (12.0, 0.0, "bicycle")]
    racks = torch.zeros(1, 2, 7)
    racks[0, 0] = torch.tensor([5.0, 5, 0, 3, 2, 2, 0.2])
    batch = sample(rows, racks=racks)
    assert measure(batch)["ap/bicycle"] == pytest.approx(1)
    batch["labels"] = torch.tensor([[-1, CLASSES.index("car"), CLASSES.index("bicycle")]])
    assert (measure(batch)["ap/bicycle"], measure(batch)["ap/car"]) == pytest.approx((1, 1))
    assert measure({**batch, "racks": torch.zeros(1, 2, 7)})["ap/bicycle"] < 0.6


def test_predictions_in_racks_count_for_no_class() -> None:
    """The surest prediction of all lies in a rack: neither a bicycle nor a false alarm of any other class."""
    rows = [(5.0, 5.0, "bicycle")] + [(-20.0 + 4 * i, 12.0, name) for i, name in enumerate(CLASSES)]
    racks = torch.zeros(1, 2, 7)
    racks[0, 0] = torch.tensor([5.0, 5, 0, 3, 2, 2, 0.2])
    result = measure(sample(rows, racks=racks))
    assert [result[f"ap/{name}"] for name in CLASSES] == pytest.approx([1.0] * len(CLASSES))


def test_unknown_velocities_are_not_asked_for() -> None:
    batch = sample([(5, 5, "car"), (9, 1, "car")])
    batch["boxes"] = batch["boxes"].clone()
    batch["boxes"][0, 1, 7] = 3.0
    assert measure(batch)["ave/car"] > 0.3
    batch["gt_velocity_mask"] = torch.tensor([[True, False]])
    result = measure(batch)
    assert result["ave/car"] == pytest.approx(0, abs=1e-6)
    assert result["aae/car"] > 0.1  # what moves is not parked


def test_fewer_classes_have_their_own_ranges() -> None:
    metric = NuScenesBenchmark(["pedestrian", "barrier"], {"pedestrian": 12.0})
    assert metric.half_turn == {"barrier"}
    assert set(NuScenesBenchmark(["car"]).class_ranges) == {"car"}
    assert set(RANGES) == set(CLASSES)
    batch = sample([(5, 5, "pedestrian"), (9, 9, "pedestrian")])
    none = torch.zeros_like(batch["labels"])
    metric.update(**{**batch, "labels": none, "gt_labels": none})
    result = metric.compute()
    assert result["ap/pedestrian"] == pytest.approx(1)  # the second one is 13.5 m away: it does not count
    assert "ap/barrier" not in result

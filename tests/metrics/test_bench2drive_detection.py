"""The two protocols on Bench2Drive, by hand."""

from collections import Counter

import pytest
import torch
from torch import Tensor

from kd_runner.metrics.bench2drive_detection import RANGES, Bench2DriveDetection
from kd_runner.metrics.nuscenes_benchmark import RANGES as NUSCENES_RANGES


def boxes(*centers: tuple[float, float]) -> Tensor:
    return torch.tensor([[[x, y, 0, 4, 2, 1.5, 0, 0, 0] for x, y in centers]], dtype=torch.float32)


def measure(protocol: str, predicted: Tensor, scores: list[float], true: Tensor, empty: list[bool]) -> float:
    """mAP of one class."""
    metric = Bench2DriveDetection(["car", "others"], {"car": 50.0}, protocol)
    labels, gt_labels = (torch.zeros(b.shape[:2], dtype=torch.long) for b in (predicted, true))
    without = torch.tensor([empty])
    metric.update(predicted, torch.tensor([scores]), labels, true, gt_labels, ~without, without, torch.tensor([0]))
    return metric.compute()["map"].item()


def test_predictions_out_of_range_are_false_in_the_official_protocol_alone() -> None:
    case = boxes((10, 0), (51, 0)), [0.5, 0.9], boxes((10, 0), (51, 0)), [False, False]
    assert measure("in_range", *case) == pytest.approx(1.0)
    # The false one comes first: precision is half of the recall, as the devkit interpolates, and counts above 0.1.
    expected = sum(max(k / 200 - 0.1, 0) for k in range(11, 101)) / 90 / 0.9
    assert measure("official", *case) == pytest.approx(expected, abs=1e-6)


def test_objects_without_points_count_in_the_official_protocol_alone() -> None:
    case = boxes((10, 0)), [0.5], boxes((10, 0), (20, 0)), [False, True]
    assert measure("in_range", *case) == pytest.approx(1.0)
    assert measure("official", *case) == pytest.approx(40 / 90, abs=0.01)  # recall ends at one half
    both = boxes((10, 0), (20, 0)), [0.5, 0.4], boxes((10, 0), (20, 0)), [False, True]
    assert measure("official", *both) == pytest.approx(1.0)


def test_the_official_protocol_needs_scores_above_0_2() -> None:
    case = boxes((10, 0)), [0.2], boxes((10, 0)), [False]
    assert measure("in_range", *case) == pytest.approx(1.0)
    assert measure("official", *case) == 0.0


def test_the_protocol_has_a_description_and_a_wrong_one_is_refused() -> None:
    assert Bench2DriveDetection(["car"], {"car": 50.0}).protocol.startswith("Bench2DriveZoo's")
    assert Bench2DriveDetection(["car"], {"car": 50.0}, "in_range").protocol.startswith("not Bench2DriveZoo's")
    with pytest.raises(ValueError, match=r"protocol: there is no 'offical'\. Did you mean 'official'"):
        Bench2DriveDetection(["car"], {"car": 50.0}, "offical")


def test_ranges_are_the_published_ones() -> None:
    """Bench2DriveZoo and nuScenes' detection_cvpr_2019: half sides and radii in meters by class."""
    assert Counter(RANGES.values()) == {50: 3, 40: 2, 30: 3}
    assert {name for name, size in RANGES.items() if size == 50} == {"car", "van", "truck"}
    assert {name for name, size in RANGES.items() if size == 40} == {"bicycle", "pedestrian"}
    far = {"car", "truck", "bus", "trailer", "construction_vehicle"}
    assert {name for name, size in NUSCENES_RANGES.items() if size == 50} == far
    assert {name for name, size in NUSCENES_RANGES.items() if size == 40} == {"pedestrian", "motorcycle", "bicycle"}
    assert {name for name, size in NUSCENES_RANGES.items() if size == 30} == {"traffic_cone", "barrier"}

"""From raw outputs of the detection head in the public convention to corners in meters, by hand."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from kd_runner.geometry.boxes3d import corners
from kd_runner.losses.orion_detection import OrionDetectionLoss
from kd_runner.models.orion.detector import Orion

Build = Callable[..., Orion]
Frame = dict[str, Tensor]
RANGE = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
REFERENCE = (0.6, 0.5, 0.4)


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def raw_output(x: float, y: float, z: float, w: float, l: float, h: float, heading: float) -> list[float]:  # noqa: E741
    """Raw output of the public head for a box: numbers 0 to 2 are before the sigmoid, relative to the reference."""
    yaw = -heading - math.pi / 2
    bounded = [(x + 51.2) / 102.4, (y + 51.2) / 102.4, (math.log(w) + 5) / 8]
    start = [logit(p) - logit(u) for p, u in zip(bounded, REFERENCE)]
    return [*start, math.log(l), z, math.log(h), math.sin(yaw), math.cos(yaw), 3.0, -1.0]


def with_output(net: Orion, raw: list[float]) -> Orion:
    """The net, all of whose queries have this output and reference point."""
    head = net.pts_bbox_head
    last = head.reg_branches[0][-1]  # type: ignore[index]
    nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor(raw)
    head.reference_points.weight.data[:] = torch.tensor(REFERENCE)
    return net.eval()


@pytest.mark.parametrize(
    ("heading", "rear_right_lower", "front_left_upper"),
    [
        (0.0, (7.75, -4.95, -1.7), (12.25, -3.05, -0.1)),
        (math.pi / 2, (10.95, -6.25, -1.7), (9.05, -1.75, -0.1)),
    ],
)
def test_a_car_of_1_9_by_4_5_m(
    small: Build, frame: Frame, heading: float, rear_right_lower: tuple, front_left_upper: tuple
) -> None:
    net = small(pc_range=RANGE, num_query=1, num_propagated=0, memory_length=0)
    outputs = with_output(net, raw_output(10.0, -4.0, -0.9, 1.9, 4.5, 1.6, heading))(
        frame["images"], frame["lidar2img"]
    )
    box = outputs["boxes"][0, 0]
    expected = torch.tensor([10.0, -4.0, -0.9, 4.5, 1.9, 1.6, heading, 3.0, -1.0])
    torch.testing.assert_close(box, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(corners(box)[0], torch.tensor(rear_right_lower), atol=1e-4, rtol=0)
    torch.testing.assert_close(corners(box)[7], torch.tensor(front_left_upper), atol=1e-4, rtol=0)


def test_z_is_free_and_the_width_is_bounded_by_the_range_of_z(small: Build, frame: Frame) -> None:
    """A raw output of zeros: x, y at the reference point, log w at its z, and z = 0."""
    net = small(pc_range=RANGE, num_query=1, num_propagated=0, memory_length=0)
    box = with_output(net, [0.0] * 7 + [1.0, 0.0, 0.0])(frame["images"], frame["lidar2img"])["boxes"][0, 0]
    width = math.exp(-5 + 8 * 0.4)
    expected = torch.tensor([-51.2 + 102.4 * 0.6, 0.0, 0.0, 1.0, width, 1.0, -math.pi / 2])
    torch.testing.assert_close(box[:7], expected, atol=1e-4, rtol=0)


def test_the_loss_of_the_public_answer_is_that_of_its_classes(small: Build, frame: Frame) -> None:
    """Boxes add nothing to the loss of a raw output that is the public code of the ground truth."""
    net = small(pc_range=RANGE, num_query=1, num_propagated=0, memory_length=0)
    outputs = with_output(net, raw_output(10.0, -4.0, -0.9, 1.9, 4.5, 1.6, 0.3))(frame["images"], frame["lidar2img"])
    truth = {
        "gt_boxes": torch.tensor([[[10.0, -4.0, -0.9, 4.5, 1.9, 1.6, 0.3, 3.0, -1.0]]] * 2),
        "gt_labels": torch.zeros(2, 1, dtype=torch.long),
        "gt_mask": torch.ones(2, 1, dtype=torch.bool),
    }
    whole, classes = (
        OrionDetectionLoss(box_weight=weight)(outputs["logits"], outputs["codes"], **truth) for weight in (0.25, 0.0)
    )
    assert whole.item() == pytest.approx(classes.item(), abs=1e-3)
    truth["gt_boxes"][..., 2] += 2.0  # z is number 4: its weight is 1, over two layers and one object per sample
    moved = OrionDetectionLoss()(outputs["logits"], outputs["codes"], **truth)
    assert (moved - whole).item() == pytest.approx(0.25 * 2.0 * 2, abs=1e-3)

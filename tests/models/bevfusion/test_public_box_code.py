"""From raw outputs of the public heads' branches to corners in meters, by hand."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from kd_runner.geometry.boxes3d import corners
from kd_runner.models.bevfusion import BEVFusionLidar
from kd_runner.models.bevfusion.foreign import MIT_PARTS, convert

Make = Callable[..., BEVFusionLidar]
BRANCH = "bbox_head.prediction_heads.0."
CELL_M = 1.6  # 4 voxels of 0.4 m
LOW_M = -6.4


def mmdet3d_code(width: float, length: float, height: float, yaw: float) -> dict[str, list[float]]:
    """Outputs of the branches `dim` and `rot` in mmdetection3d's convention: (dx, dy, dz) with dx along the heading."""
    return {"dim": [math.log(length), math.log(width), math.log(height)], "rot": [math.sin(yaw), math.cos(yaw)]}


def mit_code(width: float, length: float, height: float, yaw: float) -> dict[str, list[float]]:
    """The same in the convention of mit-han-lab/bevfusion: (w, l, h) and yaw' = -yaw - pi/2."""
    turned = -yaw - math.pi / 2
    return {"dim": [math.log(width), math.log(length), math.log(height)], "rot": [math.sin(turned), math.cos(turned)]}


def checkpoint(net: BEVFusionLidar, code: dict[str, list[float]], mit: bool) -> dict[str, Tensor]:
    """Public checkpoint of the net, all of whose queries have this size and yaw, and 0.25, -0.5 cells, z 0.75 m."""
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    code = {**code, "center": [0.25, -0.5], "height": [0.75], "vel": [3.0, -1.0]}
    for name, values in code.items():
        nn.init.zeros_(state[f"{BRANCH}{name}.1.weight"])
        state[f"{BRANCH}{name}.1.bias"] = torch.tensor(values)
    if not mit:
        return state
    public = {own: name for name, own in MIT_PARTS.items()}
    return {
        public[own] + name.removeprefix(own): t for name, t in state.items() for own in public if name.startswith(own)
    }


@pytest.mark.parametrize(("encode", "mit"), [(mmdet3d_code, False), (mit_code, True)])
@pytest.mark.parametrize(
    ("yaw", "front_left_upper"),
    [(0.0, (2.25, 0.95, 0.8)), (math.pi / 2, (-0.95, 2.25, 0.8)), (-2.5, None)],
)
def test_a_car_of_1_9_by_4_5_by_1_6_m(
    small: Make, cloud: dict[str, Tensor], encode: Callable, mit: bool, yaw: float, front_left_upper: tuple | None
) -> None:
    net = small().eval()
    net.load_state_dict(convert(checkpoint(net, encode(1.9, 4.5, 1.6, yaw), mit)))
    boxes = net(**cloud)["boxes"]
    cells = (boxes[..., :2] - LOW_M) / CELL_M - torch.tensor([0.25, -0.5])
    torch.testing.assert_close(cells - cells.floor(), torch.full_like(cells, 0.5), atol=1e-4, rtol=0)
    torch.testing.assert_close(boxes[..., 2], torch.full_like(boxes[..., 2], 0.75))
    torch.testing.assert_close(boxes[..., 7:], torch.tensor([3.0, -1.0]).expand_as(boxes[..., 7:]))
    if front_left_upper is None:
        forward, left = (math.cos(yaw), math.sin(yaw)), (-math.sin(yaw), math.cos(yaw))
        front_left_upper = (2.25 * forward[0] + 0.95 * left[0], 2.25 * forward[1] + 0.95 * left[1], 0.8)
    offsets = corners(boxes)[..., 7, :] - boxes[..., :3]
    torch.testing.assert_close(offsets, torch.tensor(front_left_upper).expand_as(offsets), atol=1e-4, rtol=0)

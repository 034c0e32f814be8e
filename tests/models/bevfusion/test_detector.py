"""BEVFusionLidar: sizes, geometry of its map, its outputs and its export."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from kd_runner.geometry.boxes3d import to_bottom
from kd_runner.geometry.transfusion_coder import BoxCoder
from kd_runner.models.bevfusion import BEVFusionLidar, DensePart

Make = Callable[..., BEVFusionLidar]
HALF_SECOND = {"second_channels": (64, 128), "fpn_channels": (128, 128)}


@pytest.mark.parametrize(
    ("changes", "count"),
    [({}, 8_306_030), (HALF_SECOND, 4_653_678), (HALF_SECOND | {"encoder_channels": (8, 16, 32, 64)}, 2_646_534)],
)
def test_published_sizes(changes: dict[str, tuple[int, ...]], count: int) -> None:
    with torch.device("meta"):
        net = BEVFusionLidar(**changes)
    assert sum(parameter.numel() for parameter in net.parameters()) == count
    assert net.pts_middle_encoder.bev_shape == (180, 180)
    assert net.pts_middle_encoder.bev_channels == 256


def test_outputs_and_gradients(small: Make, cloud: dict[str, Tensor]) -> None:
    net = small(head={"num_decoder_layers": 2})
    out = net(**cloud)
    shapes = {
        "heatmap": (2, 3, 8, 8), "query_labels": (2, 12), "query_heatmap_score": (2, 3, 12), "codes": (2, 2, 12, 10),
        "cls_logits": (2, 2, 12, 3), "boxes": (2, 12, 9), "scores": (2, 12), "labels": (2, 12),
    }  # fmt: skip
    assert {name: tuple(value.shape) for name, value in out.items()} == shapes
    (out["heatmap"].square().sum() + out["codes"].square().sum() + out["cls_logits"].square().sum()).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_padding_and_the_other_samples_do_not_matter(small: Make, cloud: dict[str, Tensor]) -> None:
    net = small().eval()
    both = net(**cloud)
    alone = net(cloud["points"][1:, :200], cloud["num_points"][1:])
    torch.testing.assert_close(alone["heatmap"][0], both["heatmap"][1])
    torch.testing.assert_close(alone["codes"][:, 0], both["codes"][:, 1])


def test_dimension_2_of_the_map_is_x(small: Make) -> None:
    """A few points move along x, and so does what they light up."""
    net = small().eval()
    cluster = torch.rand(1, 40, 5, generator=torch.Generator().manual_seed(0))
    middles = []
    for x, y in ((-5.0, -5.0), (4.0, -5.0), (-5.0, 4.0)):
        voxels = net.pts_voxel_layer(cluster + torch.tensor([x, y, 0, 0, 0]), torch.tensor([40]))
        lit = net.pts_middle_encoder(voxels, 1)[0].abs().sum(0)
        assert 0 < (lit > 0).sum() < 16
        middles.append((lit > 0).nonzero().float().mean(0))
    (x0, y0), (x1, y1), (x2, y2) = torch.stack(middles).tolist()
    assert x1 - x0 >= 4 and abs(y1 - y0) <= 1
    assert y2 - y0 >= 4 and abs(x2 - x0) <= 1


def test_proposals_are_the_highest_peaks(small: Make) -> None:
    """By a loop over cells: border cells only for the point class, elsewhere no higher neighbor."""
    head = small(head={"num_proposals": 5}).bbox_head.eval()
    heat = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    peaks = head._peaks(heat)
    for label in range(3):
        for x in range(8):
            for y in range(8):
                inner = 0 < x < 7 and 0 < y < 7
                top = inner and heat[0, label, x, y] == heat[0, label, x - 1 : x + 2, y - 1 : y + 2].max()
                expected = heat[0, label, x, y] if top or label == 2 else 0.0
                assert peaks[0, label, x, y] == expected


def test_centres_are_offsets_from_the_cells_of_the_queries(small: Make) -> None:
    net = small().eval()
    for parameter in net.bbox_head.prediction_heads[0]["center"][1].parameters():
        torch.nn.init.zeros_(parameter)
    out = net.forward_bev(torch.randn(1, 16, 8, 8))
    cells = out["codes"][0, 0, :, :2]
    assert torch.equal(cells - cells.floor(), torch.full_like(cells, 0.5))
    score = out["heatmap"].sigmoid()[0, out["query_labels"][0], cells[:, 0].long(), cells[:, 1].long()]
    actual = out["query_heatmap_score"][0].gather(0, out["query_labels"])[0]
    torch.testing.assert_close(torch.where(actual > 0, score, 0.0), actual)
    assert (actual > 0).sum() >= 3


def test_scores_are_products_and_boxes_out_of_range_are_none(small: Make) -> None:
    bev = torch.randn(1, 16, 8, 8)
    out = small().eval().forward_bev(bev)
    own = out["query_labels"][..., None]
    expected = out["cls_logits"][-1].sigmoid().gather(2, own) * out["query_heatmap_score"].transpose(1, 2).gather(
        2, own
    )
    torch.testing.assert_close(out["scores"], expected[..., 0])
    inside = (out["boxes"][..., 0] >= 0) & (out["scores"] > 0)
    cut = small(post_range=(0, -99, -99, 99, 99, 99)).eval().forward_bev(bev)
    assert torch.equal(cut["labels"], torch.where(inside, out["query_labels"], -1))
    assert 0 < inside.sum() < 12


def test_coder_inverts_itself() -> None:
    coder = BoxCoder((0.1, 0.2, 0.2), (-10, -20, -5, 10, 20, 3), 8)
    box = torch.tensor([1.0, 2.0, -0.5, 4.0, 2.0, 1.5, 2.5, 0.3, -0.2])
    code = coder.encode(box)
    torch.testing.assert_close(code[:3], torch.tensor([11 / 0.8, 22 / 1.6, -0.5]))
    torch.testing.assert_close(coder.decode(code), box)
    assert to_bottom(box)[2] == -0.5 - 0.75


def test_prior_lowers_the_first_heat_map(small: Make) -> None:
    net = small(head={"heatmap_bias": -2.19})
    assert (net.bbox_head.heatmap_head[1].bias == -2.19).all()
    assert (net.bbox_head.prediction_heads[0]["heatmap"][1].bias == -2.19).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": {"num_proposals": 1000}}, "num_proposals=1000"),
        ({"head": {"point_classes": (3,)}}, "point_classes"),
        ({"head": {"num_heads": 3}}, "num_heads=3"),
        ({"head": {"nms_kernel": 2}}, "nms_kernel=2"),
        ({"second_strides": (2, 2)}, "second_strides"),
        ({"point_cloud_range": (-6.0, -6.4, -2.0, 6.0, 6.4, 2.0)}, "30 x 32 voxels"),
        ({"fpn_channels": (8,)}, "SECONDFPN"),
    ],
)
def test_sizes_that_do_not_fit_are_named(small: Make, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_onnx_of_the_dense_part(small: Make, tmp_path: Path) -> None:
    net = DensePart(small()).eval()
    bev = torch.randn(1, 16, 8, 8)
    expected = net(bev)
    path = tmp_path / "dense.onnx"
    torch.onnx.export(net, (bev,), path, dynamo=True, input_names=["bev"], output_names=list(expected), verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    actual = session.run(list(expected), {"bev": bev.numpy()})
    for name, value in zip(expected, actual):
        np.testing.assert_allclose(value, expected[name].detach().numpy(), atol=1e-4, rtol=1e-4, err_msg=name)

"""The detector: outputs in training and evaluation, attention masks, names of parameters, errors."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from kd_runner.distillation.features import FeatureExtractor
from kd_runner.distillation.student import share_modules
from kd_runner.losses.orion_detection import OrionDetectionLoss
from kd_runner.losses.orion_map import OrionMapLoss
from kd_runner.models.orion.detector import Orion
from kd_runner.models.orion.eva_vit import EvaViT

Build = Callable[..., Orion]
Frame = dict[str, Tensor]


def detect(net: Orion, frame: Frame) -> dict[str, Tensor]:
    return net(frame["images"], frame["lidar2img"])


def test_shapes_in_training(small: Build, frame: Frame) -> None:
    outputs = small().train()(**frame)
    shapes = {name: tuple(value.shape) for name, value in outputs.items()}
    assert shapes == {
        "logits": (2, 2, 9, 9), "codes": (2, 2, 9, 10),
        "dn_logits": (2, 2, 9, 9), "dn_codes": (2, 2, 9, 10),
        "dn_boxes": (2, 9, 9), "dn_labels": (2, 9), "dn_mask": (2, 9),
        "line_logits": (2, 2, 4, 6), "lines": (2, 2, 4, 3, 3),
        "line_logits_one2many": (2, 2, 8, 6), "lines_one2many": (2, 2, 8, 3, 3),
        "boxes": (2, 10, 9), "scores": (2, 10), "labels": (2, 10),
        "line_points": (2, 4, 3, 3), "line_scores": (2, 4), "line_labels": (2, 4),
    }  # fmt: skip


def test_training_outputs_are_empty_in_evaluation(small: Build, frame: Frame) -> None:
    net = small().eval()
    outputs, plain = net(**frame), detect(net, frame)
    for name in ("dn_logits", "dn_codes", "line_logits_one2many", "lines_one2many"):
        assert outputs[name].shape[2] == 0
    for name in ("dn_boxes", "dn_labels", "dn_mask"):
        assert outputs[name].shape[1] == 0
    assert all(torch.equal(outputs[name], plain[name]) for name in outputs)  # the ground truth changes nothing


def test_denoising_and_one_to_many_queries_do_not_change_the_others(small: Build, frame: Frame) -> None:
    net = small(dropout=0.0)
    trained, plain = net.train()(**frame), detect(net.eval(), frame)
    for name in ("logits", "codes", "line_logits", "lines"):
        torch.testing.assert_close(trained[name], plain[name])


def test_padding_of_the_ground_truth_does_not_change_denoising_queries(small: Build, frame: Frame) -> None:
    net = small().train()
    torch.manual_seed(5)
    first = net(**frame)
    other = frame | {"gt_boxes": frame["gt_boxes"].masked_fill(~frame["gt_mask"][..., None], 3.0)}
    torch.manual_seed(5)
    second = net(**other)
    mask = first["dn_mask"]
    torch.testing.assert_close(first["dn_codes"][:, mask], second["dn_codes"][:, mask])


def test_predictions_lie_within_the_range(small: Build, frame: Frame) -> None:
    outputs = detect(small(pc_range=(-4.0, -3, -2, 4, 3, 2)).eval(), frame)
    for points in (outputs["codes"][..., :3], outputs["lines"]):
        assert (points.abs() <= torch.tensor([4.0, 3, 2])).all()


def test_a_query_starts_at_its_reference_point(small: Build, frame: Frame) -> None:
    net = small().eval()
    for branch in (net.pts_bbox_head.reg_branches[0], net.map_head.reg_branches[0]):
        nn.init.zeros_(branch[-1].weight)
        nn.init.zeros_(branch[-1].bias)
    outputs, head = detect(net, frame), net.pts_bbox_head
    unit = torch.cat((head.reference_points.weight, head.pseudo_reference_points.weight))
    low, high = head.bounds[:3], head.bounds[3:]
    torch.testing.assert_close(outputs["codes"][1, 0, :, :3], low + unit * (high - low), atol=1e-3, rtol=0)


def test_only_position_init_queries_depend_on_their_position(small: Build, frame: Frame) -> None:
    """With identical tokens, the result of cross-attention does not depend on where a query attends."""
    blank = {**frame, "images": torch.zeros_like(frame["images"])}
    for position_init in (False, True):
        net = small(position_init_queries=position_init, num_propagated=0, memory_length=0).eval()
        spread = detect(net, blank)["logits"][-1, 0].std(dim=0).max().item()
        assert (spread > 1e-3) if position_init else (spread < 1e-5)


def test_each_camera_uses_its_own_matrix(small: Build, frame: Frame) -> None:
    net = small().eval()
    swapped = {name: frame[name].flip(1) for name in ("images", "lidar2img")}
    torch.testing.assert_close(detect(net, swapped)["codes"], detect(net, frame)["codes"], atol=1e-4, rtol=1e-4)
    only = net(frame["images"].flip(1), frame["lidar2img"])
    assert not torch.allclose(only["codes"], detect(net, frame)["codes"], atol=1e-3)


def test_every_trained_parameter_gets_a_gradient(small: Build, frame: Frame) -> None:
    net = small().train()
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)  # weights that start at zero block gradients
    outputs = net(**frame)
    lines = torch.rand(2, 4, 3, 2), torch.zeros(2, 4).long(), torch.tensor([[True] * 4, [False] * 4])
    truth = {name: frame[name] for name in ("gt_boxes", "gt_labels", "gt_mask")}
    boxes = {name: outputs[name] for name in ("logits", "codes", *(n for n in outputs if n.startswith("dn_")))}
    many = {name: outputs[name] for name in ("line_logits_one2many", "lines_one2many")}
    total = OrionDetectionLoss()(**boxes, **truth) + OrionMapLoss(one_to_many=2)(
        outputs["line_logits"], outputs["lines"], *lines, **many
    )
    total.backward()
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().max() > 0, name


def test_parameter_counts_are_the_public_ones() -> None:
    with torch.device("meta"):
        net = Orion(EvaViT())

    def count(*modules: nn.Module) -> int:
        return sum(p.numel() for p in {p for m in modules for p in m.parameters()})

    shared = (net.query_pos, net.time_embedding, net.ego_pose_pe)
    assert count(net.img_backbone) == 303_388_608
    assert count(net.position_encoder) == 460_032
    assert count(*shared) == 405_504
    # 256 scene tokens of 256 channels are left out of both heads.
    assert count(net.pts_bbox_head) - count(*shared) == 10_072_223 - 256 * 256
    assert count(net.map_head) - count(*shared) == 10_539_050 - 256 * 256
    assert (net.position_range.shape, net.coords_d.shape) == ((6,), (64,))


def test_parameter_names_are_those_of_public_checkpoints(small: Build) -> None:
    names = set(small().state_dict())
    layer = "transformer.query_decoder._layers.1.transformer_layers"
    for head in ("pts_bbox_head", "map_head"):
        for key in (
            f"{layer}.0.attn.in_proj_weight", f"{layer}.0.attn.out_proj.bias", f"{layer}.1.weight",
            f"{layer}.2.attn.in_proj_bias", f"{layer}.4._layers.0.weight", f"{layer}.4._layers.3.bias",
            f"{layer}.5.bias", "cls_branches.1.6.weight", "cls_branches.0.1.weight", "reg_branches.1.4.bias",
            "input_projection.weight", "query_pos.2.weight", "time_embedding.1.weight", "ego_pose_pe.reduce.0.weight",
            "ego_pose_pe.gamma.bias",
        ):  # fmt: skip
            assert f"{head}.{key}" in names
    for key in ("position_range", "coords_d", "position_encoder.2.bias", "query_pos.0.weight", "ego_pose_pe.beta.bias"):
        assert key in names
    for key in ("reference_points", "pseudo_reference_points"):
        assert f"pts_bbox_head.{key}.weight" in names
    for key in ("reference_points_lane.bias", "points_embedding_lane.weight", "instance_embedding_lane.weight"):
        assert f"map_head.{key}" in names


def test_errors_name_the_argument(small: Build, frame: Frame) -> None:
    with pytest.raises(ValueError, match="gt_labels and gt_mask"):
        small().train()(frame["images"], frame["lidar2img"], gt_boxes=frame["gt_boxes"])
    with pytest.raises(ValueError, match=r"stride: .*\(16, 24\) px give 2 x 3 patches, not of 4 px"):
        detect(small(stride=4), frame)
    with pytest.raises(ValueError, match=r"num_propagated: .*memory_length=5, got 9"):
        small(num_propagated=9)


def test_a_student_with_frozen_heads_gets_one_to_many_lines(small: Build, frame: Frame) -> None:
    """Frozen modules stay in evaluation mode while the student trains."""
    teacher, names = small(backbone=nn.Sequential(nn.Conv2d(3, 8, 8, stride=8))), {name: name for name in frame}
    net = FeatureExtractor(small(backbone=nn.Sequential(nn.Conv2d(3, 8, 8, stride=8))), inputs=names, features={})
    share_modules(net, "img_backbone", teacher)
    net.net.train()
    for module in net.frozen:
        module.eval()
    outputs = net.net(**frame)
    assert outputs["line_logits_one2many"].shape[2] == outputs["lines_one2many"].shape[2] == 8
    assert detect(net.net.eval(), frame)["lines_one2many"].shape[2] == 0

"""The published sizes, the composition of the classes, and ROIs that leave each other alone."""

import pytest
import torch
from torch import Tensor, nn

from kd_runner.models.hierarchical_unet.system import HierarchicalUNet, _boxes

MINI = {"encoder_depth": 3, "decoder_channels": (16, 8, 8), "roi_size": (10, 8), "mask_size": (20, 16), "roi_width": 32}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module")
def net() -> HierarchicalUNet:
    torch.manual_seed(0)
    return HierarchicalUNet("tu-mobilenetv3_small_050", **MINI).eval()


def inputs() -> dict[str, Tensor]:
    torch.manual_seed(1)
    low = torch.rand(2, 3, 2) * 0.5
    mask = torch.tensor([[True, False, True], [True, True, False]])
    rois = torch.cat([low, low + 0.2 + 0.3 * torch.rand(2, 3, 2)], -1)
    rois[~mask] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    return {"image": torch.randn(2, 3, 32, 48), "rois": rois, "roi_mask": mask}


@pytest.mark.parametrize(
    ("encoder", "width", "unet", "whole"),
    [
        ("timm-efficientnet-b3", 256, 13_159_033, 26_903_400),
        ("timm-efficientnet-b0", 256, 6_251_469, 19_995_836),
        ("timm-efficientnet-b0", 128, 6_251_469, 9_694_844),
    ],
)
def test_sizes_are_the_published_ones(encoder: str, width: int, unet: int, whole: int) -> None:
    net = HierarchicalUNet(encoder, roi_width=width)
    assert (count(net.unet), count(net)) == (unet, whole)
    assert width != 256 or (count(net.rgb), count(net.combine), count(net.head)) == (1_988_992, 66_304, 11_689_067)


def test_classes_are_composed_from_the_branches(net: HierarchicalUNet) -> None:
    out = net(**inputs())
    a, b = out["bg_fg"], out["target_nontarget"]
    p = a[:, 1].exp() / a.exp().sum(1)
    expected = torch.stack([a[:, 0], a[:, 1] + p * b[:, 0], a[:, 1] + p * b[:, 1]], 1)
    torch.testing.assert_close(out["logits"], expected)
    assert torch.equal(out["masks"], expected.argmax(1) == 1)
    shapes = {name: tuple(value.shape[:2]) for name, value in out.items() if name not in ("image_logits", "masks")}
    channels = {"logits": 3, "bg_fg": 2, "target_nontarget": 2, "contour": 1, "distance": 1, "distance_mask": 1}
    assert shapes == {name: (4, number) for name, number in channels.items()}


def test_channel_one_is_the_foreground_from_the_start(net: HierarchicalUNet) -> None:
    image = inputs()["image"]
    score = net.unet(image)
    torch.testing.assert_close(net.bg_fg(score), torch.cat([-score, score], 1))


def test_padding_is_left_out_and_has_no_say(net: HierarchicalUNet) -> None:
    given = inputs()
    packed, every = net(**given), net(given["image"], given["rois"])
    keep = given["roi_mask"].flatten()
    for name in packed:
        rows = every[name] if name == "image_logits" else every[name][keep]
        torch.testing.assert_close(packed[name], rows, rtol=1e-4, atol=1e-5)
    assert len(every["logits"]) == 6


def test_boxes_are_shares_of_width_and_height(net: HierarchicalUNet) -> None:
    """Cutting a ramp in x (and y) gives the positions of the box's cells, in pixels less the half of the center."""
    x = torch.arange(48.0).expand(32, 48)
    y = torch.arange(32.0)[:, None].expand(32, 48)
    image = torch.stack([x, y])[None]
    cut = net._cut(image, _boxes(torch.tensor([[[0.25, 0.5, 0.75, 0.875]]]), image))[0]
    torch.testing.assert_close(cut[0, 0], 12 + (torch.arange(8) + 0.5) * 24 / 8 - 0.5)
    torch.testing.assert_close(cut[1, :, 0], 16 + (torch.arange(10) + 0.5) * 12 / 10 - 0.5)


def test_all_that_is_trainable_gets_a_gradient() -> None:
    """Else DDP would wait: encoders bring layers that only their classifier needs."""
    net = HierarchicalUNet("timm-efficientnet-b0", **MINI)
    out = net(**inputs())
    sum(value.sum() for name, value in out.items() if name != "distance").backward()  # its mask reads it
    assert [name for name, p in net.named_parameters() if p.requires_grad and p.grad is None] == []
    assert not net.unet.encoder.conv_head.weight.requires_grad


def test_building_leaves_no_trace() -> None:
    """The pass that finds unread layers must not move batch statistics."""
    net = HierarchicalUNet("tu-mobilenetv3_small_050", **MINI)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(int(m.num_batches_tracked) == 0 and m.training for m in norms)
    assert all(p.grad is None for p in net.parameters())


def test_a_batch_without_rois_is_refused(net: HierarchicalUNet) -> None:
    given = inputs()
    with pytest.raises(ValueError, match="no ROI"):
        net(given["image"], given["rois"], torch.zeros(2, 3, dtype=torch.bool))


@pytest.mark.parametrize(
    ("change", "message"), [({"roi_width": 40}, "roi_width=40"), ({"encoder_name": "resnet_x"}, "resnet_x")]
)
def test_what_does_not_fit_is_named(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HierarchicalUNet(**{"encoder_name": "tu-mobilenetv3_small_050", **MINI, **change})

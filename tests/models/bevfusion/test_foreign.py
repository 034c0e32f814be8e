"""Public layouts, built from a net of this package by the rules backwards, load into a second, equal net."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kd_runner.models.bevfusion import BEVFusionLidar
from kd_runner.models.bevfusion.foreign import convert, kernel_layout

Make = Callable[..., BEVFusionLidar]
# Axes that bring (out, k0, k1, k2, in) to the layout.
TO_LAYOUT = {"KRSC": (0, 1, 2, 3, 4), "RSCK": (1, 2, 3, 4, 0), "RSKC": (1, 2, 3, 0, 4)}
TO_MIT = (
    ("pts_middle_encoder.", "encoders.lidar.backbone."),
    ("pts_backbone.", "decoder.backbone."),
    ("pts_neck.", "decoder.neck."),
    ("bbox_head.", "heads.object."),
    (".self_attn.attn.", ".self_attn."),
    (".cross_attn.attn.", ".multihead_attn."),
    (".ffn.layers.0.0.", ".linear1."),
    (".ffn.layers.1.", ".linear2."),
    (".norms.0.", ".norm1."),
    (".norms.1.", ".norm2."),
    (".norms.2.", ".norm3."),
)


def foreign(net: BEVFusionLidar, mit: bool, layout: str) -> dict[str, Tensor]:
    state = {}
    for name, tensor in net.state_dict().items():
        if mit:
            for own, foreign in TO_MIT:
                name = name.replace(own, foreign)
        if mit and name.endswith(("dim.1.weight", "dim.1.bias")):
            tensor = tensor[[1, 0, 2]]
        if mit and name.endswith(("rot.1.weight", "rot.1.bias")):
            tensor = -tensor.flip(0)
        state[name] = tensor.permute(TO_LAYOUT[layout]).contiguous() if tensor.ndim == 5 else tensor
    return state


@pytest.mark.parametrize("mit", [False, True])
@pytest.mark.parametrize("layout", list(TO_LAYOUT))
def test_same_outputs_from_each_layout(small: Make, cloud: dict[str, Tensor], mit: bool, layout: str) -> None:
    source, target = small(seed=1).eval(), small(seed=2).eval()
    state = foreign(source, mit, layout) | {"img_backbone.conv1.weight": torch.zeros(1)}
    target.load_state_dict(convert(state))
    expected, actual = source(**cloud), target(**cloud)
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


def test_published_names_and_shapes() -> None:
    """Keys of the public checkpoint, as its state dict lists them."""
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in BEVFusionLidar().state_dict().items()}
    published = {
        "pts_middle_encoder.conv_input.0.weight": (16, 3, 3, 3, 5),
        "pts_middle_encoder.encoder_layers.encoder_layer4.1.conv2.weight": (128, 3, 3, 3, 128),
        "pts_middle_encoder.encoder_layers.encoder_layer3.2.0.weight": (128, 3, 3, 3, 64),
        "pts_middle_encoder.encoder_layers.encoder_layer1.2.1.running_var": (32,),
        "pts_middle_encoder.conv_out.0.weight": (128, 1, 1, 3, 128),
        "pts_backbone.blocks.1.0.weight": (256, 128, 3, 3),
        "pts_backbone.blocks.0.15.weight": (128, 128, 3, 3),
        "pts_neck.deblocks.1.0.weight": (256, 256, 2, 2),
        "bbox_head.heatmap_head.0.bn.bias": (128,),
        "bbox_head.heatmap_head.1.weight": (10, 128, 3, 3),
        "bbox_head.decoder.0.cross_attn.attn.in_proj_weight": (384, 128),
        "bbox_head.decoder.0.ffn.layers.0.0.weight": (256, 128),
        "bbox_head.decoder.0.cross_posembed.position_embedding_head.3.weight": (128, 128, 1),
        "bbox_head.prediction_heads.0.vel.1.weight": (2, 64, 1),
    }
    assert {name: shapes.get(name) for name in published} == published


def test_what_is_no_lidar_net_is_refused(small: Make) -> None:
    state = small().state_dict()
    with pytest.raises(ValueError, match="lidar-camera"):
        convert(state | {"fuser.0.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="no lidar-only BEVFusion"):
        convert({"layer.weight": torch.zeros(1)})


def test_a_square_first_kernel_is_ambiguous() -> None:
    assert kernel_layout(torch.zeros(3, 3, 3, 5, 16), 16) == "RSCK"
    with pytest.raises(ValueError, match="RSCK and RSKC"):
        kernel_layout(torch.zeros(3, 3, 3, 5, 5), 5)

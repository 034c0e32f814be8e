"""Conversion of public checkpoints of the LiDAR-only net to `BEVFusionLidar`: names, kernel layouts, box codes."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

PARTS = ("pts_middle_encoder.", "pts_backbone.", "pts_neck.", "bbox_head.")
# mit-han-lab/bevfusion to mmdetection3d.
MIT_PARTS = {
    "encoders.lidar.backbone.": "pts_middle_encoder.",
    "decoder.backbone.": "pts_backbone.",
    "decoder.neck.": "pts_neck.",
    "heads.object.": "bbox_head.",
}
MIT_DECODER = {
    r"^self_attn\.(?!attn\.)": "self_attn.attn.",
    r"^multihead_attn\.": "cross_attn.attn.",
    r"^linear1\.": "ffn.layers.0.0.",
    r"^linear2\.": "ffn.layers.1.",
    r"^norm1\.": "norms.0.",
    r"^norm2\.": "norms.1.",
    r"^norm3\.": "norms.2.",
}
MIT_DIM = re.compile(r"bbox_head\.prediction_heads\.\d+\.dim\.1\.(weight|bias)")
MIT_ROT = re.compile(r"bbox_head\.prediction_heads\.\d+\.rot\.1\.(weight|bias)")
FUSION = ("fusion_layer.", "fuser.")
FIRST_KERNEL, FIRST_NORM = "pts_middle_encoder.conv_input.0.weight", "pts_middle_encoder.conv_input.1.weight"
# Axes that bring a kernel to (out, k0, k1, k2, in).
LAYOUTS = {"KRSC": (0, 1, 2, 3, 4), "RSCK": (4, 0, 1, 2, 3), "RSKC": (3, 0, 1, 2, 4)}


def convert(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict for `BEVFusionLidar` from one of mmdetection3d, of mit-han-lab/bevfusion, or of this package.

    Sparse kernels may be stored as in spconv 2.2 and later (KRSC), in spconv 1 and mmcv (RSCK) or in spconv 2.0 (RSKC).
    Tensors of other parts (cameras, optimizer) are left out.

    mit-han-lab/bevfusion regresses (log w, log l, log h) and the sine and cosine of yaw' = -yaw - pi/2. The last layers
    of its branches `dim` and `rot` are changed so that they give (log l, log w, log h) and

        sin(yaw) = -cos(yaw'),   cos(yaw) = -sin(yaw').

    Args:
        tensors: names and tensors of the checkpoint.

    Returns:
        Names and tensors in the layout of `BEVFusionLidar`.

    Raises:
        ValueError: no LiDAR net is inside; a LiDAR-camera checkpoint, whose head reads fused features; an unknown
            layout of kernels.
    """
    fused = next((name for name in tensors if name.startswith(FUSION)), None)
    if fused:
        raise ValueError(f"{fused}: a lidar-camera checkpoint, whose head expects fused maps; take a lidar-only one")
    converted = {}
    for foreign, tensor in tensors.items():
        foreign = foreign.removeprefix("module.")
        name = _rename(foreign)
        if foreign.startswith(tuple(MIT_PARTS)):
            tensor = _turn_boxes(name, tensor)
        if name.startswith(PARTS):
            converted[name] = tensor
    if FIRST_KERNEL not in converted or FIRST_NORM not in converted:
        raise ValueError(f"no lidar-only BEVFusion: {FIRST_KERNEL} and {FIRST_NORM} are missing")
    axes = LAYOUTS[kernel_layout(converted[FIRST_KERNEL], len(converted[FIRST_NORM]))]
    return {
        name: tensor.permute(axes).contiguous() if name.startswith(PARTS[0]) and tensor.ndim == 5 else tensor
        for name, tensor in converted.items()
    }


def kernel_layout(kernel: Tensor, out_channels: int) -> str:
    """Layout of the encoder's first kernel, the only one whose numbers of input and output channels always differ.

    Args:
        kernel: the kernel, 5 dimensions.
        out_channels: its number of output channels.

    Returns:
        A key of `LAYOUTS`.

    Raises:
        ValueError: none fits, or two do.
    """
    fitting = []
    for layout, axes in LAYOUTS.items():
        if kernel.ndim == 5:
            out, *window, _ = (kernel.shape[axis] for axis in axes)
            if out == out_channels and window == [3, 3, 3]:
                fitting.append(layout)
    if len(fitting) != 1:
        raise ValueError(
            f"{FIRST_KERNEL} {tuple(kernel.shape)} with {out_channels} output channels: "
            f"{' and '.join(fitting) or 'no known layout'} fits; expected one of {', '.join(LAYOUTS)}"
        )
    return fitting[0]


def _turn_boxes(name: str, tensor: Tensor) -> Tensor:
    """Rows of mit-han-lab's `dim.1` and `rot.1` for this package's box convention; other tensors unchanged."""
    if MIT_DIM.fullmatch(name):
        return tensor[[1, 0, 2]]
    if MIT_ROT.fullmatch(name):
        return torch.stack((-tensor[1], -tensor[0]))
    return tensor


def _rename(name: str) -> str:
    for foreign, own in MIT_PARTS.items():
        if name.startswith(foreign):
            name = own + name.removeprefix(foreign)
    head, layer, rest = re.match(r"(bbox_head\.decoder\.)?(\d+\.)?(.*)", name).groups("")  # type: ignore[union-attr]
    if not (head and layer):
        return name
    for pattern, replacement in MIT_DECODER.items():
        rest = re.sub(pattern, replacement, rest)
    return head + layer + rest

"""Auxiliary supervision of image tokens: the class and the position of the object that a token shows.

It trains a backbone from random weights beside a query detector, like the image head that StreamPETR trains with its
ViT (Wang et al. 2022, "Focal-PETR", arXiv 2212.05505).
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from kd_runner.geometry.boxes3d import corners, to_bench2drive

_MIN_DEPTH_M = 0.3  # boxes that reach closer to a camera are not projected
_MAX_OFFSET = 4.0  # tokens; the center of an object is clamped to this distance from the token


class TokenTargets(NamedTuple):
    """Targets of the image tokens, for N cameras.

    Attributes:
        shown: `(B, N, rows, columns)` bool, the token shows an object.
        object_index: `(B, N, rows, columns)`, number of the object among the M of the sample.
        codes: `(B, N, rows, columns, 6)`: column and row of the projected center in tokens, 3 log(depth in meters),
            log(width), log(length), log(height).
    """

    shown: Tensor
    object_index: Tensor
    codes: Tensor


class ImageObjects(nn.Module):
    """Focal loss of token classes plus L1 of position codes, by a linear head on the image tokens.

        loss = (sum over tokens of focal + code_weight * sum over object tokens of |code - target|) / object tokens

    Each token has the class of the nearest object whose projected box touches it. The position target is absolute in
    the image, not relative to the token, so that features carry it to a decoder whose values have no position. The
    head is part of the loss, not of the net.

    Args:
        num_classes: number of classes.
        code_weight: weight of the position codes.
    """

    def __init__(self, num_classes: int, code_weight: float = 0.3):
        super().__init__()
        self.num_classes, self.code_weight = num_classes, code_weight
        self.head: nn.Module = nn.Identity()

    def build(self, features: Tensor, **_: Tensor) -> None:
        """Create the linear head, sized from example features.

        Args:
            features: as for `forward`.
            **_: the other arguments of `forward`, not used.
        """
        self.head = nn.Linear(features.shape[1], self.num_classes + 6)
        nn.init.constant_(self.head.bias[: self.num_classes], -3.0)  # type: ignore[index]

    def forward(
        self, features: Tensor, images: Tensor, lidar2img: Tensor, gt_boxes: Tensor, gt_labels: Tensor, gt_mask: Tensor
    ) -> Tensor:
        """Compute the loss.

        Args:
            features: `(B * N, C, rows, columns)` of N cameras.
            images: `(B, N, 3, H, W)`; only the size is used.
            lidar2img: `(B, N, 4, 4)`, LiDAR frame to pixels.
            gt_boxes: `(B, M, 9)`, as in `geometry.boxes3d`.
            gt_labels: `(B, M)`.
            gt_mask: `(B, M)` bool, False for padding.

        Returns:
            Scalar.
        """
        outputs = self.head(features.permute(0, 2, 3, 1)).unflatten(0, images.shape[:2])
        logits, codes = outputs.float().split((self.num_classes, 6), dim=-1)
        targets = token_targets(gt_boxes.float(), gt_mask, lidar2img, images.shape[-2:], features.shape[-2:])
        sample = torch.arange(len(images), device=images.device)[:, None, None, None]
        classes = (
            F.one_hot(gt_labels[sample, targets.object_index].clamp(min=0), self.num_classes) * targets.shown[..., None]
        )
        count = targets.shown.sum().clamp(min=1)
        focal = sigmoid_focal_loss(logits, classes.float(), alpha=0.5).sum()
        distance = ((codes - targets.codes).abs().sum(-1) * targets.shown).sum()
        return (focal + self.code_weight * distance) / count


@torch.no_grad()
def token_targets(boxes: Tensor, mask: Tensor, lidar2img: Tensor, size: torch.Size, grid: torch.Size) -> TokenTargets:
    """Project boxes onto the token grids of the cameras.

    Args:
        boxes: `(B, M, 9)`, as in `geometry.boxes3d`.
        mask: `(B, M)` bool, False for padding.
        lidar2img: `(B, N, 4, 4)`, LiDAR frame to pixels.
        size: height and width of an image in pixels.
        grid: rows and columns of tokens.

    Returns:
        What each token should say.
    """
    points = torch.cat((corners(boxes), boxes[..., None, :3]), dim=-2)  # eight corners and the center
    pixel = torch.einsum("bnij,bmkj->bnmki", lidar2img[..., :3, :3], points) + lidar2img[:, :, None, None, :3, 3]
    depth = pixel[..., 2]
    pixel = pixel[..., :2] / depth.clamp(min=_MIN_DEPTH_M)[..., None]
    visible = (depth > _MIN_DEPTH_M).all(-1) & mask[:, None]
    stride = torch.tensor([size[1] / grid[1], size[0] / grid[0]], device=boxes.device)
    low = pixel[..., :8, :].amin(-2) / stride
    high = pixel[..., :8, :].amax(-2) / stride
    center = pixel[..., 8, :] / stride
    columns, rows = (torch.arange(n, device=boxes.device) for n in (grid[1], grid[0]))
    touches_column = (high[..., :1] > columns) & (low[..., :1] < columns + 1)
    touches_row = (high[..., 1:] > rows) & (low[..., 1:] < rows + 1)
    touched = touches_row[..., :, None] & touches_column[..., None, :] & visible[..., None, None]
    nearest = depth[..., 8, None, None].expand_as(touched).masked_fill(~touched, math.inf).min(dim=2)

    sample = torch.arange(len(boxes), device=boxes.device)[:, None, None, None]
    camera = torch.arange(lidar2img.shape[1], device=boxes.device)[None, :, None, None]
    token_center = torch.stack(torch.meshgrid(rows + 0.5, columns + 0.5, indexing="ij")[::-1], dim=-1)
    offset = (center[sample, camera, nearest.indices] - token_center).clamp(-_MAX_OFFSET, _MAX_OFFSET)
    log_depth = 3 * nearest.values.clamp(_MIN_DEPTH_M, 100.0).log()[..., None]
    width_length_height = to_bench2drive(boxes)[sample, nearest.indices, 3:6]
    codes = torch.cat((token_center + offset, log_depth, width_length_height.clamp(min=0.05).log()), dim=-1)
    return TokenTargets(nearest.values.isfinite(), nearest.indices, codes)

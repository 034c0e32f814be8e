"""Supervision of image tokens by what stands there, beside a query detector: it teaches the backbone to see.

After the image head that StreamPETR trains along with its ViT (Wang et al. 2022, Focal-PETR, arXiv 2212.05505): every
token gets the class of the nearest object whose projected box touches it, and where that object's center lies. That
place is told in the picture, not from the token, so that features carry it to a decoder whose values have no position.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from kd_runner.geometry.boxes3d import corners, to_bench2drive

_NEAR_M = 0.3  # objects that reach nearer to a camera are not projected
_REACH = 4.0  # tokens: centers farther from the token are taken to be there


class Tokens(NamedTuple):
    """What tokens (B, N, rows, columns) show: whether an object, which of the M, and the code of its place (..., 6):
    column and row of its center in tokens, 3 log of its depth in m, logarithms of width, length and height.
    """

    shown: Tensor
    which: Tensor
    codes: Tensor


class ImageObjects(nn.Module):
    """Focal loss of the tokens' classes, plus `code_weight` times L1 of the places, both over tokens with an object.

    Args:
        num_classes: of objects.
        code_weight: of the places.
    """

    def __init__(self, num_classes: int, code_weight: float = 0.3):
        super().__init__()
        self.num_classes, self.code_weight = num_classes, code_weight
        self.head: nn.Module = nn.Identity()

    def build(self, features: Tensor, **_: Tensor) -> None:
        """The linear head, from an example map."""
        self.head = nn.Linear(features.shape[1], self.num_classes + 6)
        nn.init.constant_(self.head.bias[: self.num_classes], -3.0)  # type: ignore[index]

    def forward(
        self, features: Tensor, images: Tensor, lidar2img: Tensor, gt_boxes: Tensor, gt_labels: Tensor, gt_mask: Tensor
    ) -> Tensor:
        """Scalar.

        Args:
            features: `(B * N, C, rows, columns)` of N cameras.
            images: `(B, N, 3, H, W)`, for their size; lidar2img `(B, N, 4, 4)` to their pixels.
            gt_boxes: `(B, M, 9)` as in `geometry.boxes3d`; gt_labels, gt_mask `(B, M)`, the mask False for padding.
        """
        found = self.head(features.permute(0, 2, 3, 1)).unflatten(0, images.shape[:2])
        logits, codes = found.float().split((self.num_classes, 6), dim=-1)
        wanted = tokens(gt_boxes.float(), gt_mask, lidar2img, images.shape[-2:], features.shape[-2:])
        sample = torch.arange(len(images), device=images.device)[:, None, None, None]
        classes = F.one_hot(gt_labels[sample, wanted.which].clamp(min=0), self.num_classes) * wanted.shown[..., None]
        count = wanted.shown.sum().clamp(min=1)
        focal = sigmoid_focal_loss(logits, classes.float(), alpha=0.5).sum()
        away = ((codes - wanted.codes).abs().sum(-1) * wanted.shown).sum()
        return (focal + self.code_weight * away) / count


@torch.no_grad()
def tokens(boxes: Tensor, mask: Tensor, lidar2img: Tensor, size: torch.Size, grid: torch.Size) -> Tokens:
    """Boxes `(B, M, 9)` through `lidar2img (B, N, 4, 4)` onto tokens; `size` and `grid` are height and width in pixels
    and in tokens.
    """
    points = torch.cat((corners(boxes), boxes[..., None, :3]), dim=-2)  # the center is the last of nine
    pixel = torch.einsum("bnij,bmkj->bnmki", lidar2img[..., :3, :3], points) + lidar2img[:, :, None, None, :3, 3]
    depth = pixel[..., 2]
    pixel = pixel[..., :2] / depth.clamp(min=_NEAR_M)[..., None]
    visible = (depth > _NEAR_M).all(-1) & mask[:, None]
    stride = torch.tensor([size[1] / grid[1], size[0] / grid[0]], device=boxes.device)
    low, high, center = (
        pixel[..., :8, :].amin(-2) / stride,
        pixel[..., :8, :].amax(-2) / stride,
        pixel[..., 8, :] / stride,
    )
    columns, rows = (torch.arange(n, device=boxes.device) for n in (grid[1], grid[0]))
    across = (high[..., :1] > columns) & (low[..., :1] < columns + 1)
    down = (high[..., 1:] > rows) & (low[..., 1:] < rows + 1)
    touched = down[..., :, None] & across[..., None, :] & visible[..., None, None]
    nearest = depth[..., 8, None, None].expand_as(touched).masked_fill(~touched, math.inf).min(dim=2)

    sample = torch.arange(len(boxes), device=boxes.device)[:, None, None, None]
    camera = torch.arange(lidar2img.shape[1], device=boxes.device)[None, :, None, None]
    middle = torch.stack(torch.meshgrid(rows + 0.5, columns + 0.5, indexing="ij")[::-1], dim=-1)
    place = middle + (center[sample, camera, nearest.indices] - middle).clamp(-_REACH, _REACH)
    far = 3 * nearest.values.clamp(_NEAR_M, 100.0).log()[..., None]
    sizes = to_bench2drive(boxes)[sample, nearest.indices, 3:6]  # width, length, height
    codes = torch.cat((place, far, sizes.clamp(min=0.05).log()), dim=-1)
    return Tokens(nearest.values.isfinite(), nearest.indices, codes)

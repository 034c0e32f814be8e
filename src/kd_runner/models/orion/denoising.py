"""Noisy copies of true boxes as extra queries of the detection head.

DN-DETR (Li et al. 2022, arXiv 2203.01305), in the form of StreamPETR: only centers get noise, and a copy that was moved
too far is to be recognised as background.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kd_runner.geometry.boxes3d import to_bench2drive
from kd_runner.models.orion.positions import to_unit


@dataclass(frozen=True)
class NoisyCopies:
    """`Q` = groups * objects of the fullest frame. `references (B, Q, 3)` in 0..1; what to find: `boxes (B, Q, 9)`,
    `labels (B, Q)` (number of classes for background); `mask (B, Q)`, False for padding; `groups (Q,)`.
    """

    references: Tensor
    boxes: Tensor
    labels: Tensor
    mask: Tensor
    groups: Tensor

    def allowed(self, num_query: int, num_memory: int) -> Tensor:
        """Who sees whom, `(B, 1, Q + num_query, Q + num_query + num_memory)`: nobody sees the copies, other than real
        ones of the same group; all see the rest.
        """
        batch, copies = self.mask.shape
        same = self.groups[:, None] == self.groups[None]
        # A pad sees itself: its row must not differ in kind, and nobody reads it.
        inside = same & (self.mask[:, None, :] | torch.eye(copies, dtype=torch.bool, device=self.mask.device))
        columns = torch.cat((inside, inside.new_zeros(batch, num_query, copies)), dim=1)
        rest = inside.new_ones(batch, copies + num_query, num_query + num_memory)
        return torch.cat((columns, rest), dim=2)[:, None]


def noisy_copies(
    boxes: Tensor, labels: Tensor, mask: Tensor, *,
    num_groups: int, noise_scale: float, split: float, num_classes: int, bounds: Tensor,
) -> NoisyCopies:  # fmt: skip
    """`num_groups` copies of every box, each center moved by up to `noise_scale` half sizes: of the width along x, the
    length along y, the height along z, whatever the heading, as in the public code.

    Args:
        boxes, labels, mask: `(B, M, 9)`, `(B, M)`, `(B, M)`, the mask False for padding.
        split: copies moved by more than this share of the largest noise (length of the vector) become background.
        bounds: `(6,)` that references are relative to.
    """
    most = int(mask.sum(1).max()) if mask.numel() else 0
    first = mask.int().argsort(dim=1, descending=True, stable=True)[:, :most]
    boxes = boxes.gather(1, first[..., None].expand(-1, -1, boxes.shape[-1])).repeat(1, num_groups, 1)
    labels, mask = (x.gather(1, first).repeat(1, num_groups) for x in (labels, mask))
    noise = torch.rand_like(boxes[..., :3]) * 2 - 1
    width_length_height = to_bench2drive(boxes)[..., 3:6]
    center = boxes[..., :3] + noise * width_length_height / 2 * noise_scale
    labels = torch.where(noise.norm(dim=-1) > split, num_classes, labels)
    groups = torch.arange(num_groups, device=mask.device).repeat_interleave(most)
    return NoisyCopies(to_unit(center, bounds).clamp(0, 1), boxes, labels, mask, groups)

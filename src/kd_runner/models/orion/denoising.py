"""Denoising queries: noisy copies of the ground-truth boxes as additional queries of the detection head.

DN-DETR (Li et al. 2022, arXiv 2203.01305) as used by StreamPETR (Wang et al. 2023, arXiv 2303.11926): only centers get
noise, and a copy that is moved too far has the label background.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kd_runner.geometry.boxes3d import to_bench2drive
from kd_runner.models.orion.encodings import normalize_points


@dataclass(frozen=True)
class DenoisingQueries:
    """Q denoising queries and their targets; Q = groups * objects of the fullest sample.

    Attributes:
        references: `(B, Q, 3)`, noisy centers in 0..1.
        boxes: `(B, Q, 9)`, target boxes.
        labels: `(B, Q)`, target labels, the number of classes for background.
        mask: `(B, Q)` bool, False for padding.
        groups: `(Q,)`, number of the group.
    """

    references: Tensor
    boxes: Tensor
    labels: Tensor
    mask: Tensor
    groups: Tensor

    def attention_mask(self, num_query: int, num_memory: int) -> Tensor:
        """Attention mask: denoising queries attend to their own group, the queries and the memory.

        The other queries do not attend to denoising queries, so that these change no prediction.

        Args:
            num_query: number of the other queries.
            num_memory: number of memory entries.

        Returns:
            `(B, 1, Q + num_query, Q + num_query + num_memory)` bool, True where attention is allowed.
        """
        batch, num_denoising = self.mask.shape
        same_group = self.groups[:, None] == self.groups[None]
        # A padding query attends to itself like any other query; nothing reads its output.
        itself = torch.eye(num_denoising, dtype=torch.bool, device=self.mask.device)
        within = same_group & (self.mask[:, None, :] | itself)
        to_denoising = torch.cat((within, within.new_zeros(batch, num_query, num_denoising)), dim=1)
        to_others = within.new_ones(batch, num_denoising + num_query, num_query + num_memory)
        return torch.cat((to_denoising, to_others), dim=2)[:, None]


def denoising_queries(
    boxes: Tensor, labels: Tensor, mask: Tensor, *,
    num_groups: int, noise_scale: float, split: float, num_classes: int, bounds: Tensor,
) -> DenoisingQueries:  # fmt: skip
    """Noisy copies of every ground-truth box.

        center' = center + u * size / 2 * noise_scale, u uniform in [-1, 1]^3; background if |u| > split.

    size is the width along x, the length along y and the height along z, for any heading, as in the public code.

    Args:
        boxes: `(B, M, 9)`, ground-truth boxes.
        labels: `(B, M)`.
        mask: `(B, M)` bool, False for padding.
        num_groups: copies per box.
        noise_scale: largest displacement in half sizes.
        split: norm of the noise vector beyond which a copy has the label background.
        num_classes: label of background.
        bounds: `(6,)`, range of normalized coordinates in meters.

    Returns:
        The queries, in groups of one copy of each box.
    """
    most_objects = int(mask.sum(1).max()) if mask.numel() else 0
    objects_first = mask.int().argsort(dim=1, descending=True, stable=True)[:, :most_objects]
    boxes = boxes.gather(1, objects_first[..., None].expand(-1, -1, boxes.shape[-1])).repeat(1, num_groups, 1)
    labels, mask = (x.gather(1, objects_first).repeat(1, num_groups) for x in (labels, mask))
    noise = torch.rand_like(boxes[..., :3]) * 2 - 1
    width_length_height = to_bench2drive(boxes)[..., 3:6]
    center = boxes[..., :3] + noise * width_length_height / 2 * noise_scale
    labels = torch.where(noise.norm(dim=-1) > split, num_classes, labels)
    groups = torch.arange(num_groups, device=mask.device).repeat_interleave(most_objects)
    return DenoisingQueries(normalize_points(center, bounds).clamp(0, 1), boxes, labels, mask, groups)

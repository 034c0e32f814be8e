"""Loss of ORION's map head."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_runner.losses.functional.hungarian import match
from kd_runner.losses.functional.set_focal import focal_cost, focal_sum


class OrionMapLoss(nn.Module):
    """Set prediction loss of lines, for one-to-one and one-to-many queries.

        loss = sum over layers of (class_weight * focal + points_weight * L1) / matches
             + one_to_many_weight * (the same over the one-to-many queries)

    focal is the sum over queries and classes, L1 the sum over matched queries and coordinates in meters. Matching is
    Hungarian with the cost class_weight * focal cost + points_weight * L1; each line is matched to one of the
    one-to-one queries and to `one_to_many` of the others. `matches` is the number of matched queries, at least 1. The
    order of points counts: a line in the other direction is another line.

    Args:
        class_weight: weight of classes in loss and cost.
        points_weight: weight of points in loss and cost.
        one_to_many: matches per line among the one-to-many queries.
        one_to_many_weight: weight of these queries (lambda in the paper).

    Source:
        Jia et al., "DETRs with Hybrid Matching", CVPR 2023, arXiv 2207.13080.
    """

    def __init__(
        self,
        class_weight: float = 1.5,
        points_weight: float = 0.02,
        one_to_many: int = 5,
        one_to_many_weight: float = 1.0,
    ):
        super().__init__()
        self.class_weight, self.points_weight = class_weight, points_weight
        self.one_to_many, self.one_to_many_weight = one_to_many, one_to_many_weight

    def forward(
        self, line_logits: Tensor, lines: Tensor, line_points: Tensor, line_labels: Tensor, line_mask: Tensor,
        line_logits_one2many: Tensor | None = None, lines_one2many: Tensor | None = None, labeled: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Compute the loss.

        Args:
            line_logits: `(L, B, Q, C)`, of L decoder layers.
            lines: `(L, B, Q, points, 3)`, meters.
            line_points: true lines `(B, M, points, 2 or 3)`, meters; z = 0 where it is missing.
            line_labels: `(B, M)`.
            line_mask: `(B, M)` bool, False for padding.
            line_logits_one2many: `(L, B, R, C)`, of the one-to-many queries.
            lines_one2many: `(L, B, R, points, 3)`.
            labeled: `(B,)` bool, False for samples without labels, which do not count.

        Returns:
            Scalar.
        """
        gt_lines = F.pad(line_points.float(), (0, 3 - line_points.shape[-1])).flatten(2)
        targets = (gt_lines, line_labels, line_mask, labeled)
        total = self._set_loss(line_logits, lines, *targets, repeats=1)
        if line_logits_one2many is None or lines_one2many is None or not lines_one2many.shape[2]:
            return total
        one_to_many = self._set_loss(line_logits_one2many, lines_one2many, *targets, repeats=self.one_to_many)
        return total + self.one_to_many_weight * one_to_many

    def _set_loss(
        self, logits: Tensor, lines: Tensor, gt_lines: Tensor, gt_labels: Tensor, mask: Tensor, labeled: Tensor | None,
        *, repeats: int,
    ) -> Tensor:  # fmt: skip
        """Loss of one group of queries, each line matched to `repeats` of them."""
        lines = lines.float().flatten(3)
        with torch.no_grad():
            distance = torch.cdist(lines, gt_lines.expand(len(lines), -1, -1, -1), p=1)
            cost = self.class_weight * focal_cost(logits, gt_labels) + self.points_weight * distance
            pairs = match(cost, mask, repeats)
        labels = torch.full(logits.shape[:3], logits.shape[3], device=logits.device)
        labels[pairs.layer, pairs.sample, pairs.query] = gt_labels[pairs.sample, pairs.target]
        difference = lines[pairs.layer, pairs.sample, pairs.query] - gt_lines[pairs.sample, pairs.target]
        matches = (mask.sum() * repeats).clamp(min=1)
        weight = None if labeled is None else labeled[:, None].expand(logits.shape[:3]).float()
        focal, l1 = focal_sum(logits, labels, weight), difference.abs().sum()
        return (self.class_weight * focal + self.points_weight * l1) / matches

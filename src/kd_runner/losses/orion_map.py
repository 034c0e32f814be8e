"""Losses of ORION's map head."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_runner.losses.functional.hungarian import match
from kd_runner.losses.functional.set_focal import focal_cost, focal_sum


class OrionMapLoss(nn.Module):
    """Classes by focal loss and points by L1 in m, over matched lines of every decoder layer; the same over the
    one-to-many queries, of which every line gets `one_to_many` (Jia et al. 2023, "H-DETR", arXiv 2207.13080).

    Sums over layers and over points, divided by the number of matches (at least 1). Points keep their order: a line
    drawn from its other end is another line.

    Args:
        class_weight, points_weight: of the two, in the loss and in the cost of a match.
        one_to_many: matches of every line among the one-to-many queries.
        many_weight: of those queries (lambda in the paper).
    """

    def __init__(
        self,
        class_weight: float = 1.5,
        points_weight: float = 0.02,
        one_to_many: int = 5,
        many_weight: float = 1.0,
    ):
        super().__init__()
        self.class_weight, self.points_weight = class_weight, points_weight
        self.one_to_many, self.many_weight = one_to_many, many_weight

    def forward(
        self, line_logits: Tensor, lines: Tensor, line_points: Tensor, line_labels: Tensor, line_mask: Tensor,
        line_logits_one2many: Tensor | None = None, lines_one2many: Tensor | None = None, labeled: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Scalar.

        Args:
            line_logits, lines: `(L, B, Q, C)`, `(L, B, Q, points, 3)`.
            line_points, line_labels, line_mask: true lines `(B, M, points, 2 or 3)`, without a z at z = 0; `(B, M)`;
                `(B, M)`, False for padding.
            line_logits_one2many, lines_one2many: of the one-to-many queries.
            labeled: bool `(B,)`; the lines of a sample are unknown where False: it does not count.
        """
        wanted = F.pad(line_points.float(), (0, 3 - line_points.shape[-1])).flatten(2)
        truth = (wanted, line_labels, line_mask, labeled)
        total = self._group(line_logits, lines, *truth, repeats=1)
        if line_logits_one2many is None or lines_one2many is None or not lines_one2many.shape[2]:
            return total
        many = self._group(line_logits_one2many, lines_one2many, *truth, repeats=self.one_to_many)
        return total + self.many_weight * many

    def _group(
        self, logits: Tensor, lines: Tensor, wanted: Tensor, labels: Tensor, mask: Tensor, labeled: Tensor | None, *,
        repeats: int,
    ) -> Tensor:  # fmt: skip
        lines = lines.float().flatten(3)
        with torch.no_grad():
            away = torch.cdist(lines, wanted.expand(len(lines), -1, -1, -1), p=1)
            pairs = match(self.class_weight * focal_cost(logits, labels) + self.points_weight * away, mask, repeats)
        named = torch.full(logits.shape[:3], logits.shape[3], device=logits.device)
        named[pairs.layer, pairs.sample, pairs.query] = labels[pairs.sample, pairs.target]
        off = lines[pairs.layer, pairs.sample, pairs.query] - wanted[pairs.sample, pairs.target]
        found = (mask.sum() * repeats).clamp(min=1)
        known = None if labeled is None else labeled[:, None].expand(logits.shape[:3]).float()
        return (self.class_weight * focal_sum(logits, named, known) + self.points_weight * off.abs().sum()) / found

"""Loss of ORION's detection head (that of StreamPETR: Wang et al. 2023, arXiv 2303.11926)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kd_runner.geometry.orion_coder import encode
from kd_runner.losses.functional.hungarian import match
from kd_runner.losses.functional.set_focal import focal_cost, focal_sum

_MATCHED_NUMBERS = 8  # numbers of a code in the matching cost: all but the velocity


class OrionDetectionLoss(nn.Module):
    """Set prediction loss of every decoder layer, plus the same for denoising queries.

        loss = sum over layers of (class_weight * focal + box_weight * L1) / objects + dn_weight * denoising

    focal is the sum over queries and classes, L1 the sum over matched queries and code numbers, weighted by
    `code_weights`. Matching is Hungarian with the cost class_weight * focal cost + box_weight * L1 without velocity.
    `objects` is their number in the batch, at least 1. Denoising queries are not matched; their L1 is divided by their
    number, their focal loss by the number expected not to be background, pi / 6 * dn_split^3 of them.

    Args:
        class_weight: weight of classes in loss and cost.
        box_weight: weight of box codes in loss and cost.
        code_weights: weight per number of a code.
        dn_weight: weight of the denoising queries.
        dn_split: `split` of `models.orion.denoising.denoising_queries`.
    """

    def __init__(
        self,
        class_weight: float = 2.0,
        box_weight: float = 0.25,
        code_weights: Sequence[float] = (2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
        dn_weight: float = 1.0,
        dn_split: float = 0.75,
    ):
        super().__init__()
        self.class_weight, self.box_weight, self.dn_weight = class_weight, box_weight, dn_weight
        # Volume of a ball of radius dn_split / 2 in the unit cube of the noise.
        self.dn_foreground_fraction = math.pi / 6 * dn_split**3
        self.register_buffer("code_weights", torch.tensor(list(code_weights)), persistent=False)
        self.code_weights: Tensor

    def forward(
        self, logits: Tensor, codes: Tensor, gt_boxes: Tensor, gt_labels: Tensor, gt_mask: Tensor,
        dn_logits: Tensor | None = None, dn_codes: Tensor | None = None,
        dn_boxes: Tensor | None = None, dn_labels: Tensor | None = None, dn_mask: Tensor | None = None,
        labeled: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Compute the loss.

        Args:
            logits: `(L, B, Q, C)`, of L decoder layers.
            codes: `(L, B, Q, 10)`, as from `geometry.orion_coder.encode`.
            gt_boxes: `(B, M, 9)`, as in `geometry.boxes3d`.
            gt_labels: `(B, M)`.
            gt_mask: `(B, M)` bool, False for padding.
            dn_logits: `(L, B, D, C)`, of D denoising queries.
            dn_codes: `(L, B, D, 10)`.
            dn_boxes: `(B, D, 9)`, their targets.
            dn_labels: `(B, D)`, C for background.
            dn_mask: `(B, D)` bool, False for padding.
            labeled: `(B,)` bool, False for samples without labels, which do not count.

        Returns:
            Scalar.
        """
        codes, gt_codes = codes.float(), encode(gt_boxes.float())
        pairs = match(self._cost(logits.detach(), codes.detach(), gt_codes, gt_labels), gt_mask)
        labels = torch.full(logits.shape[:3], logits.shape[3], device=logits.device)
        labels[pairs.layer, pairs.sample, pairs.query] = gt_labels[pairs.sample, pairs.target]
        difference = codes[pairs.layer, pairs.sample, pairs.query] - gt_codes[pairs.sample, pairs.target]
        objects = gt_mask.sum().clamp(min=1)
        weight = None if labeled is None else labeled[:, None].expand(logits.shape[:3]).float()
        focal, l1 = focal_sum(logits, labels, weight), self._l1(difference)
        total = (self.class_weight * focal + self.box_weight * l1) / objects
        if dn_logits is None or dn_codes is None or dn_boxes is None or dn_labels is None or dn_mask is None:
            return total
        return total + self.dn_weight * self._denoising(dn_logits, dn_codes, dn_boxes, dn_labels, dn_mask)

    def _cost(self, logits: Tensor, codes: Tensor, gt_codes: Tensor, labels: Tensor) -> Tensor:
        weights = self.code_weights[:_MATCHED_NUMBERS]
        predicted, target = (x[..., :_MATCHED_NUMBERS] * weights for x in (codes, gt_codes))
        distance = torch.cdist(predicted, target.expand(len(codes), -1, -1, -1), p=1)
        return self.class_weight * focal_cost(logits, labels) + self.box_weight * distance

    def _l1(self, difference: Tensor) -> Tensor:
        return (difference.abs() * self.code_weights).sum()

    def _denoising(self, logits: Tensor, codes: Tensor, boxes: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        count = mask.sum()
        foreground = (count * self.dn_foreground_fraction).clamp(1)
        labels = labels.clamp(min=0).expand(logits.shape[:3])
        focal = focal_sum(logits, labels, mask.float().expand(logits.shape[:3])) / foreground
        difference = (codes.float() - encode(boxes.float())).masked_fill(~mask[..., None], 0.0)
        return self.class_weight * focal + self.box_weight * self._l1(difference) / count.clamp(min=1)

"""Losses of ORION's detection head (StreamPETR's: Wang et al. 2023, arXiv 2303.11926)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kd_runner.geometry.orion_coder import encode
from kd_runner.losses.functional.hungarian import match
from kd_runner.losses.functional.set_focal import focal_cost, focal_sum

_WITHOUT_VELOCITY = 8  # numbers of a code that matching compares


class OrionDetectionLoss(nn.Module):
    """Classes by focal loss and box codes by L1, over matched queries of every decoder layer, and the same over noisy
    copies of the true boxes, which know what they are to find.

    Sums over layers; each divided by the number of objects in the batch (at least 1), but the classes of noisy copies
    by the number of those that are expected not to be background.

    Args:
        class_weight, box_weight: of the two, in the loss and in the cost of a match.
        code_weights: of the numbers of a code, likewise. Velocity counts in the loss alone.
        dn_weight: of noisy copies.
        dn_split: of the net's denoising; 0.52 split^3 of the copies are expected to stay within it.
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
        self.dn_share = math.pi / 6 * dn_split**3  # a ball in the cube of the noise
        self.register_buffer("code_weights", torch.tensor(list(code_weights)), persistent=False)
        self.code_weights: Tensor

    def forward(
        self, logits: Tensor, codes: Tensor, gt_boxes: Tensor, gt_labels: Tensor, gt_mask: Tensor,
        dn_logits: Tensor | None = None, dn_codes: Tensor | None = None,
        dn_boxes: Tensor | None = None, dn_labels: Tensor | None = None, dn_mask: Tensor | None = None,
        labeled: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Scalar.

        Args:
            logits, codes: `(L, B, Q, C)`, `(L, B, Q, 10)`.
            gt_boxes, gt_labels, gt_mask: `(B, M, 9)`, `(B, M)`, `(B, M)`, the mask False for padding.
            dn_logits, dn_codes: of noisy copies; dn_boxes, dn_labels, dn_mask: `(B, Q, 9)`, `(B, Q)`, `(B, Q)`.
            labeled: bool `(B,)`; what the objects of a sample are is unknown where False: it does not count.
        """
        codes, wanted = codes.float(), encode(gt_boxes.float())
        pairs = match(self._cost(logits.detach(), codes.detach(), wanted, gt_labels), gt_mask)
        labels = torch.full(logits.shape[:3], logits.shape[3], device=logits.device)
        labels[pairs.layer, pairs.sample, pairs.query] = gt_labels[pairs.sample, pairs.target]
        off = codes[pairs.layer, pairs.sample, pairs.query] - wanted[pairs.sample, pairs.target]
        found = gt_mask.sum().clamp(min=1)
        known = None if labeled is None else labeled[:, None].expand(logits.shape[:3]).float()
        total = (self.class_weight * focal_sum(logits, labels, known) + self.box_weight * self._l1(off)) / found
        if dn_logits is None or dn_codes is None or dn_boxes is None or dn_labels is None or dn_mask is None:
            return total
        return total + self.dn_weight * self._denoising(dn_logits, dn_codes, dn_boxes, dn_labels, dn_mask)

    def _cost(self, logits: Tensor, codes: Tensor, wanted: Tensor, labels: Tensor) -> Tensor:
        weights = self.code_weights[:_WITHOUT_VELOCITY]
        ours, theirs = (x[..., :_WITHOUT_VELOCITY] * weights for x in (codes, wanted))
        away = torch.cdist(ours, theirs.expand(len(codes), -1, -1, -1), p=1)
        return self.class_weight * focal_cost(logits, labels) + self.box_weight * away

    def _l1(self, off: Tensor) -> Tensor:
        return (off.abs() * self.code_weights).sum()

    def _denoising(self, logits: Tensor, codes: Tensor, boxes: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        copies = mask.sum()
        labels = labels.clamp(min=0).expand(logits.shape[:3])
        classes = focal_sum(logits, labels, mask.float().expand(logits.shape[:3])) / (copies * self.dn_share).clamp(1)
        off = (codes.float() - encode(boxes.float())).masked_fill(~mask[..., None], 0.0)
        return self.class_weight * classes + self.box_weight * self._l1(off) / copies.clamp(min=1)

"""The set prediction loss of TransFusion's LiDAR head."""

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from kd_runner.geometry.rotated_iou import rotated_iou_3d
from kd_runner.geometry.transfusion_coder import BoxCoder
from kd_runner.losses.functional.gaussian_focal import center_heatmap, gaussian_focal, gaussian_radius

ALPHA, GAMMA = 0.25, 2.0


class TransFusionLoss(nn.Module):
    """Heat map loss plus classification and box losses of Hungarian-matched proposals.

        loss = heatmap_weight * H + mean over decoder layers of (class_weight * C + box_weight * R)

    H: Gaussian focal loss of the heat map, divided by the number of object cells. C: focal loss of the class logits of
    all proposals. R: L1 distance of the box codes of matched proposals. C and R are sums divided by the number of
    matches in the batch (at least 1). Matching is per sample and decoder layer. The public loss is the same for one
    layer. Objects with a center outside of the map are ignored; a sample may have none.

    Args:
        voxel_size: of the net's voxels, in meters.
        point_cloud_range: of the net's voxels, in meters.
        out_size_factor: voxels along a cell of the map.
        min_overlap: lowest IoU that gives the radius of an object's Gaussian, see `gaussian_radius`.
        min_radius: smallest such radius, in cells.
        heatmap_weight: weight of H.
        class_weight: weight of C.
        box_weight: weight of R.
        code_weights: of the ten numbers of a code.
        match_class: weight in the matching cost of the focal difference.
        match_center: weight of the L1 distance of x and y, in fractions of the range.
        match_iou: weight of minus the 3-D IoU.

    Raises:
        ValueError: code_weights has not ten entries.

    Source:
        Bai et al., "TransFusion", CVPR 2022, arXiv 2203.11496, section 3.5.
    """

    code_weights: Tensor

    def __init__(
        self,
        *,
        voxel_size: Sequence[float] = (0.075, 0.075, 0.2),
        point_cloud_range: Sequence[float] = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0),
        out_size_factor: int = 8,
        heatmap_weight: float = 1.0,
        class_weight: float = 1.0,
        box_weight: float = 0.25,
        code_weights: Sequence[float] = (1, 1, 1, 1, 1, 1, 1, 1, 0.2, 0.2),
        min_overlap: float = 0.1,
        min_radius: int = 2,
        match_class: float = 0.15,
        match_center: float = 0.25,
        match_iou: float = 0.25,
    ):
        super().__init__()
        if len(code_weights) != 10:
            raise ValueError(f"code_weights: ten numbers, not {len(code_weights)}")
        self.coder = BoxCoder(voxel_size, point_cloud_range, out_size_factor)
        spans = [high - low for low, high in zip(point_cloud_range[:2], point_cloud_range[3:5])]
        self.map_shape = tuple(round(span / cell) for span, cell in zip(spans, self.coder.cell))
        self.heatmap_weight, self.class_weight, self.box_weight = heatmap_weight, class_weight, box_weight
        self.min_overlap, self.min_radius = min_overlap, min_radius
        self.match_class, self.match_center, self.match_iou = match_class, match_center, match_iou
        self.register_buffer("code_weights", torch.tensor(code_weights, dtype=torch.float32), persistent=False)

    def forward(
        self,
        heatmap: Tensor,
        codes: Tensor,
        cls_logits: Tensor,
        gt_boxes: Tensor,
        gt_labels: Tensor,
        gt_mask: Tensor,
        labeled: Tensor | None = None,
        counted: Tensor | None = None,
    ) -> Tensor:
        """Compute the weighted sum of `parts`.

        Args:
            heatmap: see `parts`.
            codes: see `parts`.
            cls_logits: see `parts`.
            gt_boxes: see `parts`.
            gt_labels: see `parts`.
            gt_mask: see `parts`.
            counted: see `parts`.
            labeled: (B,) bool; samples where it is False are ignored. None: all are used.

        Returns:
            Scalar; 0 if no sample is labeled.
        """
        if labeled is not None and not labeled.all():
            if not labeled.any():
                return heatmap.sum() * 0.0
            heatmap, codes, cls_logits = heatmap[labeled], codes[:, labeled], cls_logits[:, labeled]
            gt_boxes, gt_labels, gt_mask = gt_boxes[labeled], gt_labels[labeled], gt_mask[labeled]
            counted = None if counted is None else counted[labeled]
        parts = self.parts(heatmap, codes, cls_logits, gt_boxes, gt_labels, gt_mask, counted)
        weights = {"heatmap": self.heatmap_weight, "class": self.class_weight, "box": self.box_weight}
        return torch.stack([weights[name] * part for name, part in parts.items()]).sum()

    def parts(
        self,
        heatmap: Tensor,
        codes: Tensor,
        cls_logits: Tensor,
        gt_boxes: Tensor,
        gt_labels: Tensor,
        gt_mask: Tensor,
        counted: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the three parts of the loss, unweighted.

        Args:
            heatmap: logits (B, classes, X, Y), dim 2 along x.
            codes: (layers, B, P, 10), see `BoxCoder`.
            cls_logits: (layers, B, P, classes).
            gt_boxes: (B, M, 9): x, y, z, l, w, h, yaw, vx, vy.
            gt_labels: (B, M) int64.
            gt_mask: (B, M) bool, False for padding.
            counted: (B, M) bool, the objects that add to the loss; all are matched. Then the parts are sums over the
                cells of the counted objects' Gaussians and over the proposals matched to them, without background:
                0 if no object is counted. None: the loss as above.

        Returns:
            Scalars `heatmap`, `class`, `box`.

        Raises:
            ValueError: the heat map's size is not that of the range, or a label is out of range.
        """
        if heatmap.shape[2:] != self.map_shape:
            raise ValueError(
                f"the heat map has {tuple(heatmap.shape[2:])} cells, point_cloud_range, voxel_size and "
                f"out_size_factor of the loss give {self.map_shape}"
            )
        # Padding becomes a box of ones: the logarithms of its sizes must be finite.
        gt_boxes = torch.where(gt_mask[..., None], gt_boxes, torch.ones_like(gt_boxes)).float()
        targets = self.coder.encode(gt_boxes)
        cells = targets[..., :2].floor().long()
        inside = (cells >= 0) & (cells < cells.new_tensor(self.map_shape))
        mask = gt_mask & inside.all(-1) & (gt_boxes[..., 3:6] > 0).all(-1)
        if mask.any() and not 0 <= int(gt_labels[mask].min()) <= int(gt_labels[mask].max()) < heatmap.shape[1]:
            raise ValueError(f"gt_labels: must be 0 to {heatmap.shape[1] - 1} where gt_mask is True")
        length, width = (gt_boxes[..., 3:5] / gt_boxes.new_tensor(self.coder.cell)).unbind(-1)
        radius = gaussian_radius(length, width, self.min_overlap).long().clamp(min=self.min_radius)
        classes, x, y = heatmap.shape[1:]
        peaks, region = center_heatmap(cells, radius, gt_labels, mask, (classes, x, y)), None
        if counted is not None:
            own = center_heatmap(cells, radius, gt_labels, mask & counted, (classes, x, y))
            region = (own > 0) & (own == peaks)  # not where another object of the class is nearer
        layers = [
            self._layer(code, logits, targets, gt_boxes, gt_labels, mask, counted)
            for code, logits in zip(codes.float(), cls_logits.float(), strict=True)
        ]
        return {
            "heatmap": gaussian_focal(heatmap, peaks, region),
            "class": torch.stack([layer[0] for layer in layers]).mean(),
            "box": torch.stack([layer[1] for layer in layers]).mean(),
        }

    def _layer(
        self,
        codes: Tensor,
        logits: Tensor,
        targets: Tensor,
        gt_boxes: Tensor,
        gt_labels: Tensor,
        mask: Tensor,
        counted: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        sample, proposal, target = self.match(codes, logits, gt_boxes, gt_labels, mask)
        if counted is not None:
            chosen = counted[sample, target]
            sample, proposal, target = sample[chosen], proposal[chosen], target[chosen]
        count = max(len(sample), 1)
        truth = torch.zeros_like(logits)
        truth[sample, proposal, gt_labels[sample, target]] = 1
        if counted is not None:
            logits, truth = logits[sample, proposal], truth[sample, proposal]
        classes = sigmoid_focal_loss(logits, truth, ALPHA, GAMMA, reduction="sum") / count
        distance = F.l1_loss(codes[sample, proposal], targets[sample, target], reduction="none") * self.code_weights
        return classes, distance.sum() / count

    @torch.no_grad()
    def match(
        self, codes: Tensor, logits: Tensor, gt_boxes: Tensor, gt_labels: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Match proposals to objects with the Hungarian algorithm; of more objects than proposals, P are matched.

        Args:
            codes: (B, P, 10).
            logits: (B, P, classes).
            gt_boxes: objects as in `parts`.
            gt_labels: objects as in `parts`.
            mask: objects as in `parts`.

        Returns:
            Sample, proposal and object numbers of the pairs: three int64 vectors.
        """
        boxes = self.coder.decode(codes)
        p = logits.sigmoid()
        gain = ALPHA * (1 - p) ** GAMMA * -(p + 1e-12).log() - (1 - ALPHA) * p**GAMMA * -(1 - p + 1e-12).log()
        labels = gt_labels.clamp(0, logits.shape[-1] - 1)
        cost = self.match_class * gain.gather(2, labels[:, None].expand(-1, p.shape[1], -1))
        span = boxes.new_tensor(self.coder.cell) * boxes.new_tensor(self.map_shape)
        cost = cost + self.match_center * torch.cdist(boxes[..., :2] / span, gt_boxes[..., :2] / span, p=1)
        cost = cost - self.match_iou * rotated_iou_3d(boxes, gt_boxes)
        # A diverged net gives a non-finite loss, not an exception in the matching.
        cost = cost.nan_to_num(nan=1e4, posinf=1e4, neginf=-1e4).cpu()
        rows: list[tuple[Tensor, Tensor, Tensor]] = []
        for number, (table, valid) in enumerate(zip(cost, mask.cpu())):
            objects = valid.nonzero()[:, 0]
            proposal, column = (torch.from_numpy(side) for side in linear_sum_assignment(table[:, objects].numpy()))
            rows.append((torch.full_like(proposal, number), proposal, objects[column]))
        sample, proposal, target = (torch.cat(parts).to(codes.device) for parts in zip(*rows))
        return sample, proposal, target

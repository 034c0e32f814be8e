"""BEVFusion on LiDAR alone: sparse encoder, SECOND, SECONDFPN, TransFusionHead.

Source: Liu et al., "BEVFusion", ICRA 2023, arXiv 2205.13542; Bai et al., "TransFusion", CVPR 2022, arXiv 2203.11496.
Parameter names are those of mmdetection3d's LiDAR-only configuration at voxels of 0.075 m.
"""

import itertools
import operator
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from kd_runner.geometry.transfusion_coder import BoxCoder
from kd_runner.models.bevfusion.second import SECOND, SECONDFPN
from kd_runner.models.bevfusion.sparse_encoder import SparseEncoder
from kd_runner.models.bevfusion.transfusion_head import TransFusionHead
from kd_runner.models.bevfusion.voxels import Voxelize


class BEVFusionLidar(nn.Module):
    """3-D boxes from a point cloud. The defaults are the public nuScenes net (8,306,030 parameters).

    Features to distill: `pts_middle_encoder` (B, C, X, Y); `pts_backbone:0`, and `pts_backbone:1` at half its
    resolution; `pts_neck:0`. X, Y are the cells of the map, `out_size_factor` voxels wide; dimension 2 is x, 3 is y.

    Args:
        voxel_size: meters along x, y, z.
        point_cloud_range: minimum, then maximum of x, y, z, in meters.
        max_points: points of a voxel that are averaged.
        max_voxels: of a sample, in training and in evaluation.
        point_features: columns of `points` that are read, x, y, z among them.
        encoder_channels: width of each stage of the sparse encoder; n stages give an out_size_factor of 2^(n - 1).
        encoder_out_channels: width of its last convolution, per cell along z.
        second_channels: of each block of SECOND.
        second_layers: likewise.
        second_strides: likewise.
        fpn_channels: of each level of SECONDFPN.
        head: makes the head from `in_channels` and `map_shape` (X, Y), which follow from the rest:
            `TransFusionHead`, or a `functools.partial` of it.
        norm_momentum: of the batch norms before the head; 0.01 suits long training only (after 100 steps a third of the
            running mean is still its initial value).
        post_range: boxes whose center lies outside (minimum, maximum of x, y, z) get label -1; None keeps all.
        backend: library for sparse convolution: torch, spconv or spconv_triton.

    Raises:
        ValueError: sizes that do not fit together, a backend that is not installed.

    Example:
        >>> from functools import partial
        >>> net = BEVFusionLidar(head=partial(TransFusionHead, num_proposals=300))
    """

    def __init__(
        self,
        *,
        voxel_size: Sequence[float] = (0.075, 0.075, 0.2),
        point_cloud_range: Sequence[float] = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0),
        max_points: int = 10,
        max_voxels: tuple[int, int] = (120_000, 160_000),
        point_features: int = 5,
        encoder_channels: Sequence[int] = (16, 32, 64, 128),
        encoder_out_channels: int = 128,
        second_channels: Sequence[int] = (128, 256),
        second_layers: Sequence[int] = (5, 5),
        second_strides: Sequence[int] = (1, 2),
        fpn_channels: Sequence[int] = (256, 256),
        head: Callable[..., TransFusionHead] = TransFusionHead,
        norm_momentum: float = 0.01,
        post_range: Sequence[float] | None = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0),
        backend: str = "torch",
    ):
        super().__init__()
        self.pts_voxel_layer = Voxelize(voxel_size, point_cloud_range, max_points, max_voxels)
        self.pts_middle_encoder = encoder = SparseEncoder(
            self.pts_voxel_layer.shape, point_features, encoder_channels, encoder_out_channels, backend
        )
        self.pts_backbone = SECOND(encoder.bev_channels, second_channels, second_layers, second_strides)
        # A block's stride against the first one's is what the pyramid must undo.
        scales = list(itertools.accumulate(second_strides, operator.mul))
        if scales[0] != 1:
            raise ValueError(
                f"second_strides={list(second_strides)}: the first must be 1, the head's cell is a voxel's"
            )
        if any(cells % scales[-1] for cells in encoder.bev_shape):
            raise ValueError(
                f"second_strides={list(second_strides)} do not divide the map of {encoder.bev_shape} cells"
            )
        self.pts_neck = SECONDFPN(second_channels, fpn_channels, scales)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.momentum = norm_momentum
        self.bbox_head = head(in_channels=sum(fpn_channels), map_shape=encoder.bev_shape)
        self.coder = BoxCoder(voxel_size, point_cloud_range, encoder.stride)
        self.point_features, self.post_range = point_features, post_range

    @cached_property
    def dense(self) -> "DensePart":
        """All that follows the sparse encoder. Not a submodule: its parameters are registered, and saved, once."""
        return DensePart(self)

    def forward(self, points: Tensor, num_points: Tensor) -> dict[str, Tensor]:
        """Detect objects.

        Args:
            points: `(B, P, point_features or more)`: x, y, z in meters, intensity, time lag in s.
            num_points: `(B,)`, how many rows of `points` are valid.

        Returns:
            What `TransFusionHead` returns, and the boxes of its last layer: `boxes (B, P, 9)` as in
            `geometry.boxes3d`, `scores (B, P)` in 0..1, `labels (B, P)`, -1 for none.

        Raises:
            ValueError: `points` has too few columns.
        """
        if points.shape[-1] < self.point_features:
            raise ValueError(f"points have {points.shape[-1]} columns, the net reads {self.point_features}")
        voxels = self.pts_voxel_layer(points[..., : self.point_features], num_points)
        return self.dense(self.pts_middle_encoder(voxels, len(points)))

    def forward_bev(self, bev: Tensor) -> dict[str, Tensor]:
        """Detect objects from the map of the sparse encoder.

        Args:
            bev: `(B, C, X, Y)`.

        Returns:
            As `forward`.
        """
        (feature,) = self.pts_neck(self.pts_backbone(bev))
        out = self.bbox_head(feature)
        return out | self._decode(out)

    def _decode(self, out: dict[str, Tensor]) -> dict[str, Tensor]:
        boxes = self.coder.decode(out["codes"][-1].float())
        labels = out["query_labels"]
        scores = out["cls_logits"][-1].float().sigmoid().transpose(1, 2) * out["query_heatmap_score"]
        scores = scores.gather(1, labels[:, None])[:, 0]
        keep = scores > 0
        if self.post_range is not None:
            low, high = boxes.new_tensor(self.post_range).split(3)
            keep = keep & (boxes[..., :3] >= low).all(-1) & (boxes[..., :3] <= high).all(-1)
        return {"boxes": boxes, "scores": scores * keep, "labels": torch.where(keep, labels, -1)}


class DensePart(nn.Module):
    """What follows the sparse encoder, as a module to export.

    Args:
        net: the detector.
    """

    def __init__(self, net: BEVFusionLidar):
        super().__init__()
        self.net = net

    def forward(self, bev: Tensor) -> dict[str, Tensor]:
        """See `BEVFusionLidar.forward_bev`.

        Args:
            bev: `(B, C, X, Y)`.

        Returns:
            As `BEVFusionLidar.forward`.
        """
        return self.net.forward_bev(bev)

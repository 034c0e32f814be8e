"""ORION's perception (Fu et al. 2025, arXiv 2503.19755) without the language model and the planner."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kd_runner.geometry.orion_coder import best_boxes
from kd_runner.models.orion.denoising import DenoisingQueries, denoising_queries
from kd_runner.models.orion.detection_head import OrionHead
from kd_runner.models.orion.encodings import inverse_sigmoid, normalize_points
from kd_runner.models.orion.map_head import OrionHeadM
from kd_runner.models.orion.memory import Memory, push_queries
from kd_runner.models.orion.pixel_rays import lid_depths, lift_pixels
from kd_runner.models.orion.query_head import DecoderSize, build_position_layers
from kd_runner.models.orion.temporal_memory import FramePose, TemporalMemory
from kd_runner.models.orion.transformer import position_mlp


class Orion(nn.Module):
    """Detector of 3-D boxes and map lines in the images of several cameras. Defaults are the published sizes.

    By default every frame is treated as the first of its scene: the memory is empty and `num_propagated` queries have
    fixed reference points, as in the public model on a first frame.

    With `temporal`, each head attends to the best queries of earlier frames; in evaluation only. Row b of consecutive
    batches must hold consecutive frames of one drive, and each row of a batch another drive, e.g. a data set in order,
    in batches of one, in one process. The memory is not in the state dict; `reset_memory` empties it.

    Args:
        backbone: maps images `(B, 3, H, W)` to features `(B, in_channels, rows, columns)` of square patches.
        in_channels: channels of the features.
        stride: side of a patch in pixels.
        embed_dim: channels of both decoders.
        num_heads: attention heads of both decoders.
        hidden: width of the MLPs of both decoders.
        depth: layers of both decoders.
        dropout: dropout rate of both decoders.
        num_query: see `OrionHead`.
        num_propagated: see `OrionHead`.
        memory_length: queries in the memory of each head.
        position_init_queries: see `OrionHead`.
        temporal: use the memory.
        num_remembered: queries of a frame that each head adds to its memory.
        num_lane: see `OrionHeadM`.
        one_to_many: see `OrionHeadM`.
        num_points: see `OrionHeadM`.
        num_classes: classes of boxes.
        num_line_classes: classes of lines.
        num_depths: depths per pixel in the position encoding.
        depth_start: smallest of these depths in meters; the largest is bounded by the front of `position_range`.
        position_range: range of the points on pixel rays: minimum x, y, z and maximum x, y, z in meters.
        pc_range: range of box centers and line points, likewise.
        dn_groups: denoising copies per box, see `denoising_queries`; 0 for no denoising.
        dn_noise_scale: see `denoising_queries`.
        dn_split: see `denoising_queries`.
        num_detections: number of decoded boxes.
        score_threshold: smallest score of a decoded box.
        post_center_range: range of the centers of decoded boxes.
    """

    def __init__(
        self, backbone: nn.Module, *, in_channels: int = 1024, stride: int = 16,
        embed_dim: int = 256, num_heads: int = 8, hidden: int = 2048, depth: int = 6, dropout: float = 0.1,
        num_query: int = 600, num_propagated: int = 300, memory_length: int = 600,
        position_init_queries: bool = False,
        temporal: bool = False, num_remembered: int = 300,
        num_lane: int = 300, one_to_many: int = 5, num_points: int = 11,
        num_classes: int = 9, num_line_classes: int = 6, num_depths: int = 64, depth_start: float = 1.0,
        position_range: Sequence[float] = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0),
        pc_range: Sequence[float] = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0),
        dn_groups: int = 10, dn_noise_scale: float = 1.0, dn_split: float = 0.75,
        num_detections: int = 300, score_threshold: float = 0.2,
        post_center_range: Sequence[float] = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0),
    ):  # fmt: skip
        super().__init__()
        self.stride, self.num_classes = stride, num_classes
        self.num_detections, self.score_threshold = num_detections, score_threshold
        self.dn_groups, self.dn_noise_scale, self.dn_split = dn_groups, dn_noise_scale, dn_split
        self.temporal, self.num_remembered = temporal, num_remembered
        # A part of the detector and not of the heads, which a student may share with its teacher.
        self._memory = TemporalMemory()
        self.img_backbone = backbone
        self.position_range = nn.Parameter(torch.tensor(list(position_range)), requires_grad=False)
        self.coords_d = nn.Parameter(lid_depths(num_depths, depth_start, position_range[3]), requires_grad=False)
        self.position_encoder = position_mlp(3 * num_depths, 4 * embed_dim, embed_dim)
        position_layers = build_position_layers(embed_dim, num_points)
        for name, layer in position_layers.items():
            self.add_module(name, layer)
        size = DecoderSize(embed_dim, num_heads, hidden, depth, dropout)
        bounds = torch.tensor(list(pc_range))
        self.pts_bbox_head = OrionHead(
            position_layers, in_channels, size, bounds, num_points=num_points, num_classes=num_classes,
            num_query=num_query, num_propagated=num_propagated, memory_length=memory_length,
            position_init_queries=position_init_queries,
        )  # fmt: skip
        self.map_head = OrionHeadM(
            position_layers, in_channels, size, bounds, num_points=num_points, num_classes=num_line_classes,
            num_lane=num_lane, one_to_many=one_to_many, memory_length=memory_length,
        )  # fmt: skip
        self.register_buffer("post_center_range", torch.tensor(list(post_center_range)), persistent=False)
        self.post_center_range: Tensor

    def reset_memory(self) -> None:
        """Empty the memory: the next frames count as first frames."""
        self._memory.reset()

    def forward(
        self, images: Tensor, lidar2img: Tensor,
        gt_boxes: Tensor | None = None, gt_labels: Tensor | None = None, gt_mask: Tensor | None = None,
        ego_pose: Tensor | None = None, timestamp: Tensor | None = None, scene: Tensor | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Detect boxes and lines.

        Shapes below: L = depth, Q queries, C classes, K = `num_detections`. Meters, radians and m/s in the LiDAR frame.

        Args:
            images: `(B, N, 3, H, W)`, normalized.
            lidar2img: `(B, N, 4, 4)`, LiDAR frame to pixels of `images`.
            gt_boxes: `(B, M, 9)`, ground-truth boxes, for denoising in training; ignored in evaluation.
            gt_labels: `(B, M)`.
            gt_mask: `(B, M)` bool, False for padding.
            ego_pose: see `FramePose`, as for the next two; read only with `temporal`.
            timestamp: `(B,)` float64, seconds.
            scene: `(B,)` integer.

        Returns:
            A dict of

            - `logits (L, B, Q, C)`, `codes (L, B, Q, 10)`: predictions of every layer;
            - `dn_logits`, `dn_codes`: those of denoising queries; `dn_boxes (B, Q, 9)`, `dn_labels (B, Q)` (C for
              background), `dn_mask (B, Q)`: their targets. Empty (Q = 0) in evaluation;
            - `line_logits (L, B, Q, C)`, `lines (L, B, Q, points, 3)`: lines of every layer;
            - `line_logits_one2many`, `lines_one2many`: those of the one-to-many queries, empty in evaluation;
            - `boxes (B, K, 9)`, `scores`, `labels (B, K)`: boxes of the last layer, best first, label -1 for none;
            - `line_points (B, Q, points, 3)`, `line_scores`, `line_labels (B, Q)`: lines of the last layer.

        Raises:
            ValueError: the features do not fit `stride`; boxes without labels or mask in training; with `temporal`:
                training, an export, or poses that are missing or do not fit (see `FramePose`).
        """
        batch = images.shape[0]
        features = self.img_backbone(images.flatten(0, 1))
        tokens = features.flatten(2).transpose(1, 2).unflatten(0, (batch, -1)).flatten(1, 2)
        rows, columns = features.shape[-2:]
        if (images.shape[-2] // self.stride, images.shape[-1] // self.stride) != (rows, columns):
            size = tuple(images.shape[-2:])
            raise ValueError(f"stride: images of {size} px give {rows} x {columns} patches, not of {self.stride} px")
        token_positions = self._token_positions(lidar2img, (rows, columns))
        denoising = self._denoising_queries(gt_boxes, gt_labels, gt_mask)
        memories: tuple[Memory, ...] = self.pts_bbox_head.initial_memory(batch), self.map_head.initial_memory(batch)
        pose = self._frame_pose(ego_pose, timestamp, scene)
        if pose is not None:
            memories = self._memory.read(pose, memories)
        logits, codes, queries = self.pts_bbox_head(tokens, token_positions, memories[0], denoising)
        line_logits, lines, line_queries = self.map_head(
            tokens, token_positions, memories[1], one_to_many=self.training
        )
        num_denoising = denoising.mask.shape[1] if denoising is not None else 0
        num_lane = self.map_head.num_lane
        outputs = {
            "logits": logits[:, :, num_denoising:],
            "codes": codes[:, :, num_denoising:],
            "dn_logits": logits[:, :, :num_denoising],
            "dn_codes": codes[:, :, :num_denoising],
            "dn_boxes": denoising.boxes if denoising is not None else codes.new_zeros(batch, 0, 9),
            "dn_labels": denoising.labels if denoising is not None else codes.new_zeros(batch, 0).long(),
            "dn_mask": denoising.mask if denoising is not None else codes.new_zeros(batch, 0).bool(),
            "line_logits": line_logits[:, :, :num_lane],
            "lines": lines[:, :, :num_lane],
            "line_logits_one2many": line_logits[:, :, num_lane:],
            "lines_one2many": lines[:, :, num_lane:],
        }
        if pose is not None:
            self._update_memory(pose, memories, outputs, (queries, line_queries))
        return outputs | self._decode(outputs)

    def _frame_pose(self, ego_pose: Tensor | None, timestamp: Tensor | None, scene: Tensor | None) -> FramePose | None:
        if not self.temporal:
            return None
        if self.training:
            raise ValueError(
                "temporal: training with temporal memory is not supported, because training frames are drawn in random "
                "order and each would be the first of its scene; train with temporal=False"
            )
        if torch.compiler.is_exporting():
            raise ValueError("temporal: an exported graph has no memory; export with temporal=False")
        if ego_pose is None or timestamp is None or scene is None:
            raise ValueError(
                "temporal: temporal memory is for evaluation only (training is not supported), and needs the inputs "
                "ego_pose, timestamp and scene; leave temporal=False otherwise"
            )
        return FramePose(ego_pose, timestamp, scene)

    @torch.no_grad()
    def _update_memory(
        self, pose: FramePose, memories: tuple[Memory, ...], outputs: dict[str, Tensor], queries: tuple[Tensor, Tensor]
    ) -> None:
        # The first three numbers of a code, as in the public code, although the third is log w and not z.
        references = outputs["codes"][-1, :, :, None, :3], outputs["lines"][-1]
        scores = outputs["logits"][-1].amax(-1), outputs["line_logits"][-1].amax(-1)
        heads = zip(memories, queries, references, scores)
        self._memory.write(pose, tuple(push_queries(*head, self.num_remembered) for head in heads))

    def _token_positions(self, lidar2img: Tensor, grid: tuple[int, int]) -> Tensor:
        # float32: half precision would move the points by meters
        with torch.autocast(lidar2img.device.type, enabled=False):
            points = lift_pixels(lidar2img, grid, self.stride, self.coords_d)
            points = inverse_sigmoid(normalize_points(points, self.position_range))
        return self.position_encoder(points.flatten(-2).flatten(1, 2))

    def _denoising_queries(
        self, boxes: Tensor | None, labels: Tensor | None, mask: Tensor | None
    ) -> DenoisingQueries | None:
        if not self.training or not self.dn_groups or boxes is None:
            return None
        if labels is None or mask is None:
            raise ValueError("gt_labels and gt_mask are needed with gt_boxes")
        return denoising_queries(
            boxes, labels, mask, num_groups=self.dn_groups, noise_scale=self.dn_noise_scale, split=self.dn_split,
            num_classes=self.num_classes, bounds=self.pts_bbox_head.bounds,
        )  # fmt: skip

    def _decode(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        boxes, scores, labels = best_boxes(
            outputs["logits"][-1], outputs["codes"][-1], self.num_detections, self.score_threshold,
            self.post_center_range,
        )  # fmt: skip
        line_scores, line_labels = outputs["line_logits"][-1].sigmoid().max(-1)
        return {
            "boxes": boxes, "scores": scores, "labels": labels,
            "line_points": outputs["lines"][-1], "line_scores": line_scores, "line_labels": line_labels,
        }  # fmt: skip

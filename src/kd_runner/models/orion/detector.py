"""ORION's perception (Fu et al. 2025, arXiv 2503.19755) without the language model and the planner."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kd_runner.geometry.orion_coder import best_boxes
from kd_runner.models.orion.denoising import NoisyCopies, noisy_copies
from kd_runner.models.orion.detection_head import OrionHead
from kd_runner.models.orion.map_head import OrionHeadM
from kd_runner.models.orion.memory import Memory, remember
from kd_runner.models.orion.positions import inverse_sigmoid, lid_depths, lift_pixels, to_unit
from kd_runner.models.orion.query_head import DecoderSize, position_layers
from kd_runner.models.orion.stream import Moment, Stream
from kd_runner.models.orion.transformer import position_mlp


class Orion(nn.Module):
    """Six pictures to boxes and map lines; the defaults are the published sizes.

    Every frame is treated as the first of its scene: the memory is empty and `num_propagated` queries sit at fixed
    places, which is what the public model does there. Unless `temporal`: then each head remembers the best queries of
    earlier frames, without gradients. Row b of consecutive batches is to hold consecutive frames of one drive, and each
    row of a batch another drive. In evaluation that is a data set in order, in batches of one, in one process; in an
    order drawn at random, every frame is a first frame. What is remembered is not in the state dict; a switch between
    training and evaluation empties it, as `forget` does.

    Args:
        backbone: pictures `(B, 3, H, W)` to a map `(B, in_channels, rows, columns)` of square patches.
        in_channels, stride: channels of that map, side of a patch in pixels.
        embed_dim, num_heads, hidden, depth, dropout: of both decoders.
        num_query, num_propagated, memory_length, position_init_queries: see `OrionHead`; the map head has the same
            `memory_length`.
        temporal, num_remembered: whether there is a memory; queries of a frame that either head adds to its own.
        num_lane, one_to_many, num_points: see `OrionHeadM`.
        num_classes, num_line_classes: of boxes and of lines.
        num_depths, depth_start: depths at which a pixel is lifted, the nearest in m; the farthest is the front edge of
            `position_range`.
        position_range: of pixels' points, x, y, z from and to in m.
        pc_range: the same of centers of boxes and points of lines.
        dn_groups, dn_noise_scale, dn_split: see `noisy_copies`; without groups there is no denoising.
        num_detections, score_threshold, post_center_range: of the decoded boxes.
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
        # Here and not in the heads, which a student may share with its teacher.
        self._stream = Stream()
        self.img_backbone = backbone
        self.position_range = nn.Parameter(torch.tensor(list(position_range)), requires_grad=False)
        self.coords_d = nn.Parameter(lid_depths(num_depths, depth_start, position_range[3]), requires_grad=False)
        self.position_encoder = position_mlp(3 * num_depths, 4 * embed_dim, embed_dim)
        layers = position_layers(embed_dim, num_points)
        for name, layer in layers.items():
            self.add_module(name, layer)
        size = DecoderSize(embed_dim, num_heads, hidden, depth, dropout)
        bounds = torch.tensor(list(pc_range))
        self.pts_bbox_head = OrionHead(
            layers, in_channels, size, bounds, num_points=num_points, num_classes=num_classes,
            num_query=num_query, num_propagated=num_propagated, memory_length=memory_length,
            position_init_queries=position_init_queries,
        )  # fmt: skip
        self.map_head = OrionHeadM(
            layers, in_channels, size, bounds, num_points=num_points, num_classes=num_line_classes,
            num_lane=num_lane, one_to_many=one_to_many, memory_length=memory_length,
        )  # fmt: skip
        self.register_buffer("post_center_range", torch.tensor(list(post_center_range)), persistent=False)
        self.post_center_range: Tensor

    def forget(self) -> None:
        """Empty the memory."""
        self._stream.forget()

    def forward(
        self, images: Tensor, lidar2img: Tensor,
        gt_boxes: Tensor | None = None, gt_labels: Tensor | None = None, gt_mask: Tensor | None = None,
        ego_pose: Tensor | None = None, timestamp: Tensor | None = None, scene: Tensor | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """What follows has L = depth, Q queries, C classes; meters, radians, m/s, in the LiDAR frame.

        Args:
            images: `(B, N, 3, H, W)`, normalized.
            lidar2img: `(B, N, 4, 4)` to pixels of `images`.
            gt_boxes, gt_labels, gt_mask: `(B, M, 9)`, `(B, M)`, `(B, M)`; read in training alone, for denoising.
            ego_pose, timestamp, scene: see `Moment`; read if `temporal` alone.

        Returns:
            `logits (L, B, Q, C)`, `codes (L, B, Q, 10)`; of noisy copies `dn_logits`, `dn_codes` likewise and what they
            are copies of, `dn_boxes (B, Q, 9)`, `dn_labels (B, Q)` (C for background), `dn_mask (B, Q)`;
            `line_logits (L, B, Q, C)`, `lines (L, B, Q, points, 3)`, and `line_logits_one2many`, `lines_one2many` of
            the one-to-many queries. Copies and one-to-many queries are none outside training.
            Decoded from the last layer: `boxes (B, K, 9)`, `scores`, `labels (B, K)`, best first, label -1 for none;
            `line_points (B, K, points, 3)`, `line_scores`, `line_labels (B, K)`.

        Raises:
            ValueError: the backbone's map does not fit `stride`; in training, boxes without labels or mask; see
                `Moment`; an export with `temporal`.
        """
        batch = images.shape[0]
        features = self.img_backbone(images.flatten(0, 1))
        tokens = features.flatten(2).transpose(1, 2).unflatten(0, (batch, -1)).flatten(1, 2)
        rows, columns = features.shape[-2:]
        if (images.shape[-2] // self.stride, images.shape[-1] // self.stride) != (rows, columns):
            size = tuple(images.shape[-2:])
            raise ValueError(f"stride: pictures of {size} px give {rows} x {columns} patches, not of {self.stride} px")
        token_positions = self._token_positions(lidar2img, (rows, columns))
        copies = self._copies(gt_boxes, gt_labels, gt_mask)
        detect, draw = self.pts_bbox_head, self.map_head
        memories: tuple[Memory, ...] = detect.first_frame(batch), draw.first_frame(batch)
        now = self._moment(ego_pose, timestamp, scene)
        if now is not None:
            memories = self._stream.recall(now, self.training, memories)
        logits, codes, queries = detect(tokens, token_positions, memories[0], copies)
        line_logits, lines, line_queries = draw(tokens, token_positions, memories[1])
        extra = copies.mask.shape[1] if copies is not None else 0
        single = draw.num_lane
        found = {
            "logits": logits[:, :, extra:],
            "codes": codes[:, :, extra:],
            "dn_logits": logits[:, :, :extra],
            "dn_codes": codes[:, :, :extra],
            "dn_boxes": copies.boxes if copies is not None else codes.new_zeros(batch, 0, 9),
            "dn_labels": copies.labels if copies is not None else codes.new_zeros(batch, 0).long(),
            "dn_mask": copies.mask if copies is not None else codes.new_zeros(batch, 0).bool(),
            "line_logits": line_logits[:, :, :single],
            "lines": lines[:, :, :single],
            "line_logits_one2many": line_logits[:, :, single:],
            "lines_one2many": lines[:, :, single:],
        }
        if now is not None:
            self._remember(now, memories, found, (queries[:, extra:], line_queries[:, :single]))
        return found | self._decoded(found)

    def _moment(self, ego_pose: Tensor | None, timestamp: Tensor | None, scene: Tensor | None) -> Moment | None:
        if not self.temporal:
            return None
        if torch.compiler.is_exporting():
            raise ValueError("temporal: a graph has no memory; export the net with temporal=False")
        if ego_pose is None or timestamp is None or scene is None:
            raise ValueError("ego_pose, timestamp and scene are needed with temporal=True")
        return Moment(ego_pose, timestamp, scene)

    @torch.no_grad()
    def _remember(
        self, now: Moment, memories: tuple[Memory, ...], found: dict[str, Tensor], queries: tuple[Tensor, Tensor]
    ) -> None:
        places = found["codes"][-1, :, :, None, :3], found["lines"][-1]
        scores = found["logits"][-1].amax(-1), found["line_logits"][-1].amax(-1)
        heads = zip(memories, queries, places, scores)
        after = tuple(remember(*head, self.num_remembered) for head in heads)
        self._stream.keep(now, self.training, after)

    def _token_positions(self, lidar2img: Tensor, grid: tuple[int, int]) -> Tensor:
        with torch.autocast(lidar2img.device.type, enabled=False):  # half precision would move points by meters
            points = lift_pixels(lidar2img, grid, self.stride, self.coords_d)
            places = inverse_sigmoid(to_unit(points, self.position_range))
        return self.position_encoder(places.flatten(-2).flatten(1, 2))

    def _copies(self, boxes: Tensor | None, labels: Tensor | None, mask: Tensor | None) -> NoisyCopies | None:
        if not self.training or not self.dn_groups or boxes is None:
            return None
        if labels is None or mask is None:
            raise ValueError("gt_labels and gt_mask are needed with gt_boxes")
        return noisy_copies(
            boxes, labels, mask, num_groups=self.dn_groups, noise_scale=self.dn_noise_scale, split=self.dn_split,
            num_classes=self.num_classes, bounds=self.pts_bbox_head.bounds,
        )  # fmt: skip

    def _decoded(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        boxes, scores, labels = best_boxes(
            found["logits"][-1], found["codes"][-1], self.num_detections, self.score_threshold, self.post_center_range
        )
        line_scores, line_labels = found["line_logits"][-1].sigmoid().max(-1)
        return {
            "boxes": boxes, "scores": scores, "labels": labels,
            "line_points": found["lines"][-1], "line_scores": line_scores, "line_labels": line_labels,
        }  # fmt: skip

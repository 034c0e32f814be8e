"""Map head: lines of the map from image tokens."""

import torch
from torch import Tensor, nn

from kd_runner.models.orion.detection_head import BACKGROUND_BIAS
from kd_runner.models.orion.encodings import denormalize_points, inverse_sigmoid
from kd_runner.models.orion.memory import Memory, initial_memory
from kd_runner.models.orion.query_head import DecoderSize, QueryHead
from kd_runner.models.orion.transformer import branch


class OrionHeadM(QueryHead):
    """Map head of ORION: each query is a line of `num_points` points.

    The reference point of point p of line q is sigmoid(W (line_embedding_q + point_embedding_p) + b).

    For training, `num_lane * one_to_many` further queries are decoded by the same layers, and each true line is matched
    to `one_to_many` of them (Jia et al. 2023, "H-DETR", arXiv 2207.13080). The two groups do not attend to each other.

    Args:
        position_layers: see `QueryHead`, as for the next three and `num_points`.
        in_channels: channels of image tokens.
        size: size of the decoder.
        bounds: `(6,)`, in meters.
        num_classes: number of classes of lines.
        num_lane: one-to-one queries.
        one_to_many: one-to-many queries per one-to-one query.
        num_points: points of a line.
        memory_length: lines in the memory.
    """

    def __init__(
        self, position_layers: dict[str, nn.Module], in_channels: int, size: DecoderSize, bounds: Tensor, *,
        num_classes: int, num_lane: int, one_to_many: int, num_points: int, memory_length: int,
    ):  # fmt: skip
        super().__init__(position_layers, in_channels, size, bounds, num_points)
        self.num_lane, self.memory_length = num_lane, memory_length
        self.instance_embedding_lane = nn.Embedding(num_lane * (1 + one_to_many), size.dim)
        self.points_embedding_lane = nn.Embedding(num_points, size.dim)
        self.reference_points_lane = nn.Linear(size.dim, 3)
        classify, regress = branch(size.dim, num_classes, norm=True), branch(size.dim, 3 * num_points, norm=False)
        nn.init.constant_(classify[-1].bias, BACKGROUND_BIAS)  # type: ignore[arg-type]
        self.cls_branches = nn.ModuleList([classify] * size.depth)
        self.reg_branches = nn.ModuleList([regress] * size.depth)

    def initial_memory(self, batch: int) -> Memory:
        """Memory of the first frame of a scene.

        Args:
            batch: number of samples B.

        Returns:
            The memory.
        """
        return initial_memory(batch, self.dim, self.memory_length, self.bounds.new_zeros(0, self.num_points, 3))

    def forward(
        self, tokens: Tensor, token_positions: Tensor, memory: Memory, one_to_many: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decode lines with Q queries: `num_lane`, with `one_to_many` followed by the one-to-many queries.

        Args:
            tokens: `(B, T, in_channels)`, image tokens.
            token_positions: `(B, T, dim)`, their position encodings.
            memory: of `memory_length` lines.
            one_to_many: decode the one-to-many queries too. An argument and not the mode of this module: a student
                with a frozen head keeps the head in evaluation mode.

        Returns:
            Logits `(depth, B, Q, classes)`, points `(depth, B, Q, points, 3)` in meters, and the queries of the last
            layer `(B, Q, dim)`.
        """
        lines = self.instance_embedding_lane.weight
        if not one_to_many:
            lines = lines[: self.num_lane]
        references = self.reference_points_lane(lines[:, None] + self.points_embedding_lane.weight).sigmoid()
        batch = tokens.shape[0]
        queries, positions = (x.expand(batch, -1, -1) for x in (lines, self.encode_positions(references)))
        outputs = self.transformer(
            queries, positions, self.input_projection(tokens), token_positions,
            memory.embedding, self.encode_memory_positions(memory), attn_mask=self._attention_mask(len(lines)),
        )  # fmt: skip
        logits = torch.stack([branch(x) for branch, x in zip(self.cls_branches, outputs)])
        offsets = torch.stack([branch(x) for branch, x in zip(self.reg_branches, outputs)])
        points = (offsets.unflatten(-1, (self.num_points, 3)) + inverse_sigmoid(references)).sigmoid()
        return logits, denormalize_points(points, self.bounds), outputs[-1]

    def _attention_mask(self, num_query: int) -> Tensor | None:
        """Attention mask `(Q, Q + memory_length)`: queries attend within their own group and to the memory."""
        if num_query == self.num_lane:
            return None
        one_to_one = torch.arange(num_query, device=self.bounds.device) < self.num_lane
        memory = one_to_one.new_ones(num_query, self.memory_length)
        return torch.cat((one_to_one[:, None] == one_to_one[None], memory), dim=1)

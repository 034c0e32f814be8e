"""Lines of the map from image tokens."""

import torch
from torch import Tensor, nn

from kd_runner.models.orion.detection_head import BACKGROUND_BIAS
from kd_runner.models.orion.memory import Memory, first_frame
from kd_runner.models.orion.positions import from_unit, inverse_sigmoid
from kd_runner.models.orion.query_head import DecoderSize, QueryHead
from kd_runner.models.orion.transformer import branch


class OrionHeadM(QueryHead):
    """Map head: a query is a line of `num_points` points, embedding of the line plus embedding of the point.

    `num_lane * one_to_many` further queries, each line being matched to `one_to_many` of them, share all layers in
    training (Jia et al. 2023, "H-DETR", arXiv 2207.13080); the two groups do not see each other.

    Args:
        memory_length: remembered lines.
        layers, in_channels, size, bounds: see `QueryHead`.
    """

    def __init__(
        self, layers: dict[str, nn.Module], in_channels: int, size: DecoderSize, bounds: Tensor, *,
        num_classes: int, num_lane: int, one_to_many: int, num_points: int, memory_length: int,
    ):  # fmt: skip
        super().__init__(layers, in_channels, size, bounds, num_points)
        self.num_lane, self.memory_length = num_lane, memory_length
        self.instance_embedding_lane = nn.Embedding(num_lane * (1 + one_to_many), size.dim)
        self.points_embedding_lane = nn.Embedding(num_points, size.dim)
        self.reference_points_lane = nn.Linear(size.dim, 3)
        classify, regress = branch(size.dim, num_classes, norm=True), branch(size.dim, 3 * num_points, norm=False)
        nn.init.constant_(classify[-1].bias, BACKGROUND_BIAS)  # type: ignore[arg-type]
        self.cls_branches = nn.ModuleList([classify] * size.depth)
        self.reg_branches = nn.ModuleList([regress] * size.depth)

    def first_frame(self, batch: int) -> Memory:
        """Memory of a frame without a past."""
        return first_frame(batch, self.dim, self.memory_length, self.bounds.new_zeros(0, self.num_points, 3))

    def forward(self, tokens: Tensor, token_positions: Tensor, memory: Memory) -> tuple[Tensor, Tensor, Tensor]:
        """Logits `(depth, B, Q, classes)`, points in m `(depth, B, Q, points, 3)`, and the last layer's queries
        `(B, Q, dim)`, for Q = `num_lane`, in training followed by the one-to-many queries.

        Args:
            tokens, token_positions: `(B, T, in_channels)`, `(B, T, dim)`.
            memory: of `memory_length` lines.
        """
        lines = self.instance_embedding_lane.weight
        if not self.training:
            lines = lines[: self.num_lane]
        references = self.reference_points_lane(lines[:, None] + self.points_embedding_lane.weight).sigmoid()
        batch = tokens.shape[0]
        queries, positions = (x.expand(batch, -1, -1) for x in (lines, self.positions(references)))
        outputs = self.transformer(
            queries, positions, self.input_projection(tokens), token_positions,
            memory.embedding, self.memory_positions(memory), allowed=self._allowed(len(lines)),
        )  # fmt: skip
        logits = torch.stack([branch(x) for branch, x in zip(self.cls_branches, outputs)])
        offsets = torch.stack([branch(x) for branch, x in zip(self.reg_branches, outputs)])
        points = (offsets.unflatten(-1, (self.num_points, 3)) + inverse_sigmoid(references)).sigmoid()
        return logits, from_unit(points, self.bounds), outputs[-1]

    def _allowed(self, num_query: int) -> Tensor | None:
        """Who sees whom: each group itself and the memory."""
        if num_query == self.num_lane:
            return None
        single = torch.arange(num_query, device=self.bounds.device) < self.num_lane
        memory = single.new_ones(num_query, self.memory_length)
        return torch.cat((single[:, None] == single[None], memory), dim=1)

"""Base of both heads: position encodings of queries and the transformer decoder."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_runner.models.orion.encodings import NUM_FREQUENCIES, nerf_encoding, normalize_points, time_encoding
from kd_runner.models.orion.memory import Memory
from kd_runner.models.orion.transformer import Transformer, position_mlp

_MOTION_SIZE = 2 * NUM_FREQUENCIES * 13  # encoding of an age and of the first three rows of a motion matrix


@dataclass(frozen=True)
class DecoderSize:
    """Size of a transformer decoder.

    Attributes:
        dim: channels of queries.
        num_heads: attention heads.
        hidden: width of the MLPs.
        depth: number of layers.
        dropout: dropout rate.
    """

    dim: int
    num_heads: int
    hidden: int
    depth: int
    dropout: float


class MotionLayerNorm(nn.Module):
    """LayerNorm whose scale and shift depend on the ego motion ("MLN" in StreamPETR).

    y = gamma(c) * LayerNorm(x) + beta(c), c = ReLU(W condition + b)

    Args:
        condition_dim: channels of the condition.
        dim: channels of x.
    """

    def __init__(self, condition_dim: int, dim: int):
        super().__init__()
        self.reduce = nn.Sequential(nn.Linear(condition_dim, dim), nn.ReLU())
        self.gamma, self.beta = nn.Linear(dim, dim), nn.Linear(dim, dim)
        for layer, bias in ((self.gamma, 1.0), (self.beta, 0.0)):
            nn.init.zeros_(layer.weight)
            nn.init.constant_(layer.bias, bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Normalize.

        Args:
            x: `(..., dim)`.
            condition: `(..., condition_dim)`.

        Returns:
            `(..., dim)`.
        """
        condition = self.reduce(condition)
        return self.gamma(condition) * F.layer_norm(x, x.shape[-1:]) + self.beta(condition)


def build_position_layers(dim: int, num_points: int) -> dict[str, nn.Module]:
    """Layers that encode the positions of queries, by their names in checkpoints. Both heads share one set.

    Args:
        dim: channels of queries.
        num_points: reference points per query.

    Returns:
        Name to layer.
    """
    return {
        "query_pos": position_mlp(2 * NUM_FREQUENCIES * 3 * num_points, dim, dim),
        "time_embedding": nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim)),
        "ego_pose_pe": MotionLayerNorm(_MOTION_SIZE, dim),
    }


class QueryHead(nn.Module):
    """Base class: queries with reference points, decoded against image tokens and the memory.

    Args:
        position_layers: from `build_position_layers`, shared with the other head.
        in_channels: channels of image tokens.
        size: size of the decoder.
        bounds: `(6,)`, range of reference points: minimum x, y, z and maximum x, y, z in meters.
        num_points: reference points per position encoding; a single reference point is repeated.
    """

    def __init__(
        self,
        position_layers: dict[str, nn.Module],
        in_channels: int,
        size: DecoderSize,
        bounds: Tensor,
        num_points: int,
    ):
        super().__init__()
        for name, layer in position_layers.items():
            self.add_module(name, layer)
        self.query_pos: nn.Module
        self.time_embedding: nn.Module
        self.ego_pose_pe: nn.Module
        self.dim, self.num_points = size.dim, num_points
        self.transformer = Transformer(size.dim, size.num_heads, size.hidden, size.depth, size.dropout)
        self.input_projection = nn.Linear(in_channels, size.dim)
        self.register_buffer("bounds", bounds, persistent=False)
        self.bounds: Tensor

    def encode_positions(self, references: Tensor) -> Tensor:
        """Position encodings of queries of the current frame.

        Args:
            references: `(..., points, 3)`, normalized to 0..1.

        Returns:
            `(..., dim)`.
        """
        age_s = references.new_zeros(*references.shape[:-2], 1)
        return self._encode_references(references) + self.time_embedding(time_encoding(age_s, self.dim))

    def encode_memory_positions(self, memory: Memory) -> Tensor:
        """Position encodings of the queries in the memory.

        Args:
            memory: of M queries.

        Returns:
            `(B, M, dim)`.
        """
        motion = torch.cat((memory.age_s, memory.motion[..., :3, :].flatten(-2)), dim=-1)
        references = self._encode_references(normalize_points(memory.references, self.bounds))
        positions = self.ego_pose_pe(references, nerf_encoding(motion))
        return positions + self.time_embedding(time_encoding(memory.age_s, self.dim))

    def _encode_references(self, references: Tensor) -> Tensor:
        points = references.expand(*references.shape[:-2], self.num_points, 3)
        return self.query_pos(nerf_encoding(points.flatten(-2)))

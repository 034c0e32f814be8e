"""What both heads have in common: positions of queries, and the decoder."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_runner.models.orion.memory import Memory
from kd_runner.models.orion.positions import NUM_FREQUENCIES, nerf_encoding, time_encoding, to_unit
from kd_runner.models.orion.transformer import Transformer, position_mlp

_MOTION_SIZE = 2 * NUM_FREQUENCIES * 13  # an age and the first three rows of a motion


@dataclass(frozen=True)
class DecoderSize:
    """Channels, attention heads, width of the MLPs, number of layers, dropout of a decoder."""

    dim: int
    num_heads: int
    hidden: int
    depth: int
    dropout: float


class MotionLayerNorm(nn.Module):
    """LayerNorm whose scale and shift follow the motion of the car (StreamPETR, "MLN")."""

    def __init__(self, condition_dim: int, dim: int):
        super().__init__()
        self.reduce = nn.Sequential(nn.Linear(condition_dim, dim), nn.ReLU())
        self.gamma, self.beta = nn.Linear(dim, dim), nn.Linear(dim, dim)
        for layer, bias in ((self.gamma, 1.0), (self.beta, 0.0)):
            nn.init.zeros_(layer.weight)
            nn.init.constant_(layer.bias, bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x `(..., dim)`, condition `(..., condition_dim)`."""
        condition = self.reduce(condition)
        return self.gamma(condition) * F.layer_norm(x, x.shape[-1:]) + self.beta(condition)


def position_layers(dim: int, num_points: int) -> dict[str, nn.Module]:
    """The layers that give queries a position, by their names in checkpoints. Both heads list one set as their own.

    Args:
        num_points: reference points that a position is made of.
    """
    return {
        "query_pos": position_mlp(2 * NUM_FREQUENCIES * 3 * num_points, dim, dim),
        "time_embedding": nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim)),
        "ego_pose_pe": MotionLayerNorm(_MOTION_SIZE, dim),
    }


class QueryHead(nn.Module):
    """Queries with reference points, decoded against image tokens and remembered queries.

    Args:
        layers: `position_layers`, shared with the other head.
        in_channels: of image tokens.
        bounds: of reference points, x, y, z from and to in m.
        num_points: reference points that positions are made of; a query with a single one has it repeated.
    """

    def __init__(
        self, layers: dict[str, nn.Module], in_channels: int, size: DecoderSize, bounds: Tensor, num_points: int
    ):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.query_pos: nn.Module
        self.time_embedding: nn.Module
        self.ego_pose_pe: nn.Module
        self.dim, self.num_points = size.dim, num_points
        self.transformer = Transformer(size.dim, size.num_heads, size.hidden, size.depth, size.dropout)
        self.input_projection = nn.Linear(in_channels, size.dim)
        self.register_buffer("bounds", bounds, persistent=False)
        self.bounds: Tensor

    def positions(self, references: Tensor) -> Tensor:
        """Of queries of this frame: references `(..., points, 3)` in 0..1 to `(..., dim)`."""
        now = references.new_zeros(*references.shape[:-2], 1)
        return self._place(references) + self.time_embedding(time_encoding(now, self.dim))

    def memory_positions(self, memory: Memory) -> Tensor:
        """Of remembered queries: `(B, M, dim)`."""
        motion = torch.cat((memory.age_s, memory.motion[..., :3, :].flatten(-2)), dim=-1)
        place = self.ego_pose_pe(self._place(to_unit(memory.references, self.bounds)), nerf_encoding(motion))
        return place + self.time_embedding(time_encoding(memory.age_s, self.dim))

    def _place(self, references: Tensor) -> Tensor:
        points = references.expand(*references.shape[:-2], self.num_points, 3)
        return self.query_pos(nerf_encoding(points.flatten(-2)))

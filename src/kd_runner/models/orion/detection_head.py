"""Boxes from image tokens."""

import math

import torch
from torch import Tensor, nn

from kd_runner.geometry.orion_coder import CODE_SIZE
from kd_runner.models.orion.denoising import NoisyCopies
from kd_runner.models.orion.memory import Memory, first_frame
from kd_runner.models.orion.positions import from_unit, inverse_sigmoid, to_unit
from kd_runner.models.orion.query_head import DecoderSize, QueryHead
from kd_runner.models.orion.transformer import branch

BACKGROUND_BIAS = -math.log((1 - 0.01) / 0.01)  # every class starts at a score of 0.01 (Lin et al. 2017, focal loss)


class OrionHead(QueryHead):
    """Detection head. Every layer predicts with the same two branches, which the state dict lists `depth` times.

    Left out of the public module: the 256 scene tokens for the language model, which the queries that are matched
    cannot see; motion, traffic lights, scene memory.

    Args:
        num_query, num_propagated: queries with learned and with remembered reference points; on the first frame of a
            scene the latter are `pseudo_reference_points`, which are not trained.
        memory_length: remembered queries, the propagated ones among them.
        position_init_queries: queries begin with their positions instead of zeros, so that they know what their
            answers are relative to. Not in the published model: there positions are in queries and keys of attention
            only, and a decoder must learn from which direction an answer came by where its heads look.
        layers, in_channels, size, bounds, num_points: see `QueryHead`.
    """

    def __init__(
        self, layers: dict[str, nn.Module], in_channels: int, size: DecoderSize, bounds: Tensor, *,
        num_points: int, num_classes: int, num_query: int, num_propagated: int, memory_length: int,
        position_init_queries: bool = False,
    ):  # fmt: skip
        super().__init__(layers, in_channels, size, bounds, num_points)
        if not 0 <= num_propagated <= memory_length:
            raise ValueError(f"num_propagated: {num_propagated} must lie within 0..memory_length={memory_length}")
        self.num_propagated, self.memory_length, self.position_init_queries = (
            num_propagated,
            memory_length,
            position_init_queries,
        )
        self.places = nn.Identity()  # to be hooked: reference points (B, Q, 3) of all queries, in 0..1
        self.reference_points = nn.Embedding(num_query, 3)
        nn.init.uniform_(self.reference_points.weight)
        if num_propagated:
            self.pseudo_reference_points = nn.Embedding(num_propagated, 3)
            nn.init.uniform_(self.pseudo_reference_points.weight)
            self.pseudo_reference_points.weight.requires_grad_(False)
        classify, regress = branch(size.dim, num_classes, norm=True), branch(size.dim, CODE_SIZE, norm=False)
        nn.init.constant_(classify[-1].bias, BACKGROUND_BIAS)  # type: ignore[arg-type]
        self.cls_branches = nn.ModuleList([classify] * size.depth)
        self.reg_branches = nn.ModuleList([regress] * size.depth)

    def first_frame(self, batch: int) -> Memory:
        """Memory of a frame without a past."""
        pseudo = self.bounds.new_zeros(0, 1, 3)
        if self.num_propagated:
            pseudo = from_unit(self.pseudo_reference_points.weight, self.bounds)[:, None]
        return first_frame(batch, self.dim, self.memory_length, pseudo)

    def forward(
        self, tokens: Tensor, token_positions: Tensor, memory: Memory, copies: NoisyCopies | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits `(depth, B, Q, classes)`, box codes `(depth, B, Q, 10)` with centers in m, and the last layer's
        queries `(B, Q, dim)`, for Q = noisy copies, learned queries, propagated queries.

        Args:
            tokens, token_positions: `(B, T, in_channels)`, `(B, T, dim)`.
            memory: of `memory_length` queries.
        """
        batch, kept = tokens.shape[0], self.num_propagated
        references = self.reference_points.weight.expand(batch, -1, -1)
        if copies is not None:
            references = torch.cat((copies.references, references), dim=1)
        positions, memory_positions = self.positions(references[..., None, :]), self.memory_positions(memory)
        recalled = to_unit(memory.references[:, :kept, 0], self.bounds)
        references = self.places(torch.cat((references, recalled), dim=1))
        begun = positions if self.position_init_queries else torch.zeros_like(positions)
        queries = torch.cat((begun, memory.embedding[:, :kept]), dim=1)
        positions = torch.cat((positions, memory_positions[:, :kept]), dim=1)
        allowed = None
        if copies is not None:
            num_query = queries.shape[1] - copies.mask.shape[1]
            allowed = copies.allowed(num_query, self.memory_length - kept)
        outputs = self.transformer(
            queries, positions, self.input_projection(tokens), token_positions,
            memory.embedding[:, kept:], memory_positions[:, kept:], allowed=allowed,
        )  # fmt: skip
        logits = torch.stack([branch(x) for branch, x in zip(self.cls_branches, outputs)])
        codes = torch.stack([branch(x) for branch, x in zip(self.reg_branches, outputs)])
        center = (codes[..., :3] + inverse_sigmoid(references)).sigmoid()
        codes = torch.cat((from_unit(center, self.bounds), codes[..., 3:]), dim=-1)
        return logits, codes, outputs[-1]

"""Detection head: 3-D boxes from image tokens."""

import math

import torch
from torch import Tensor, nn

from kd_runner.geometry.orion_coder import CODE_SIZE
from kd_runner.models.orion.denoising import DenoisingQueries
from kd_runner.models.orion.encodings import denormalize_points, inverse_sigmoid, normalize_points
from kd_runner.models.orion.memory import Memory, initial_memory
from kd_runner.models.orion.query_head import DecoderSize, QueryHead
from kd_runner.models.orion.transformer import branch

BACKGROUND_BIAS = -math.log((1 - 0.01) / 0.01)  # initial score 0.01 for every class (Lin et al. 2017, focal loss)


class OrionHead(QueryHead):
    """Detection head of ORION.

    All decoder layers share one classification and one regression branch, which the state dict lists `depth` times.

    Box codes have the public order x, y, log w, log l, z, log h, sin, cos, vx, vy (see `geometry.orion_coder`). With
    the raw output r of a layer and the normalized reference point u,

        code_i = min_i + (max_i - min_i) * sigmoid(r_i + logit(u_i))  for i = 0, 1, 2,   code_i = r_i otherwise,

    where min and max are the range of x, y, z. The public code does the same, although number 2 is log w and z is
    number 4: log w is bounded by the range of z, and z does not start from the reference point. Public weights were
    trained so, and other teachers are trained by the same code. (A range from -5 to 3 allows widths of 0.007 to 20 m.)

    Left out of the public module: the 256 scene tokens for the language model (the matched queries cannot attend to
    them), motion forecasts, traffic lights and the scene memory.

    Args:
        position_layers: see `QueryHead`, as for the next three and `num_points`.
        in_channels: channels of image tokens.
        size: size of the decoder.
        bounds: `(6,)`, in meters.
        num_points: reference points per position encoding.
        num_classes: number of classes.
        num_query: queries with learned reference points.
        num_propagated: queries taken from the memory; on the first frame of a scene their reference points are
            `pseudo_reference_points`, which are not trained.
        memory_length: queries in the memory, the propagated ones included.
        position_init_queries: start queries from their position encodings instead of zeros. Not in the published
            model, where positions enter the queries and keys of attention only, so that a decoder must infer from
            where a head attends in which direction its value lies.

    Raises:
        ValueError: no query; `num_propagated` exceeds `memory_length`.
    """

    def __init__(
        self, position_layers: dict[str, nn.Module], in_channels: int, size: DecoderSize, bounds: Tensor, *,
        num_points: int, num_classes: int, num_query: int, num_propagated: int, memory_length: int,
        position_init_queries: bool = False,
    ):  # fmt: skip
        super().__init__(position_layers, in_channels, size, bounds, num_points)
        if num_query < 1:
            raise ValueError(f"num_query={num_query}: must be at least 1")
        if not 0 <= num_propagated <= memory_length:
            raise ValueError(f"num_propagated: must be in 0..memory_length={memory_length}, got {num_propagated}")
        self.num_propagated, self.memory_length = num_propagated, memory_length
        self.position_init_queries = position_init_queries
        # Identity to hook: reference points (B, Q, 3) of all queries, normalized to 0..1.
        self.query_references = nn.Identity()
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

    def initial_memory(self, batch: int) -> Memory:
        """Memory of the first frame of a scene.

        Args:
            batch: number of samples B.

        Returns:
            The memory.
        """
        pseudo_references = self.bounds.new_zeros(0, 1, 3)
        if self.num_propagated:
            pseudo_references = denormalize_points(self.pseudo_reference_points.weight, self.bounds)[:, None]
        return initial_memory(batch, self.dim, self.memory_length, pseudo_references)

    def forward(
        self, tokens: Tensor, token_positions: Tensor, memory: Memory, denoising: DenoisingQueries | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decode boxes with Q queries: denoising, learned and propagated queries, in this order.

        Args:
            tokens: `(B, T, in_channels)`, image tokens.
            token_positions: `(B, T, dim)`, their position encodings.
            memory: of `memory_length` queries.
            denoising: denoising queries, in training.

        Returns:
            Logits `(depth, B, Q, classes)`, box codes `(depth, B, Q, 10)`, and the queries of the last layer
            `(B, Q, dim)`.
        """
        batch, num_propagated = tokens.shape[0], self.num_propagated
        references = self.reference_points.weight.expand(batch, -1, -1)
        if denoising is not None:
            references = torch.cat((denoising.references, references), dim=1)
        positions = self.encode_positions(references[..., None, :])
        memory_positions = self.encode_memory_positions(memory)
        propagated = normalize_points(memory.references[:, :num_propagated, 0], self.bounds)
        references = self.query_references(torch.cat((references, propagated), dim=1))
        initial = positions if self.position_init_queries else torch.zeros_like(positions)
        queries = torch.cat((initial, memory.embedding[:, :num_propagated]), dim=1)
        positions = torch.cat((positions, memory_positions[:, :num_propagated]), dim=1)
        attn_mask = None
        if denoising is not None:
            num_query = queries.shape[1] - denoising.mask.shape[1]
            attn_mask = denoising.attention_mask(num_query, self.memory_length - num_propagated)
        outputs = self.transformer(
            queries, positions, self.input_projection(tokens), token_positions,
            memory.embedding[:, num_propagated:], memory_positions[:, num_propagated:], attn_mask=attn_mask,
        )  # fmt: skip
        logits = torch.stack([branch(x) for branch, x in zip(self.cls_branches, outputs)])
        codes = torch.stack([branch(x) for branch, x in zip(self.reg_branches, outputs)])
        bounded = (codes[..., :3] + inverse_sigmoid(references)).sigmoid()  # x, y and log w
        codes = torch.cat((denormalize_points(bounded, self.bounds), codes[..., 3:]), dim=-1)
        return logits, codes, outputs[-1]

"""Transformer decoder of both heads, with the parameter names of the public checkpoints."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PackedAttention(nn.Module):
    """Multi-head attention with one tensor for the three input projections, as in `nn.MultiheadAttention`.

    A forward hook on `attn_weights` receives the softmax weights `(B, heads, Q, K)`; they are computed only while a
    hook is registered.

    Args:
        dim: channels.
        num_heads: attention heads.
        dropout: dropout rate of the attention weights.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0):
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        self.attn_weights = nn.Identity()
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Attend from queries to keys.

        Args:
            query: `(B, Q, dim)`.
            key: `(B, K, dim)`.
            value: `(B, K, dim)`.
            attn_mask: bool, broadcastable to `(B, heads, Q, K)`, True where attention is allowed.

        Returns:
            `(B, Q, dim)`.
        """
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(x, weight, bias).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x, weight, bias in zip((query, key, value), weights, biases)
        )
        dropout = self.dropout if self.training else 0.0
        if self.attn_weights._forward_hooks:
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
            scores = scores if attn_mask is None else scores.masked_fill(~attn_mask, -torch.inf)
            out = F.dropout(self.attn_weights(scores.softmax(dim=-1)), dropout) @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, dropout_p=dropout)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class ResidualAttention(nn.Module):
    """x + dropout(attention(x + x_pos, source + source_pos, source)); values carry no position.

    Args:
        dim: channels.
        num_heads: attention heads.
        dropout: dropout rate of the output.
        attention_dropout: dropout rate of the attention weights.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float, attention_dropout: float):
        super().__init__()
        self.attn = PackedAttention(dim, num_heads, attention_dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, x_pos: Tensor, source: Tensor, source_pos: Tensor, attn_mask: Tensor | None = None
    ) -> Tensor:
        """Attend from x to the source.

        Args:
            x: `(B, Q, dim)`.
            x_pos: `(B, Q, dim)`.
            source: `(B, K, dim)`.
            source_pos: `(B, K, dim)`.
            attn_mask: see `PackedAttention`.

        Returns:
            `(B, Q, dim)`.
        """
        return x + self.dropout(self.attn(x + x_pos, source + source_pos, source, attn_mask))


class ResidualFeedForward(nn.Module):
    """x + MLP(x), with the MLP Linear, ReLU, dropout, Linear, dropout.

    Args:
        dim: channels.
        hidden: width of the MLP.
        dropout: dropout rate.
    """

    def __init__(self, dim: int, hidden: int, dropout: float):
        super().__init__()
        linear1, linear2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self._layers = nn.Sequential(linear1, nn.ReLU(), nn.Dropout(dropout), linear2, nn.Dropout(dropout))
        nn.init.xavier_uniform_(linear1.weight)
        nn.init.xavier_uniform_(linear2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the MLP to each vector.

        Args:
            x: `(..., dim)`.

        Returns:
            The same shape.
        """
        return x + self._layers(x)


class DecoderLayer(nn.Module):
    """Self-attention over queries and memory, cross-attention to image tokens, MLP; each followed by a LayerNorm.

    The cross-attention weights have no dropout, as in the public code, which passes the rate as another argument.

    Args:
        dim: channels.
        num_heads: attention heads.
        hidden: width of the MLP.
        dropout: dropout rate.
    """

    def __init__(self, dim: int, num_heads: int, hidden: int, dropout: float):
        super().__init__()
        self.transformer_layers = nn.ModuleList(
            [
                ResidualAttention(dim, num_heads, dropout, attention_dropout=dropout),
                nn.LayerNorm(dim),
                ResidualAttention(dim, num_heads, dropout, attention_dropout=0.0),
                nn.LayerNorm(dim),
                ResidualFeedForward(dim, hidden, dropout),
                nn.LayerNorm(dim),
            ]
        )

    def forward(
        self, x: Tensor, x_pos: Tensor, tokens: Tensor, tokens_pos: Tensor,
        memory: Tensor, memory_pos: Tensor, attn_mask: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """Update the queries.

        Args:
            x: see `QueryDecoder.forward`, as are the others.
            x_pos: `(B, Q, dim)`.
            tokens: `(B, T, dim)`.
            tokens_pos: `(B, T, dim)`.
            memory: `(B, M, dim)`.
            memory_pos: `(B, M, dim)`.
            attn_mask: bool, or None.

        Returns:
            `(B, Q, dim)`.
        """
        self_attn, norm1, cross_attn, norm2, feed_forward, norm3 = self.transformer_layers
        keys, keys_pos = torch.cat((x, memory), dim=1), torch.cat((x_pos, memory_pos), dim=1)
        x = norm1(self_attn(x, x_pos, keys, keys_pos, attn_mask))
        x = norm2(cross_attn(x, x_pos, tokens, tokens_pos))
        return norm3(feed_forward(x))


class QueryDecoder(nn.Module):
    """Stack of decoder layers that returns the output of each layer.

    Args:
        dim: channels.
        num_heads: attention heads.
        hidden: width of the MLPs.
        depth: number of layers.
        dropout: dropout rate.
    """

    def __init__(self, dim: int, num_heads: int, hidden: int, depth: int, dropout: float):
        super().__init__()
        self._layers = nn.ModuleList(DecoderLayer(dim, num_heads, hidden, dropout) for _ in range(depth))

    def forward(
        self, x: Tensor, x_pos: Tensor, tokens: Tensor, tokens_pos: Tensor,
        memory: Tensor, memory_pos: Tensor, attn_mask: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Decode queries.

        Args:
            x: `(B, Q, dim)`, queries.
            x_pos: `(B, Q, dim)`, their position encodings.
            tokens: `(B, T, dim)`, image tokens.
            tokens_pos: `(B, T, dim)`.
            memory: `(B, M, dim)`, further keys of self-attention.
            memory_pos: `(B, M, dim)`.
            attn_mask: bool, broadcastable to `(B, heads, Q, Q + M)`, True where self-attention is allowed.

        Returns:
            `(depth, B, Q, dim)`.
        """
        outputs = []
        for layer in self._layers:
            x = layer(x, x_pos, tokens, tokens_pos, memory, memory_pos, attn_mask)
            outputs.append(x)
        return torch.stack(outputs)


class Transformer(nn.Module):
    """`QueryDecoder` under the parameter prefix of the checkpoints, `transformer.query_decoder.`.

    Args:
        dim: see `QueryDecoder`, as are the others.
        num_heads: attention heads.
        hidden: width of the MLPs.
        depth: number of layers.
        dropout: dropout rate.
    """

    def __init__(self, dim: int, num_heads: int, hidden: int, depth: int, dropout: float):
        super().__init__()
        self.query_decoder = QueryDecoder(dim, num_heads, hidden, depth, dropout)

    def forward(self, *args: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """See `QueryDecoder.forward`.

        Args:
            *args: the tensors, in its order.
            attn_mask: as there.

        Returns:
            `(depth, B, Q, dim)`.
        """
        return self.query_decoder(*args, attn_mask=attn_mask)


def branch(dim: int, out: int, norm: bool, num_hidden: int = 2) -> nn.Sequential:
    """Output branch: several times Linear, optional LayerNorm, ReLU, then Linear.

    Args:
        dim: channels of the input and of the hidden layers.
        out: channels of the output.
        norm: with LayerNorm.
        num_hidden: number of hidden layers.

    Returns:
        The layers.
    """
    layers: list[nn.Module] = []
    for _ in range(num_hidden):
        layers.append(nn.Linear(dim, dim))
        if norm:
            layers.append(nn.LayerNorm(dim))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(dim, out))


def position_mlp(in_dim: int, hidden: int, dim: int) -> nn.Sequential:
    """MLP Linear, ReLU, Linear from an encoded position to `dim` channels.

    Xavier weights: with torch's default initialization the encodings of different positions are so similar that
    attention starts almost uniform.

    Args:
        in_dim: channels of the encoded position.
        hidden: channels of the hidden layer.
        dim: channels of the output.

    Returns:
        The layers.
    """
    mlp = nn.Sequential(nn.Linear(in_dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))
    for weight in (mlp[0].weight, mlp[2].weight):
        nn.init.xavier_uniform_(weight)  # type: ignore[arg-type]
    return mlp

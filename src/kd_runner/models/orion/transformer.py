"""The query decoder of both heads, with the parameter names of the public checkpoints."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PackedAttention(nn.Module):
    """Multi-head attention whose three input projections are one tensor, as in `nn.MultiheadAttention`.

    `map` is there to be hooked: it sees the weights `(B, heads, Q, K)`, which exist only while it is.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0):
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        self.map = nn.Identity()
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None = None) -> Tensor:
        """query `(B, Q, dim)`, key and value `(B, K, dim)`; `allowed`, bool, broadcasts to `(B, heads, Q, K)`."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(x, weight, bias).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x, weight, bias in zip((query, key, value), weights, biases)
        )
        dropout = self.dropout if self.training else 0.0
        if self.map._forward_hooks:
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
            scores = scores if allowed is None else scores.masked_fill(~allowed, -torch.inf)
            out = F.dropout(self.map(scores.softmax(dim=-1)), dropout) @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class ResidualAttention(nn.Module):
    """`x + dropout(attention)`; positions are added to queries and keys, not to values."""

    def __init__(self, dim: int, num_heads: int, dropout: float, attention_dropout: float):
        super().__init__()
        self.attn = PackedAttention(dim, num_heads, attention_dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, x_pos: Tensor, source: Tensor, source_pos: Tensor, allowed: Tensor | None = None
    ) -> Tensor:
        return x + self.dropout(self.attn(x + x_pos, source + source_pos, source, allowed))


class ResidualFeedForward(nn.Module):
    """`x + MLP(x)`."""

    def __init__(self, dim: int, hidden: int, dropout: float):
        super().__init__()
        widen, narrow = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self._layers = nn.Sequential(widen, nn.ReLU(), nn.Dropout(dropout), narrow, nn.Dropout(dropout))
        nn.init.xavier_uniform_(widen.weight)
        nn.init.xavier_uniform_(narrow.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self._layers(x)


class DecoderLayer(nn.Module):
    """Self-attention over queries and memory, cross-attention to image tokens, MLP; each followed by its norm.

    The weights of the cross-attention are never dropped: upstream passes the rate in the place of another argument.
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
        memory: Tensor, memory_pos: Tensor, allowed: Tensor | None,
    ) -> Tensor:  # fmt: skip
        attend, norm1, look, norm2, feed_forward, norm3 = self.transformer_layers
        keys, keys_pos = torch.cat((x, memory), dim=1), torch.cat((x_pos, memory_pos), dim=1)
        x = norm1(attend(x, x_pos, keys, keys_pos, allowed))
        x = norm2(look(x, x_pos, tokens, tokens_pos))
        return norm3(feed_forward(x))


class QueryDecoder(nn.Module):
    """`depth` layers; the output of each one is returned."""

    def __init__(self, dim: int, num_heads: int, hidden: int, depth: int, dropout: float):
        super().__init__()
        self._layers = nn.ModuleList(DecoderLayer(dim, num_heads, hidden, dropout) for _ in range(depth))

    def forward(
        self, x: Tensor, x_pos: Tensor, tokens: Tensor, tokens_pos: Tensor,
        memory: Tensor, memory_pos: Tensor, allowed: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Queries `(B, Q, dim)`, image tokens `(B, T, dim)`, memory `(B, M, dim)`, each with its positions, to
        `(depth, B, Q, dim)`. `allowed`, bool, broadcasts to `(B, heads, Q, Q + M)`.
        """
        outputs = []
        for layer in self._layers:
            x = layer(x, x_pos, tokens, tokens_pos, memory, memory_pos, allowed)
            outputs.append(x)
        return torch.stack(outputs)


class Transformer(nn.Module):
    """`QueryDecoder` under the name that checkpoints have for it."""

    def __init__(self, dim: int, num_heads: int, hidden: int, depth: int, dropout: float):
        super().__init__()
        self.query_decoder = QueryDecoder(dim, num_heads, hidden, depth, dropout)

    def forward(self, *args: Tensor, allowed: Tensor | None = None) -> Tensor:
        return self.query_decoder(*args, allowed=allowed)


def branch(dim: int, out: int, norm: bool, num_hidden: int = 2) -> nn.Sequential:
    """An output branch: `num_hidden` times Linear, (LayerNorm,) ReLU, then Linear to `out`."""
    layers: list[nn.Module] = []
    for _ in range(num_hidden):
        layers += [nn.Linear(dim, dim), *([nn.LayerNorm(dim)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(dim, out))


def position_mlp(width: int, hidden: int, dim: int) -> nn.Sequential:
    """Linear, ReLU, Linear from an encoded place to `dim` channels.

    Xavier weights, where torch's own would make places differ so little that attention starts out blind to them.
    """
    mlp = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, dim))
    for weight in (mlp[0].weight, mlp[2].weight):
        nn.init.xavier_uniform_(weight)  # type: ignore[arg-type]
    return mlp

"""The transformer decoder layer of TransFusion (Bai et al., CVPR 2022, arXiv 2203.11496, section 3.2)."""

import torch
from torch import Tensor, nn


class PositionEmbedding(nn.Module):
    """Learned vectors for positions in the map.

    Args:
        channels: width of the vectors.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.position_embedding_head = nn.Sequential(
            nn.Conv1d(2, channels, 1), nn.BatchNorm1d(channels), nn.ReLU(), nn.Conv1d(channels, channels, 1)
        )

    def forward(self, position: Tensor) -> Tensor:
        """Embed positions.

        Args:
            position: `(B, N, 2)`, in cells.

        Returns:
            `(B, N, channels)`.
        """
        return self.position_embedding_head(position.transpose(1, 2)).transpose(1, 2)


class ResidualAttention(nn.Module):
    """`query + dropout(attention)`, the positions added to query, key and, unlike DETR, value too.

    Args:
        channels: width of queries and keys.
        heads: number of heads.
        dropout: probability, of attention weights and of the result.
    """

    def __init__(self, channels: int, heads: int, dropout: float):
        super().__init__()
        self.attn = nn.MultiheadAttention(channels, heads, dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, query_embedding: Tensor, placed: Tensor) -> Tensor:
        """Attend from the queries to the keys.

        Args:
            query: `(B, Q, C)`.
            query_embedding: the queries' positions, embedded, `(B, Q, C)`.
            placed: keys with their positions added, `(B, K, C)`.

        Returns:
            `(B, Q, C)`.
        """
        return query + self.dropout(self.attn(query + query_embedding, placed, placed, need_weights=False)[0])


class FeedForward(nn.Module):
    """`x + MLP(x)` with one hidden layer.

    Args:
        channels: width of the input and output.
        hidden: width of the hidden layer.
        dropout: probability.
    """

    def __init__(self, channels: int, hidden: int, dropout: float):
        super().__init__()
        first = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.layers = nn.Sequential(first, nn.Linear(hidden, channels), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the net to each vector.

        Args:
            x: `(..., channels)`.

        Returns:
            The same shape.
        """
        return x + self.layers(x)


class DecoderLayer(nn.Module):
    """Attention among the queries, then to the map, then a feed-forward net; layer norm after each (post-norm).

    Args:
        channels: width of queries and keys.
        heads: number of heads.
        hidden: width of the feed-forward net's hidden layer.
        dropout: probability.
    """

    def __init__(self, channels: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.self_attn = ResidualAttention(channels, heads, dropout)
        self.cross_attn = ResidualAttention(channels, heads, dropout)
        self.ffn = FeedForward(channels, hidden, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        self.self_posembed = PositionEmbedding(channels)
        self.cross_posembed = PositionEmbedding(channels)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, query: Tensor, key: Tensor, query_position: Tensor, key_position: Tensor) -> Tensor:
        """Update the queries from each other and from the map.

        Args:
            query: `(B, Q, C)`.
            key: cells of the map, `(B, K, C)`.
            query_position: `(B, Q, 2)`, in cells.
            key_position: `(1, K, 2)`, in cells.

        Returns:
            The queries, `(B, Q, C)`.
        """
        embedding = self.self_posembed(query_position)
        query = self.norms[0](self.self_attn(query, embedding, query + embedding))
        query = self.norms[1](self.cross_attn(query, embedding, key + self.cross_posembed(key_position)))
        return self.norms[2](self.ffn(query))


def grid_positions(shape: tuple[int, int]) -> Tensor:
    """Centers of the cells of a map.

    Args:
        shape: cells along x and y.

    Returns:
        `(1, X * Y, 2)`, x slowest, in cells.
    """
    x, y = torch.meshgrid(torch.arange(shape[0]) + 0.5, torch.arange(shape[1]) + 0.5, indexing="ij")
    return torch.stack((x, y), -1).flatten(0, 1)[None]

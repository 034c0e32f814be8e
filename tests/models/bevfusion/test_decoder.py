"""The decoder layer, and how queries begin, against the paper's formulas written out with plain matrices."""

from collections.abc import Callable

import torch
from torch import Tensor

from kd_runner.models.bevfusion import BEVFusionLidar
from kd_runner.models.bevfusion.decoder import DecoderLayer, PositionEmbedding, grid_positions


def attention(attn: torch.nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V, head by head, of one sample (Q, C), (K, C)."""
    width = query.shape[1] // attn.num_heads
    weights, biases = attn.in_proj_weight.chunk(3), attn.in_proj_bias.chunk(3)
    q, k, v = (x @ w.T + b for x, w, b in zip((query, key, value), weights, biases))
    heads = []
    for h in range(attn.num_heads):
        part = slice(h * width, (h + 1) * width)
        heads.append((q[:, part] @ k[:, part].T / width**0.5).softmax(1) @ v[:, part])
    return torch.cat(heads, 1) @ attn.out_proj.weight.T + attn.out_proj.bias


def embedded(module: PositionEmbedding, position: Tensor) -> Tensor:
    first, norm, _, last = module.position_embedding_head
    x = position @ first.weight[..., 0].T + first.bias
    x = (x - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    return x.clamp(min=0) @ last.weight[..., 0].T + last.bias


def test_layer_by_hand() -> None:
    """Positions are added to the queries, to the keys and to the values."""
    torch.manual_seed(0)
    layer = DecoderLayer(8, 2, 12, dropout=0.1).eval()
    query, key, position = torch.randn(5, 8), torch.randn(12, 8), torch.rand(5, 2) * 4
    cells = grid_positions((3, 4))[0]
    assert cells[:5].tolist() == [[0.5, 0.5], [0.5, 1.5], [0.5, 2.5], [0.5, 3.5], [1.5, 0.5]]
    actual = layer(query[None], key[None], position[None], cells[None])[0]

    embedding, grid = embedded(layer.self_posembed, position), embedded(layer.cross_posembed, cells)
    x = layer.norms[0](query + attention(layer.self_attn.attn, query + embedding, query + embedding, query + embedding))
    x = layer.norms[1](x + attention(layer.cross_attn.attn, x + embedding, key + grid, key + grid))
    (first, _, _), last, _ = layer.ffn.layers
    x = layer.norms[2](x + last(first(x).relu()))
    torch.testing.assert_close(actual, x)


def test_a_query_begins_as_its_cell_and_its_class(small: Callable[..., BEVFusionLidar]) -> None:
    head = small().bbox_head.eval()
    given: list[Tensor] = []
    head.decoder[0].register_forward_pre_hook(lambda _, args: given.extend(args))
    x = torch.randn(1, 14, 8, 8)
    labels = head(x)["query_labels"][0]
    query, cells, position, _ = (tensor[0] for tensor in given)
    for row in range(len(labels)):
        i, j = position[row].floor().long().tolist()
        expected = head.shared_conv(x)[0, :, i, j] + head.class_encoding.weight[:, labels[row], 0]
        torch.testing.assert_close(query[row], expected + head.class_encoding.bias)
        torch.testing.assert_close(cells[8 * i + j], head.shared_conv(x)[0, :, i, j])

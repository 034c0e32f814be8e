"""The decoder compared with torch's own attention."""

import torch
from torch import nn

from kd_runner.models.orion.transformer import DecoderLayer, PackedAttention


def test_packed_attention_is_torch_multi_head_attention() -> None:
    torch.manual_seed(0)
    attention, reference = PackedAttention(12, 3).double(), nn.MultiheadAttention(12, 3, batch_first=True).double()
    for p in attention.parameters():
        p.data = torch.randn_like(p)
    reference.load_state_dict(attention.state_dict())  # the same names and shapes
    query, key, value = (torch.randn(2, n, 12).double() for n in (4, 5, 5))
    attn_mask = torch.rand(4, 5) < 0.6
    attn_mask[:, 0] = True
    expected = reference(query, key, value, attn_mask=~attn_mask)[0]
    torch.testing.assert_close(attention(query, key, value, attn_mask), expected)


def test_a_layer_step_by_step() -> None:
    torch.manual_seed(0)
    layer = DecoderLayer(8, 2, 10, 0.1).eval()
    self_attn, norm1, cross_attn, norm2, mlp, norm3 = layer.transformer_layers
    x, x_pos, memory, memory_pos, tokens, tokens_pos = (torch.randn(1, n, 8) for n in (3, 3, 2, 2, 6, 6))
    keys = torch.cat((x, memory), 1)
    step = norm1(x + self_attn.attn(x + x_pos, keys + torch.cat((x_pos, memory_pos), 1), keys))
    step = norm2(step + cross_attn.attn(step + x_pos, tokens + tokens_pos, tokens))
    step = norm3(step + mlp._layers(step))
    torch.testing.assert_close(layer(x, x_pos, tokens, tokens_pos, memory, memory_pos, None), step)


def test_only_self_attention_weights_have_dropout() -> None:
    layer = DecoderLayer(8, 2, 10, 0.4)
    self_attn, _, cross_attn, *_ = layer.transformer_layers
    assert (self_attn.attn.dropout, cross_attn.attn.dropout) == (0.4, 0.0)
    assert self_attn.dropout.p == cross_attn.dropout.p == 0.4

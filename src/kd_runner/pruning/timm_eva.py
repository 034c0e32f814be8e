"""timm's `EvaAttention` shapes its heads to the width of its input, so it runs with all of its heads only."""

import torch
import torch.nn.functional as F
from timm.layers import apply_rot_embed_cat
from timm.models.eva import EvaAttention
from torch import Tensor


class AnyWidthEvaAttention(EvaAttention):
    """`EvaAttention` of timm 1.0.20 to 1.0.31 that takes its width from its weights.

    Surgery changes the class of a pruned module to this one; parameters, their names and hooks stay.
    """

    def forward(
        self, x: Tensor, rope: Tensor | None = None, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Self-attention among the tokens.

        Args:
            x: tokens `(B, N, C)`.
            rope: rotary tables `(N without prefix tokens, 2 * head_dim)`.
            attn_mask: as for `torch.nn.functional.scaled_dot_product_attention`.
            is_causal: likewise.

        Returns:
            `(B, N, C)`.
        """
        if self.qkv is not None:
            biases = [b for b in (self.q_bias, self.k_bias, self.v_bias) if b is not None]
            q, k, v = F.linear(x, self.qkv.weight, torch.cat(tuple(biases)) if biases else None).chunk(3, dim=-1)
        else:
            q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
        q, k = self._turn(self.q_norm(q), rope).type_as(v), self._turn(self.k_norm(k), rope).type_as(v)
        dropout = self.attn_drop.p if self.training else 0.0
        x_out = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, dropout_p=dropout, is_causal=is_causal)
        x_out = self.norm(x_out.transpose(1, 2).flatten(2))
        gate = getattr(self, "gate", None)
        if gate is not None:
            x_out = x_out * gate(x).sigmoid()
        return self.proj_drop(self.proj(x_out))

    def _turn(self, x: Tensor, rope: Tensor | None) -> Tensor:
        if rope is None:
            return x
        prefix, grid = x[:, :, : self.num_prefix_tokens], x[:, :, self.num_prefix_tokens :]
        half = getattr(self, "rotate_half", False)
        return torch.cat((prefix, apply_rot_embed_cat(grid, rope, half=half)), dim=2)

"""EVA-02 as a detection backbone, as used by ORION.

Sources: EVA-02 (Fang et al. 2023, arXiv 2303.11331), windowed and global blocks of ViTDet (Li et al. 2022,
arXiv 2203.16527), SwiGLU (Shazeer 2020, arXiv 2002.05202). Parameter names are those of the public ORION and
StreamPETR checkpoints after the prefix `img_backbone.`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import StochasticDepth

from kd_runner.models.orion.encodings import sincos_position_table
from kd_runner.models.orion.rope import rope_tables, rotate
from kd_runner.models.orion.windows import join_windows, split_windows

ORION_WINDOW_BLOCKS = (0, 1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16, 18, 19, 21, 22)


class Attention(nn.Module):
    """Multi-head self-attention with rotary positions; queries and values have a bias, keys have none.

    Two identity modules are there for forward hooks. `head_outputs` receives the concatenated head outputs
    `(rows, tokens, num_heads * head_dim)` before `proj`. `attn_weights` receives the softmax weights
    `(rows, num_heads, tokens, tokens)`, which are computed only while a hook is registered. A row is an image, or in
    windowed blocks a window; padding tokens are included, as in the attention itself. The buffer `head_index` holds
    the number of each head in the unpruned net.

    Args:
        dim: channels of tokens.
        num_heads: attention heads.
        head_dim: channels per head.
    """

    def __init__(self, dim: int, num_heads: int, head_dim: int):
        super().__init__()
        width = num_heads * head_dim
        self.num_heads, self.head_dim = num_heads, head_dim
        self.q_proj = nn.Linear(dim, width, bias=False)
        self.k_proj = nn.Linear(dim, width, bias=False)
        self.v_proj = nn.Linear(dim, width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.attn_weights = nn.Identity()
        self.head_outputs = nn.Identity()
        self.proj = nn.Linear(width, dim)
        self.register_buffer("head_index", torch.arange(num_heads), persistent=False)

    def weights_hooked(self) -> bool:
        """Whether a hook reads the attention weights."""
        return bool(self.attn_weights._forward_hooks or self.attn_weights._forward_pre_hooks)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], compute_weights: bool | None = None) -> Tensor:
        """Attend within each row.

        Args:
            x: `(rows, tokens, dim)`.
            rope: two tables `(tokens, head_dim)` from `rope_tables`.
            compute_weights: compute the attention weights explicitly; None for `weights_hooked()`.

        Returns:
            `(rows, tokens, dim)`.
        """
        q = F.linear(x, self.q_proj.weight, self.q_bias)
        k = F.linear(x, self.k_proj.weight)
        v = F.linear(x, self.v_proj.weight, self.v_bias)
        q, k, v = (t.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2) for t in (q, k, v))
        q, k = rotate(q, rope), rotate(k, rope)
        if self.weights_hooked() if compute_weights is None else compute_weights:
            weights = (q * self.head_dim**-0.5 @ k.transpose(-2, -1)).softmax(dim=-1).to(v.dtype)
            out = self.attn_weights(weights) @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(self.head_outputs(out.transpose(1, 2).flatten(2)))


class SwiGlu(nn.Module):
    """w3(LayerNorm(SiLU(w1 x) * w2 x)). The norm is over the hidden units, so removing one changes the others.

    Args:
        dim: channels of tokens.
        hidden: hidden units.
    """

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.w1 = nn.Linear(dim, hidden)
        self.w2 = nn.Linear(dim, hidden)
        self.ffn_ln = nn.LayerNorm(hidden, eps=1e-6)
        self.w3 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the MLP to each token.

        Args:
            x: `(..., dim)`.

        Returns:
            The same shape.
        """
        return self.w3(self.ffn_ln(F.silu(self.w1(x)) * self.w2(x)))


class Block(nn.Module):
    """Pre-norm transformer block on a token grid.

    A forward hook on `token_mask` receives the mask `(rows, tokens)` of the rows of the attention, False for padding of
    windows. It is computed only while a hook is registered.

    Args:
        dim: channels of tokens.
        num_heads: attention heads.
        head_dim: channels per head.
        hidden: hidden units of the MLP.
        window_size: side of attention windows in tokens; 0 for global attention.
        drop_path: stochastic depth rate.
        checkpointing: recompute the block in the backward pass.
    """

    def __init__(
        self, dim: int, num_heads: int, head_dim: int, hidden: int, *,
        window_size: int = 0, drop_path: float = 0.0, checkpointing: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.window_size, self.checkpointing = window_size, checkpointing
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads, head_dim)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = SwiGlu(dim, hidden)
        self.drop_path = StochasticDepth(drop_path, mode="row")
        self.token_mask = nn.Identity()

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        """Apply the block.

        Args:
            x: `(B, H, W, dim)`.
            rope: as in `Attention.forward`.

        Returns:
            The same shape.
        """
        if self.token_mask._forward_hooks:
            self.token_mask(self._token_mask(x))
        # Checkpointed inside the block, so that a hook on the block is not called again by the recomputation.
        if self.checkpointing and self.training and torch.is_grad_enabled():
            # Hooks are removed before the backward pass; the recomputation must take the same path.
            return checkpoint(self._forward, x, rope, self.attn.weights_hooked(), use_reentrant=False)
        return self._forward(x, rope)

    def _token_mask(self, x: Tensor) -> Tensor:
        mask = torch.ones_like(x[..., :1], dtype=torch.bool)
        if self.window_size:
            mask = split_windows(mask, self.window_size)
        return mask.flatten(1)

    def _forward(self, x: Tensor, rope: tuple[Tensor, Tensor], compute_weights: bool | None = None) -> Tensor:
        height, width = x.shape[1:3]
        grid = self.norm1(x)
        if self.window_size:
            # After the norm, as in the public code: a padding token has k = 0 and v = v_bias, and as it is not masked
            # it takes part of the attention.
            grid = split_windows(grid, self.window_size)
        grid = self.attn(grid.flatten(1, 2), rope, compute_weights).unflatten(1, grid.shape[1:3])
        if self.window_size:
            grid = join_windows(grid, height, width)
        x = x + self.drop_path(grid)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class EvaViT(nn.Module):
    """EVA-02 backbone with windowed and global blocks; the defaults are ORION's (303,388,608 parameters).

    Three differences from the public module change no number: the result is a tensor instead of a list with one
    tensor; rotary tables follow the grid of the input (see `rope_tables`) instead of a fixed `img_size`; the tables
    (`freqs_cos`, `freqs_sin` in public checkpoints) are not in the state dict.

    Args:
        patch_size: side of a patch in pixels.
        in_chans: channels of the image.
        embed_dim: channels of tokens.
        depth: number of blocks.
        num_heads: attention heads, one number or one per block (for a pruned net).
        head_dim: channels per head, a multiple of 4. None for `embed_dim // num_heads`; a pruned net must state it,
            because its heads no longer fill `embed_dim`.
        hidden: hidden units of the SwiGLU, one number or one per block. None for `int(embed_dim * 8 / 3)`.
        window_size: side of the windows in tokens.
        window_block_indexes: blocks with windowed attention; the others are global.
        pretrain_img_size: image side in pixels that the position table is made for; it is resized to the grid of the
            input.
        pretrain_use_cls_token: the table starts with a class-token entry, which is loaded but not used.
        rope_span: length of each axis in rotary positions (`pt_hw_seq_len` of the public code).
        drop_path_rate: stochastic depth of the last block, increasing linearly from 0 (ORION trains at 0.3).
        checkpointing: recompute blocks in the backward pass; hooks inside a block are then called twice.

    Raises:
        ValueError: lists that do not match `depth`, or sizes that do not fit.
    """

    def __init__(
        self, *,
        patch_size: int = 16, in_chans: int = 3, embed_dim: int = 1024, depth: int = 24,
        num_heads: int | Sequence[int] = 16, head_dim: int | None = None,
        hidden: int | Sequence[int] | None = None,
        window_size: int = 16, window_block_indexes: Sequence[int] = ORION_WINDOW_BLOCKS,
        pretrain_img_size: int = 224, pretrain_use_cls_token: bool = True, rope_span: float = 16.0,
        drop_path_rate: float = 0.0, checkpointing: bool = False,
    ):  # fmt: skip
        super().__init__()
        if head_dim is None:
            if not isinstance(num_heads, int) or embed_dim % num_heads:
                raise ValueError(f"head_dim: must be given for embed_dim={embed_dim}, num_heads={num_heads}")
            head_dim = embed_dim // num_heads
        if head_dim % 4 or head_dim < 4:
            raise ValueError(f"head_dim: the rotary pairs of two axes need a multiple of 4, got {head_dim}")
        if pretrain_img_size < patch_size:
            raise ValueError(f"pretrain_img_size: {pretrain_img_size} px is below patch_size={patch_size}")
        if window_block_indexes and window_size < 1:
            raise ValueError(f"window_size: {window_size}, but window_block_indexes is not empty")
        wrong = [i for i in window_block_indexes if not 0 <= i < depth]
        if wrong:
            raise ValueError(f"window_block_indexes: {wrong} lie outside the depth={depth} blocks")
        heads = _per_block("num_heads", num_heads, depth)
        hidden = _per_block("hidden", int(embed_dim * (4 * 2 / 3)) if hidden is None else hidden, depth)

        self.patch_size, self.head_dim, self.rope_span = patch_size, head_dim, rope_span
        self.pretrain_use_cls_token = pretrain_use_cls_token
        self.patch_embed = nn.Sequential()
        self.patch_embed.add_module("proj", nn.Conv2d(in_chans, embed_dim, patch_size, stride=patch_size))
        position_table = sincos_position_table(pretrain_img_size // patch_size, embed_dim)
        cls_token = torch.empty(int(pretrain_use_cls_token), embed_dim).normal_(std=0.02)
        self.pos_embed = nn.Parameter(torch.cat((cls_token, position_table))[None])
        self.blocks = nn.ModuleList(
            Block(
                embed_dim, heads[i], head_dim, hidden[i],
                window_size=window_size if i in window_block_indexes else 0,
                drop_path=drop_path_rate * i / max(depth - 1, 1), checkpointing=checkpointing,
            )
            for i in range(depth)
        )  # fmt: skip

    def forward(self, image: Tensor) -> Tensor:
        """Features of the last block, without a final norm.

        Args:
            image: `(B, in_chans, H, W)`, normalized. Pixels beyond the last whole patch are ignored.

        Returns:
            `(B, embed_dim, H // patch_size, W // patch_size)`.
        """
        if min(image.shape[-2:]) < self.patch_size:
            raise ValueError(f"image: {tuple(image.shape[-2:])} px is below patch_size={self.patch_size}")
        x = self.patch_embed(image).permute(0, 2, 3, 1)
        height, width = x.shape[1:3]
        x = x + self._positions(height, width)
        tables: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        for block in self.blocks:
            side: int = block.window_size  # type: ignore[assignment]
            grid = (side, side) if side else (height, width)
            if grid not in tables:
                tables[grid] = rope_tables(grid[0], grid[1], self.head_dim, span=self.rope_span, device=x.device)
            x = block(x, tables[grid])
        return x.permute(0, 3, 1, 2)

    def _positions(self, height: int, width: int) -> Tensor:
        """Position table `(1, height, width, embed_dim)`, resized bicubically without antialiasing."""
        table = self.pos_embed[:, 1:] if self.pretrain_use_cls_token else self.pos_embed
        side = int(table.shape[1] ** 0.5)
        table = table.unflatten(1, (side, side))
        if (side, side) != (height, width):
            table = F.interpolate(table.permute(0, 3, 1, 2).float(), (height, width), mode="bicubic")
            table = table.to(self.pos_embed.dtype).permute(0, 2, 3, 1)
        return table


def _per_block(name: str, value: int | Sequence[int], depth: int) -> list[int]:
    values = [value] * depth if isinstance(value, int) else list(value)
    if len(values) != depth:
        raise ValueError(f"{name}: {len(values)} numbers for depth={depth} blocks")
    if min(values, default=1) < 1:
        raise ValueError(f"{name}: every block needs at least 1, got {values}")
    return values

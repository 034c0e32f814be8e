"""EVA-02 as a detection backbone, the way ORION runs it.

Sources: EVA-02 (Fang et al. 2023, arXiv 2303.11331), window and global blocks of ViTDet (Li et al. 2022,
arXiv 2203.16527), rotary positions (Su et al. 2021, arXiv 2104.09864), SwiGLU (Shazeer 2020, arXiv
2002.05202). Parameter names are those of the public ORION / StreamPETR checkpoints after the prefix
`img_backbone.`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import StochasticDepth

ORION_WINDOW_BLOCKS = (0, 1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16, 18, 19, 21, 22)


def rope_tables(
    height: int, width: int, head_dim: int, *, span: float = 16.0, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Cosine and sine tables `(height * width, head_dim)`, float32, of the two-axis rotary positions.

    The first half of the channels turns with the row, the second with the column; neighbors `2i, 2i + 1`
    form a pair with frequency `10000 ** (-4i / head_dim)`. Row `r` sits at `r / height * span`, column `c` at
    `c / width * span`: every grid covers 0..span on each axis (a non-square one is stretched), and a window
    of 16 x 16 tokens has unit steps.
    """
    half = head_dim // 2
    frequency = 1.0 / 10000 ** (torch.arange(0, half, 2, device=device).float() / half)
    rows = torch.arange(height, device=device) / height * span
    columns = torch.arange(width, device=device) / width * span
    rows = torch.outer(rows, frequency).repeat_interleave(2, dim=1)
    columns = torch.outer(columns, frequency).repeat_interleave(2, dim=1)
    angle_rad = torch.cat((rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)), dim=-1)
    angle_rad = angle_rad.reshape(height * width, head_dim)
    return angle_rad.cos(), angle_rad.sin()


def rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the channel pairs of `x (..., tokens, head_dim)` by the tables, in their float32 at least."""
    cos, sin = rope
    turned = torch.stack((-x[..., 1::2], x[..., 0::2]), dim=-1).flatten(-2)
    return (x * cos + turned * sin).to(x.dtype)


def split_windows(x: Tensor, size: int) -> Tensor:
    """`(B, H, W, C)` to `(B * windows, size, size, C)`, zero-padded on the right and at the bottom."""
    _, height, width, channels = x.shape
    x = F.pad(x, (0, 0, 0, -width % size, 0, -height % size))
    x = x.unflatten(1, (-1, size)).unflatten(3, (-1, size))
    return x.transpose(2, 3).reshape(-1, size, size, channels)


def join_windows(windows: Tensor, height: int, width: int) -> Tensor:
    """`(B * windows, size, size, C)` back to `(B, height, width, C)`, the padding cut off."""
    size = windows.shape[1]
    rows, columns = -(-height // size), -(-width // size)
    x = windows.unflatten(0, (-1, rows, columns)).transpose(2, 3)
    return x.flatten(3, 4).flatten(1, 2)[:, :height, :width]


class Attention(nn.Module):
    """Multi-head self-attention with rotary positions; q and v have a bias, k has none.

    Two places to hook: `heads` sees the concatenated head outputs `(rows, tokens, num_heads * head_dim)`
    before `proj`; `map` sees the softmax weights `(rows, num_heads, tokens, tokens)`, which exist only while
    it is hooked. A row is an image, or in windowed blocks a window; pad tokens are included, as they are in
    the attention itself. The buffer `head_index` holds each head's number in the unpruned net.
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
        self.map = nn.Identity()
        self.heads = nn.Identity()
        self.proj = nn.Linear(width, dim)
        self.register_buffer("head_index", torch.arange(num_heads), persistent=False)

    def hooked(self) -> bool:
        """Whether somebody wants the attention maps."""
        return bool(self.map._forward_hooks or self.map._forward_pre_hooks)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], maps: bool | None = None) -> Tensor:
        """`x (rows, tokens, dim)` to the same shape; `rope` are two tables `(tokens, head_dim)`; `maps`: compute the
        maps, None for `hooked()`.
        """
        q = F.linear(x, self.q_proj.weight, self.q_bias)
        k = F.linear(x, self.k_proj.weight)
        v = F.linear(x, self.v_proj.weight, self.v_bias)
        q, k, v = (t.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2) for t in (q, k, v))
        q, k = rotate(q, rope), rotate(k, rope)
        if self.hooked() if maps is None else maps:
            weights = (q * self.head_dim**-0.5 @ k.transpose(-2, -1)).softmax(dim=-1).to(v.dtype)
            out = self.map(weights) @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(self.heads(out.transpose(1, 2).flatten(2)))


def place_waves(side: int, dim: int) -> Tensor:
    """`(side * side, dim)`: sines and cosines of column and row, of wavelengths from 4 tokens to 8 grids.

    What the position table begins with, as in He et al. 2022 (MAE): from small noise a ViT takes hundreds of steps to
    learn in which column a token is. Channels beyond a multiple of four are zero.
    """
    turns = torch.arange(side)[:, None] * torch.logspace(0, -1, dim // 4, 2 * side) * (torch.pi / 2)
    waves = torch.cat((turns.sin(), turns.cos()), dim=-1)
    places = torch.cat((waves.repeat(side, 1), waves.repeat_interleave(side, dim=0)), dim=-1)
    return F.pad(places, (0, dim - places.shape[-1]))


class SwiGlu(nn.Module):
    """`w3(LayerNorm(SiLU(w1 x) * w2 x))`: normed over the hidden units, so removing one moves the others."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.w1 = nn.Linear(dim, hidden)
        self.w2 = nn.Linear(dim, hidden)
        self.ffn_ln = nn.LayerNorm(hidden, eps=1e-6)
        self.w3 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.w3(self.ffn_ln(F.silu(self.w1(x)) * self.w2(x)))


class Block(nn.Module):
    """Pre-norm transformer block on a token grid `(B, H, W, dim)`; `window_size=0` attends globally."""

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

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        # Inside the block, so that a hook on the block is called once and not again by the recomputation.
        if self.checkpointing and self.training and torch.is_grad_enabled():
            # Features are gone by then, and the recomputation must go the same way.
            return checkpoint(self._forward, x, rope, self.attn.hooked(), use_reentrant=False)
        return self._forward(x, rope)

    def _forward(self, x: Tensor, rope: tuple[Tensor, Tensor], maps: bool | None = None) -> Tensor:
        height, width = x.shape[1:3]
        grid = self.norm1(x)
        if self.window_size:
            # After the norm: a pad token is zero here, so k = 0 and v = v_bias, and it draws attention
            # unmasked.
            grid = split_windows(grid, self.window_size)
        grid = self.attn(grid.flatten(1, 2), rope, maps).unflatten(1, grid.shape[1:3])
        if self.window_size:
            grid = join_windows(grid, height, width)
        x = x + self.drop_path(grid)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class EvaViT(nn.Module):
    """EVA-02 backbone with windowed and global blocks; the defaults are ORION's (303,388,608 parameters).

    Differences from the public module, none of which changes a number: the result is a tensor instead of a
    list with one; rotary tables follow the input's grid (see `rope_tables`) instead of a fixed `img_size` and
    are not in the state dict (`freqs_cos`, `freqs_sin` of public checkpoints).

    Args:
        num_heads, hidden: attention heads and SwiGLU width, one number or one per block, so that a pruned net
            is built directly. `hidden=None` takes `int(embed_dim * 8 / 3)`.
        head_dim: channels per head, a multiple of 4. None takes `embed_dim // num_heads`; a pruned net must
            state it, since its heads no longer fill `embed_dim`.
        window_size, window_block_indexes: side in tokens and the blocks that use windows; the rest is global.
        pretrain_img_size: image side in pixels that the position table is laid out for; it is resized to the
            grid of the input.
        pretrain_use_cls_token: the table starts with a class-token slot, kept for loading and never used.
        rope_span: length of each axis in rotary positions (`pt_hw_seq_len` of the public code).
        drop_path_rate: stochastic depth of the last block, rising linearly from 0 (ORION trains at 0.3).
        checkpointing: recompute blocks in the backward pass; hooks inside a block are then called twice.

    Raises ValueError for lists that do not match `depth`, and for sizes that do not fit.
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
        places = place_waves(pretrain_img_size // patch_size, embed_dim)
        leading = torch.empty(int(pretrain_use_cls_token), embed_dim).normal_(std=0.02)
        self.pos_embed = nn.Parameter(torch.cat((leading, places))[None])
        self.blocks = nn.ModuleList(
            Block(
                embed_dim, heads[i], head_dim, hidden[i],
                window_size=window_size if i in window_block_indexes else 0,
                drop_path=drop_path_rate * i / max(depth - 1, 1), checkpointing=checkpointing,
            )
            for i in range(depth)
        )  # fmt: skip

    def forward(self, image: Tensor) -> Tensor:
        """`image (B, in_chans, H, W)`, normalized, to the last block's output
        `(B, embed_dim, H // patch_size, W // patch_size)` without a final norm.

        Pixels beyond the last whole patch are not seen.
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
        """The position table `(1, height, width, embed_dim)`, resized bicubically without antialias."""
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

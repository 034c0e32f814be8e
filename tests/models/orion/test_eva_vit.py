"""EvaViT compared with an independent implementation and with timm's Eva, and its interface."""

import math
from functools import partial

import pytest
import torch
from timm.models.eva import Eva
from torch import Tensor, nn

from kd_runner.models.orion.encodings import sincos_position_table
from kd_runner.models.orion.eva_vit import EvaViT

SMALL = {
    "embed_dim": 32, "depth": 2, "num_heads": 2, "hidden": 24, "window_size": 3, "window_block_indexes": (0,),
    "patch_size": 4, "pretrain_img_size": 20,
}  # fmt: skip


def small_net(seed: int = 0, **changes) -> EvaViT:
    """A float64 net in eval mode with weights large enough to matter, biases and norms included."""
    torch.manual_seed(seed)
    net = EvaViT(**{**SMALL, **changes}).double().eval()
    for p in net.parameters():
        p.data += torch.randn_like(p) * (0.3 if p.dim() == 1 else 0.15)
    return net


def cubic_resize(side: int, size: int) -> Tensor:
    """Matrix `(size, side)` of cubic convolution, a = -0.75 (Keys 1981), clamped at the border."""
    matrix = torch.zeros(size, side, dtype=torch.float64)
    for i in range(size):
        center = (i + 0.5) * side / size - 0.5
        for j in range(math.floor(center) - 1, math.floor(center) + 3):
            d = abs(center - j)
            near = 1.25 * d**3 - 2.25 * d**2 + 1
            weight = near if d <= 1 else -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
            matrix[i, min(max(j, 0), side - 1)] += weight
    return matrix


def rotate_by_position(x: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Rotary positions by complex numbers: `x (tokens, head_dim)`."""
    half = x.shape[1] // 2
    frequency = 10000.0 ** (-2 * torch.arange(half // 2, dtype=torch.float64) / half)
    angle = torch.cat((row[:, None] * frequency, column[:, None] * frequency), dim=1)
    pairs = torch.view_as_complex(x.reshape(len(x), half, 2)) * torch.polar(torch.ones_like(angle), angle)
    return torch.view_as_real(pairs).flatten(1)


def attend(attn: nn.Module, x: Tensor, span: float) -> Tensor:
    """Attention over one grid `x (h, w, dim)`, head by head, unmasked."""
    h, w, dim = x.shape
    row = (torch.arange(h, dtype=torch.float64) / h * span).repeat_interleave(w)
    column = (torch.arange(w, dtype=torch.float64) / w * span).repeat(h)
    x, out, d = x.reshape(h * w, dim), attn.proj.bias.expand(h * w, -1), attn.head_dim
    for i in range(attn.num_heads):
        part = slice(i * d, (i + 1) * d)
        q = rotate_by_position(x @ attn.q_proj.weight[part].T + attn.q_bias[part], row, column)
        k = rotate_by_position(x @ attn.k_proj.weight[part].T, row, column)
        v = x @ attn.v_proj.weight[part].T + attn.v_bias[part]
        weights = torch.exp(q @ k.T / d**0.5)
        out = out + weights / weights.sum(1, keepdim=True) @ v @ attn.proj.weight[:, part].T
    return out.reshape(h, w, -1)


def reference(net: EvaViT, image: Tensor) -> Tensor:
    """EVA-ViT for one image `(3, H, W)`, with loops over windows and heads."""
    p = net.patch_size
    conv = net.patch_embed.proj
    h, w = image.shape[1] // p, image.shape[2] // p
    patches = image[:, : h * p, : w * p].reshape(3, h, p, w, p).permute(1, 3, 0, 2, 4).reshape(h, w, -1)
    x = patches @ conv.weight.flatten(1).T + conv.bias
    table = net.pos_embed[0, 1:]
    side = math.isqrt(len(table))
    table = table.reshape(side, side, -1)
    x = x + torch.einsum("hi,wj,ijc->hwc", cubic_resize(side, h), cubic_resize(side, w), table)
    for block in net.blocks:
        y, s = block.norm1(x), block.window_size
        if s:
            padded = torch.zeros(-(-h // s) * s, -(-w // s) * s, x.shape[2], dtype=x.dtype)
            padded[:h, :w] = y
            for top in range(0, padded.shape[0], s):
                for left in range(0, padded.shape[1], s):
                    window = padded[top : top + s, left : left + s].clone()
                    padded[top : top + s, left : left + s] = attend(block.attn, window, 16.0)
            y = padded[:h, :w]
        else:
            y = attend(block.attn, y, 16.0)
        x = x + y
        gate, value = block.mlp.w1(block.norm2(x)), block.mlp.w2(block.norm2(x))
        hidden = gate * torch.sigmoid(gate) * value
        hidden = (hidden - hidden.mean(-1, keepdim=True)) / (hidden.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()
        x = x + block.mlp.w3(hidden * block.mlp.ffn_ln.weight + block.mlp.ffn_ln.bias)
    return x.permute(2, 0, 1)


@pytest.mark.parametrize(
    ("height", "width", "changes"),
    [
        (24, 24, {}),  # whole windows
        (20, 20, {}),  # padded windows, position table as it is
        (28, 17, {"embed_dim": 48}),  # not square, pixels left over, head_dim 24
        (16, 32, {"num_heads": [1, 3], "hidden": [5, 31], "head_dim": 20}),  # pruned
        (8, 8, {"window_size": 4, "window_block_indexes": (0, 1), "head_dim": 4}),  # one padded window
    ],
)
@torch.no_grad()
def test_equals_reference(height, width, changes):
    net = small_net(**changes)
    image = torch.randn(2, 3, height, width, dtype=torch.float64)
    expected = torch.stack([reference(net, x) for x in image])
    torch.testing.assert_close(net(image), expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@torch.no_grad()
def test_equals_timm_eva_where_every_block_is_global():
    net = small_net(embed_dim=64, window_block_indexes=(), num_heads=4)
    oracle = Eva(
        img_size=20, patch_size=4, embed_dim=64, depth=2, num_heads=4, mlp_ratio=24 / 64, num_classes=0,
        class_token=False, global_pool="", qkv_fused=False, swiglu_mlp=True, scale_mlp=True, use_rot_pos_emb=True,
        ref_feat_shape=(16, 16), use_post_transformer_norm=False, use_fc_norm=False,
        norm_layer=lambda dim, **k: nn.LayerNorm(dim, eps=1e-6, **k),
    ).double().eval()  # fmt: skip
    names = {
        "attn.q_bias": "attn.q_proj.bias", "attn.v_bias": "attn.v_proj.bias", "mlp.w1": "mlp.fc1_g",
        "mlp.w2": "mlp.fc1_x", "mlp.w3": "mlp.fc2", "mlp.ffn_ln": "mlp.norm",
    }  # fmt: skip
    state = {}
    for key, value in net.state_dict().items():
        for name, timm_name in names.items():
            key = key.replace(name, timm_name)
        state[key] = value[:, 1:] if key == "pos_embed" else value
    oracle.load_state_dict(state)
    image = torch.randn(1, 3, 20, 20, dtype=torch.float64)
    torch.testing.assert_close(net(image).flatten(2).transpose(1, 2), oracle(image), rtol=0, atol=2e-5)


def test_full_size_and_checkpoint_keys():
    with torch.device("meta"):
        net = EvaViT()
        pruned = EvaViT(num_heads=8, head_dim=64)
    assert sum(p.numel() for p in net.parameters()) == 303_388_608
    assert sum(p.numel() for p in pruned.parameters()) == 253_032_384
    block = {
        "norm1.weight": [1024], "norm1.bias": [1024], "norm2.weight": [1024], "norm2.bias": [1024],
        "attn.q_bias": [1024], "attn.v_bias": [1024], "attn.q_proj.weight": [1024, 1024],
        "attn.k_proj.weight": [1024, 1024], "attn.v_proj.weight": [1024, 1024], "attn.proj.weight": [1024, 1024],
        "attn.proj.bias": [1024], "mlp.w1.weight": [2730, 1024], "mlp.w1.bias": [2730], "mlp.w2.weight": [2730, 1024],
        "mlp.w2.bias": [2730], "mlp.ffn_ln.weight": [2730], "mlp.ffn_ln.bias": [2730], "mlp.w3.weight": [1024, 2730],
        "mlp.w3.bias": [1024],
        "attn.rope.freqs_cos": None, "attn.rope.freqs_sin": None,
    }  # fmt: skip
    public = {f"blocks.{i}.{key}": shape for i in range(24) for key, shape in block.items()}
    public |= {
        "pos_embed": [1, 197, 1024],
        "patch_embed.proj.weight": [1024, 3, 16, 16],
        "patch_embed.proj.bias": [1024],
    }
    public |= {f"{rope}.freqs_{fn}": None for rope in ("rope_win", "rope_glb") for fn in ("cos", "sin")}
    assert len(public) == 511
    kept = {key: shape for key, shape in public.items() if not key.endswith(("freqs_cos", "freqs_sin"))}
    assert {key: list(value.shape) for key, value in net.state_dict().items()} == kept


def test_hooked_weights_and_head_outputs_agree_with_the_fused_path():
    net, seen = small_net(), {}
    image = torch.randn(2, 3, 20, 20, dtype=torch.float64)
    plain = net(image)
    attn = net.blocks[0].attn
    hooks = [
        attn.attn_weights.register_forward_hook(lambda m, a, out: seen.update(map=out)),
        attn.head_outputs.register_forward_hook(lambda m, a, out: seen.update(heads=out)),
    ]
    torch.testing.assert_close(net(image), plain)
    assert seen["map"].shape == (2 * 4, 2, 9, 9) and seen["heads"].shape == (2 * 4, 9, 32)
    torch.testing.assert_close(seen["map"].sum(-1), torch.ones_like(seen["map"][..., 0]))
    assert (seen["map"][3, :, :, -1] > 0).all()  # padding tokens get attention
    seen["map"].square().sum().backward()
    assert attn.q_bias.grad.abs().sum() > 0
    [hook.remove() for hook in hooks]
    seen.clear()
    net(image)
    assert not seen


@pytest.mark.parametrize("checkpointing", [False, True])
def test_token_mask_marks_the_padding_of_windows(checkpointing):
    """A 5 x 5 grid in four windows of 3 x 3: 11 of 36 tokens are padding. A global block has none."""
    net, masks = small_net(checkpointing=checkpointing).train(), []
    hooks = [b.token_mask.register_forward_hook(lambda m, a, out: masks.append(out)) for b in net.blocks]
    net(torch.randn(2, 3, 20, 20, dtype=torch.float64)).sum().backward()
    [hook.remove() for hook in hooks]
    assert [tuple(m.shape) for m in masks] == [(8, 9), (2, 25)] and masks[1].all()
    assert masks[0].reshape(2, 4, 9).sum(-1).tolist() == [[9, 6, 6, 4]] * 2
    assert masks[0][1].reshape(3, 3).tolist() == [[True, True, False]] * 3


def test_checkpointing_changes_no_gradient_and_hooks_a_block_once():
    image, calls, grads = torch.randn(1, 3, 20, 20, dtype=torch.float64), [], []
    for checkpointing in (False, True):
        net = small_net(checkpointing=checkpointing).train()
        net.blocks[0].register_forward_hook(lambda *_: calls.append(1))
        net(image).square().sum().backward()
        grads.append([p.grad for p in net.parameters()])
    assert len(calls) == 2
    torch.testing.assert_close(grads[0], grads[1])


def keep(where, module, given, out):
    where["out"] = out


def test_hooked_weights_survive_checkpointing_after_the_hook_is_removed():
    image, grads = torch.randn(1, 3, 20, 20, dtype=torch.float64), []
    for checkpointing in (False, True):
        net, maps = small_net(checkpointing=checkpointing).train(), {}
        hook = net.blocks[0].attn.attn_weights.register_forward_hook(partial(keep, maps))
        out = net(image)
        hook.remove()
        (out.square().sum() + maps["out"].square().sum()).backward()
        grads.append([p.grad for p in net.parameters()])
    torch.testing.assert_close(grads[0], grads[1])


def test_drop_path_drops_whole_images_and_rises_over_depth():
    net = small_net(depth=3, drop_path_rate=1.0, window_block_indexes=())
    assert [block.drop_path.p for block in net.blocks] == [0.0, 0.5, 1.0]
    x, grid = torch.randn(2, 4, 4, 32, dtype=torch.float64), torch.zeros(16, 16, dtype=torch.float64)
    rope = (grid.cos(), grid)
    assert torch.equal(net.blocks[2].train()(x, rope), x)
    assert not torch.equal(net.blocks[2].eval()(x, rope), x)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"head_dim": 6}, "head_dim"),
        ({"num_heads": [2, 1]}, "head_dim"),
        ({"num_heads": 3}, "head_dim"),
        ({"hidden": [8]}, "hidden"),
        ({"hidden": [8, 0]}, "hidden"),
        ({"window_block_indexes": (2,)}, "window_block_indexes"),
        ({"window_size": 0}, "window_size"),
        ({"pretrain_img_size": 2}, "pretrain_img_size"),
    ],
)
def test_bad_arguments_are_named(changes, key):
    with pytest.raises(ValueError, match=f"^{key}:"):
        EvaViT(**{**SMALL, **changes})


def test_image_smaller_than_a_patch_is_refused():
    with pytest.raises(ValueError, match=r"^image: \(3, 8\)"):
        small_net()(torch.zeros(1, 3, 3, 8, dtype=torch.float64))


@pytest.mark.parametrize("dim", [64, 66])
def test_initial_positions_of_neighbors_are_more_similar(dim):
    table = sincos_position_table(6, dim).unflatten(0, (6, 6))
    assert table.shape == (6, 6, dim) and not table[..., 64:].any()
    row, column = table[2, :, :32], table[:, 2, :32]
    assert len(row.unique(dim=0)) == 6 and torch.equal(
        column, column[:1].expand(6, -1)
    )  # one half depends on the column only
    alike = torch.nn.functional.cosine_similarity(table.flatten(0, 1)[:, None], table.flatten(0, 1)[None], dim=-1)
    assert alike[0, 1] > alike[0, 2] > alike[0, 3] and torch.allclose(alike[0, 1], alike[0, 6])

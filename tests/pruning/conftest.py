"""Tiny float64 nets of four families with the layout a yaml would give."""

import copy
from dataclasses import dataclass
from functools import cache, partial

import pytest
import torch
from timm.models.eva import Eva
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from kd_runner.models.orion.eva_vit import EvaViT

TIMM = {"blocks": "blocks.*", "qkv": "attn.qkv", "proj": "attn.proj", "num_heads": "attn.num_heads"}
PLAIN_MLP = {"mlp_in": "mlp.fc1", "mlp_norm": "mlp.norm", "mlp_out": "mlp.fc2"}
THREE = ["attn.q_proj", "attn.k_proj", "attn.v_proj"]

LAYOUTS = {
    "eva_vit": {
        **TIMM, "qkv": THREE, "qkv_bias": ["attn.q_bias", None, "attn.v_bias"],
        "mlp_in": ["mlp.w1", "mlp.w2"], "mlp_norm": "mlp.ffn_ln", "mlp_out": "mlp.w3",
    },
    "timm_vit": {**TIMM, **PLAIN_MLP, "head_width": "attn.attn_dim", "head_norm": "attn.norm"},
    "timm_eva_fused": {
        **TIMM, **PLAIN_MLP, "qkv_bias": ["attn.q_bias", "attn.k_bias", "attn.v_bias"], "head_norm": "attn.norm",
    },
    "timm_eva": {
        **TIMM, "qkv": THREE, "head_norm": "attn.norm", "head_rows": "attn.gate",
        "mlp_in": ["mlp.fc1_g", "mlp.fc1_x"], "mlp_norm": "mlp.norm", "mlp_out": "mlp.fc2",
    },
    "timm_swin": {
        **TIMM, **PLAIN_MLP, "blocks": "layers.*.blocks.*", "head_columns": "attn.relative_position_bias_table",
    },
}  # fmt: skip

EVA = partial(
    Eva, img_size=16, patch_size=4, embed_dim=32, depth=2, num_heads=4, mlp_ratio=0.75, num_classes=3,
    swiglu_mlp=True, use_rot_pos_emb=True, ref_feat_shape=(16, 16),
)  # fmt: skip


def gated(net: Eva) -> Eva:
    """With the output gates that timm's attention knows and its `Eva` has no argument for."""
    for block in net.blocks:
        block.attn.gate = nn.Linear(32, 32)
    return net


NETS = {
    "eva_vit": lambda: EvaViT(
        patch_size=4, embed_dim=32, depth=2, num_heads=4, hidden=24, window_size=3, window_block_indexes=(0,),
        pretrain_img_size=16,
    ),
    "timm_vit": lambda: VisionTransformer(
        img_size=16, patch_size=4, embed_dim=32, depth=2, num_heads=4, mlp_ratio=0.75, num_classes=3,
        scale_attn_norm=True,
    ),
    "timm_eva_fused": lambda: EVA(),
    "timm_eva": lambda: gated(EVA(qkv_fused=False, scale_mlp=True, scale_attn_inner=True)),
    "timm_swin": lambda: SwinTransformer(
        img_size=32, patch_size=4, embed_dim=16, depths=(2, 1), num_heads=(2, 4), window_size=4, mlp_ratio=1.5,
        num_classes=3,
    ),
}  # fmt: skip


@dataclass
class Case:
    name: str
    net: nn.Module
    layout: dict
    image: Tensor

    def loss(self, image: Tensor) -> Tensor:
        out = self.net(image)
        return (out * torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)).sum()


def build(name: str) -> Case:
    """A copy of its own at every call, always with the same weights, none of them zero."""
    return copy.deepcopy(_build(name))


@cache
def _build(name: str) -> Case:
    torch.manual_seed(0)
    net = NETS[name]().double().eval()
    for p in net.parameters():
        p.data += torch.randn_like(p) * 0.2
    side = 32 if name == "timm_swin" else 16
    return Case(name, net, LAYOUTS[name], torch.randn(2, 3, side, side, dtype=torch.float64))


@pytest.fixture(params=NETS)
def case(request) -> Case:
    return build(request.param)


@pytest.fixture
def eva() -> Case:
    return build("eva_vit")


@pytest.fixture
def rebuild():
    return build

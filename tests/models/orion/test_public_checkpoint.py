"""A file in the layout of the public `Orion.pth`, with the net's small sizes, through the configuration's own keys."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from kd_runner.distillation import checkpoints
from kd_runner.errors import ConfigError
from kd_runner.models.orion.detector import Orion
from kd_runner.models.orion.eva_vit import EvaViT

Build = Callable[..., Orion]
State = dict[str, Tensor]
DIM, HIDDEN, DEPTH, WIDTH, POINTS = 16, 24, 2, 8, 3
MODEL = OmegaConf.load(Path(__file__).parents[3] / "conf/model/orion_eva_vit.yaml")


def backbone() -> EvaViT:
    return EvaViT(
        patch_size=8, embed_dim=WIDTH, depth=2, num_heads=2, window_size=2, window_block_indexes=[0],
        pretrain_img_size=16,
    )  # fmt: skip


def public_shapes() -> tuple[dict[str, Any], dict[str, Any]]:
    """Names and shapes, written down from the public modules: (what the detector has, what is dropped)."""
    eva = {"pos_embed": (1, 5, WIDTH), "patch_embed.proj.weight": (WIDTH, 3, 8, 8), "patch_embed.proj.bias": (WIDTH,)}
    rope: dict[str, Any] = {f"rope_{kind}.freqs_{f}": (4, 4) for kind in ("win", "glb") for f in ("cos", "sin")}
    square, inner = (WIDTH, WIDTH), int(WIDTH * 8 / 3)
    for i in range(2):
        names = {
            "norm1.weight": (WIDTH,), "norm1.bias": (WIDTH,), "norm2.weight": (WIDTH,), "norm2.bias": (WIDTH,),
            "attn.q_bias": (WIDTH,), "attn.v_bias": (WIDTH,), "attn.q_proj.weight": square,
            "attn.k_proj.weight": square, "attn.v_proj.weight": square, "attn.proj.weight": square,
            "attn.proj.bias": (WIDTH,), "mlp.w1.weight": (inner, WIDTH), "mlp.w1.bias": (inner,),
            "mlp.w2.weight": (inner, WIDTH), "mlp.w2.bias": (inner,), "mlp.ffn_ln.weight": (inner,),
            "mlp.ffn_ln.bias": (inner,), "mlp.w3.weight": (WIDTH, inner), "mlp.w3.bias": (WIDTH,),
        }  # fmt: skip
        eva |= {f"blocks.{i}.{name}": shape for name, shape in names.items()}
        rope |= {f"blocks.{i}.attn.rope.freqs_{f}": (4, 4) for f in ("cos", "sin")}

    def linear(name: str, out: int, width: int) -> dict[str, Any]:
        return {f"{name}.weight": (out, width), f"{name}.bias": (out,)}

    def norm(name: str) -> dict[str, Any]:
        return {f"{name}.weight": (DIM,), f"{name}.bias": (DIM,)}

    positions = linear("query_pos.0", DIM, 36 * POINTS) | linear("query_pos.2", DIM, DIM)
    positions |= linear("time_embedding.0", DIM, DIM) | norm("time_embedding.1")
    positions |= linear("ego_pose_pe.reduce.0", DIM, 156)
    positions |= linear("ego_pose_pe.gamma", DIM, DIM) | linear("ego_pose_pe.beta", DIM, DIM)
    decoder: dict[str, Any] = linear("input_projection", DIM, WIDTH)
    for i in range(DEPTH):
        layer = f"transformer.query_decoder._layers.{i}.transformer_layers"
        for k in (0, 2):
            attn = f"{layer}.{k}.attn"
            decoder |= {f"{attn}.in_proj_weight": (3 * DIM, DIM), f"{attn}.in_proj_bias": (3 * DIM,)}
            decoder |= linear(f"{attn}.out_proj", DIM, DIM)
        decoder |= linear(f"{layer}.4._layers.0", HIDDEN, DIM) | linear(f"{layer}.4._layers.3", DIM, HIDDEN)
        for k in (1, 3, 5):
            decoder |= norm(f"{layer}.{k}")

    def branches(name: str, out: int, normed: bool) -> dict[str, Any]:
        shapes: dict[str, Any] = {}
        for i in range(DEPTH):
            for k, width in zip((0, 3, 6) if normed else (0, 2, 4), (DIM, DIM, out)):
                shapes |= linear(f"{name}.{i}.{k}", width, DIM)
                if normed and k < 6:
                    shapes |= norm(f"{name}.{i}.{k + 1}")
        return shapes

    boxes = positions | decoder | branches("cls_branches", 9, True) | branches("reg_branches", 10, False)
    boxes |= {"reference_points.weight": (6, 3), "pseudo_reference_points.weight": (3, 3)}
    lines = positions | decoder | branches("cls_branches", 6, True) | branches("reg_branches", 3 * POINTS, False)
    lines |= linear("reference_points_lane", 3, DIM)
    lines |= {"points_embedding_lane.weight": (POINTS, DIM), "instance_embedding_lane.weight": (12, DIM)}
    kept = positions | {"position_range": (6,), "coords_d": (4,)}
    kept |= linear("position_encoder.0", 4 * DIM, 12) | linear("position_encoder.2", DIM, 4 * DIM)
    for prefix, shapes in (("img_backbone", eva), ("pts_bbox_head", boxes), ("map_head", lines)):
        kept |= {f"{prefix}.{name}": shape for name, shape in shapes.items()}

    dropped = {f"img_backbone.{name}": shape for name, shape in rope.items()}
    both = {"query_embedding.weight": (8, DIM), "code_weights": (10,), "match_costs": (10,), "pc_range": (6,)}
    both |= linear("output_projection", 32, DIM)
    dropped |= {f"{head}.{name}": shape for head in ("pts_bbox_head", "map_head") for name, shape in both.items()}
    rest = branches("tl_branches", 4, True) | linear("can_bus_embed.0", 64, 89) | linear("traj_branches.0.0", 32, 32)
    rest |= linear("traj_cls_branches.0.0", 32, 32) | {"motion_mode_query.weight": (6, DIM)}
    rest |= {"memory_query.weight": (16, DIM)} | linear("scene_time_embedding.0", DIM, DIM)
    for part in ("motion_decoder", "memory_decoder_cq", "memory_decoder_mq"):  # these have no biases
        rest |= {f"{part}.query_decoder._layers.0.transformer_layers.0.attn.in_proj_weight": (3 * DIM, DIM)}
    dropped |= {f"pts_bbox_head.{name}": shape for name, shape in rest.items()}
    dropped |= {"lm_head.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight": (4, 32)}
    dropped |= {"lm_head.base_model.model.model.embed_tokens.weight": (10, 32)}
    for part in ("present_distribution.encoder.0", "future_distribution.encoder.0", "predict_model.gru.0"):
        dropped |= linear(part, 8, 8)
    return kept, dropped | linear("ego_fut_decoder.0", 8, 8)


def public_state() -> tuple[State, int]:
    """Random tensors, one for every copy of a shared module; and how many are dropped."""
    generator, made = torch.Generator().manual_seed(4), {}
    kept, dropped = public_shapes()
    state: State = {}
    for name, shape in (kept | dropped).items():
        parts, source = name.split("."), name
        if parts[0] in ("pts_bbox_head", "map_head") and parts[1] in ("query_pos", "time_embedding", "ego_pose_pe"):
            source = ".".join(parts[1:])
        elif len(parts) > 2 and parts[1] in ("cls_branches", "reg_branches", "tl_branches"):
            source = ".".join((*parts[:2], *parts[3:]))
        if source not in made:
            made[source] = torch.randn(shape, generator=generator) * 0.3
        state[name] = made[source]
    return state, len(dropped)


def load(net: Orion, state: State, path: Path) -> checkpoints.Coverage:
    torch.save({"meta": {"mmcv_version": "1.7.0", "epoch": 6, "CLASSES": ["car"]}, "state_dict": state}, path)
    keys: Any = OmegaConf.to_container(MODEL.teacher.checkpoint_keys)
    return checkpoints.require(checkpoints.load(net, path, "teacher.checkpoint", **keys), "teacher", path)


def test_all_of_the_net_is_filled_and_the_rest_counted(small: Build, frame: State, tmp_path: Path) -> None:
    net, state = small(backbone=backbone()).eval(), public_state()
    coverage = load(net, state[0], tmp_path / "Orion.pth")
    assert coverage.complete and len(coverage.dropped) == state[1]
    assert set(coverage.matched) == set(net.state_dict())
    assert all(torch.equal(value, state[0][name]) for name, value in net.state_dict().items())
    other = small(backbone=backbone()).eval()
    for name, parameter in other.named_parameters():
        parameter.data.copy_(state[0][name])
    one, two = (n(frame["images"], frame["lidar2img"]) for n in (net, other))
    assert all(torch.equal(one[name], two[name]) and torch.isfinite(one[name]).all() for name in one)


def test_our_own_files_lose_nothing(small: Build) -> None:
    net = small(backbone=backbone())
    assert not checkpoints.fit(net, net.state_dict(), drop=MODEL.teacher.checkpoint_keys.drop).dropped


def test_a_file_that_lacks_a_tensor_or_has_another_size_is_refused(small: Build, tmp_path: Path) -> None:
    net, (state, _) = small(backbone=backbone()), public_state()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    lacking = {name: value for name, value in state.items() if name != "map_head.input_projection.bias"}
    with pytest.raises(ConfigError, match=r"teacher\.checkpoint: .*1 missing \(map_head\.input_projection\.bias\)"):
        load(net, lacking, tmp_path / "lacking.pth")
    narrow = "pts_bbox_head.transformer.query_decoder._layers.1.transformer_layers.4._layers.0.weight"
    with pytest.raises(ConfigError, match=r"1 wrong shape \(.*_layers\.0\.weight \(12, 16\) for \(24, 16\)\)"):
        load(net, state | {narrow: state[narrow][:12]}, tmp_path / "narrow.pth")
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())

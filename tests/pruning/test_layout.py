"""Finding the units, and saying what is wrong with a description."""

import pytest

from kd_runner.pruning.layout import Layout, find_units


def test_units_of_every_family(case):
    heads, hidden = (find_units(case.net, case.layout, kind) for kind in ("heads", "hidden"))
    if case.name == "timm_swin":
        assert {b: u.count for b, u in heads.items()} == {
            "layers.0.blocks.0": 2,
            "layers.0.blocks.1": 2,
            "layers.1.blocks.0": 4,
        }
        assert [u.count for u in hidden.values()] == [24, 24, 48]
    else:
        assert {b: (u.count, u.width) for b, u in heads.items()} == {"blocks.0": (4, 8), "blocks.1": (4, 8)}
        assert {b: (u.count, u.width) for b, u in hidden.items()} == {"blocks.0": (24, 1), "blocks.1": (24, 1)}
    for unit in (*heads.values(), *hidden.values()):
        assert sum(len(weight) for weight, _ in unit.made_by) == unit.out.in_features * len(unit.made_by)


def test_every_tensor_of_a_block_that_runs_over_units_is_named(case):
    """What keeps its shape when all but one unit goes is what does not run over them: norms, proj.bias, fc2.bias."""
    named = {
        id(s.tensor)
        for kind in ("heads", "hidden")
        for u in find_units(case.net, case.layout, kind).values()
        for s in u.slices
    }
    block = next(iter(find_units(case.net, case.layout, "heads")))
    rest = {name for name, p in case.net.get_submodule(block).named_parameters() if id(p) not in named}
    assert {name.split(".")[-1] for name in rest} <= {"weight", "bias"}
    assert {name.rpartition(".")[0] for name in rest if "norm" not in name} == {
        "attn.proj",
        "mlp." + case.layout["mlp_out"][4:],
    }


def test_a_star_stays_within_a_segment(eva):
    assert list(find_units(eva.net, {**eva.layout, "blocks": "*.1"}, "hidden")) == ["blocks.1"]
    with pytest.raises(ValueError, match="matches no module"):
        find_units(eva.net, {**eva.layout, "blocks": "blo*1"}, "hidden")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mlp_inn": "x"}, r"layout: no key 'mlp_inn'\. Did you mean 'mlp_in'"),
        ({"blocks": "block.*"}, r"layout\.blocks: 'block\.\*' matches no module.*Did you mean 'blocks"),
        ({"proj": "attn.prj"}, r"layout\.proj: no 'attn\.prj' in blocks\.0\. Did you mean 'attn\.proj'"),
        ({"num_heads": "attn.heads_num"}, r"layout\.num_heads: no 'attn\.heads_num'"),
        ({"num_heads": ()}, r"layout\.num_heads: missing"),
        ({"num_heads": "window_size"}, r"layout\.num_heads: 3 in blocks\.0 does not divide the 32 inputs of proj"),
        ({"head_rows": "mlp.ffn_ln.eps"}, r"layout\.head_rows"),
        ({"head_columns": "mlp.w1.bias", "qkv": "attn.k_proj"}, r"layout\.qkv"),
        ({"head_width": "attn.head_dim"}, r"layout\.head_width: blocks\.0\.attn\.head_dim is 8, expected 32"),
        ({"qkv": ["attn.q_proj", "attn.k_proj"]}, r"layout\.qkv: .* 2 of the three"),
        ({"qkv": "norm1"}, r"layout\.qkv: blocks\.0\.norm1 is a LayerNorm, only nn\.Linear"),
        ({"qkv_bias": ["attn.q_bias"]}, r"layout\.qkv_bias: needs three"),
        ({"mlp_in": ()}, r"layout\.mlp_in: missing"),
        ({"mlp_in": "attn.proj"}, r"layout\.mlp_in: .*32 channels, not a multiple of 24"),
        ({"mlp_norm": "mlp.w1"}, r"layout\.mlp_norm: .* is a Linear, only nn\.LayerNorm"),
    ],
)
def test_what_does_not_fit_is_named(eva, change, message):
    with pytest.raises(ValueError, match=message):
        for kind in ("heads", "hidden"):
            find_units(eva.net, {**eva.layout, **change}, kind)


def test_a_layout_needs_blocks():
    with pytest.raises(ValueError, match="blocks: missing"):
        Layout.read({"proj": "attn.proj"})

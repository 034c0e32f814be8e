"""A pruned net comes back from JSON and a state dict alone."""

import copy
import json

import pytest
import torch

from kd_runner.models.orion.eva_vit import EvaViT
from kd_runner.pruning import spec as specs
from kd_runner.pruning.budget import Budget
from kd_runner.pruning.prune import prune
from kd_runner.pruning.scores import Random
from kd_runner.pruning.surgery import cut

HALF = {"heads": Budget(0.5), "hidden": Budget(0.5, ranking="global", floor=0.2)}


def test_rebuilt_from_files(case, rebuild, tmp_path):
    spec = prune(case.net, layout=case.layout, score=Random(), **HALF)
    specs.save(spec, tmp_path / "pruning.json")
    torch.save(case.net.state_dict(), tmp_path / "net.pth")
    loaded = specs.load(tmp_path / "pruning.json")
    assert loaded == json.loads(json.dumps(spec))

    other = specs.apply(rebuild(case.name).net, loaded)
    other.load_state_dict(torch.load(tmp_path / "net.pth", weights_only=True))
    assert torch.equal(other(case.image), case.net(case.image))


def test_an_eva_vit_is_built_directly_at_the_pruned_widths(eva):
    spec = prune(eva.net, layout=eva.layout, score=Random(), **HALF)
    assert len(set(specs.counts(spec, "hidden"))) > 1
    net = EvaViT(
        patch_size=4, embed_dim=32, depth=2, num_heads=specs.counts(spec, "heads"), head_dim=8,
        hidden=specs.counts(spec, "hidden"), window_size=3, window_block_indexes=(0,), pretrain_img_size=16,
    ).double()  # fmt: skip
    net.load_state_dict(eva.net.state_dict())
    assert torch.equal(net(eva.image), eva.net(eva.image))


def test_two_rounds_give_indices_into_the_unpruned_net(case, rebuild):
    first = prune(case.net, layout=case.layout, score=Random(1), fraction=0.5, **HALF)
    second = prune(case.net, layout=case.layout, score=Random(2), spec=first, **HALF)
    for kind in ("heads", "hidden"):
        for block, entry in second[kind].items():
            assert set(entry["kept"]) <= set(first[kind][block]["kept"]) and entry["of"] == first[kind][block]["of"]
    whole = rebuild(case.name)
    kept = {kind: {b: e["kept"] for b, e in second[kind].items()} for kind in ("heads", "hidden")}
    cut(whole.net, case.layout, kept)
    torch.testing.assert_close(whole.net(case.image), case.net(case.image))


def test_works_on_the_meta_device_and_stays_small():
    with torch.device("meta"):
        net = EvaViT()
    layout = {
        "blocks": "blocks.*", "qkv": ["attn.q_proj", "attn.k_proj", "attn.v_proj"], "proj": "attn.proj",
        "qkv_bias": ["attn.q_bias", None, "attn.v_bias"], "num_heads": "attn.num_heads",
        "mlp_in": ["mlp.w1", "mlp.w2"], "mlp_norm": "mlp.ffn_ln", "mlp_out": "mlp.w3",
    }  # fmt: skip
    spec = prune(net, layout=layout, score=Random(), heads=Budget(0.5))
    assert sum(p.numel() for p in net.parameters()) == 253_032_384
    spec = prune(net, layout=layout, score=Random(), spec=spec, heads=Budget(0.5), hidden=Budget(0.5))
    assert sum(p.numel() for p in net.parameters()) == 152_262_624
    assert len(json.dumps({k: v for k, v in spec.items() if k != "hidden"})) < 20_000
    assert set(specs.counts(spec, "hidden")) == {1365}


def test_hidden_units_survive_the_bit_mask(tmp_path):
    spec = {"format": specs.FORMAT, "layout": {"blocks": "b"}, "heads": {}, "channels": {}}
    for size, kept in ((7, [0, 6]), (8, [7]), (2730, [0, 3, 2729]), (5, [4])):
        spec["hidden"] = {"b": {"of": size, "kept": kept}}
        specs.save(spec, tmp_path / "s.json")
        assert specs.load(tmp_path / "s.json") == spec
    assert '"kept": "08"' in (tmp_path / "s.json").read_text()


def test_a_spec_for_another_net_is_refused(eva, tmp_path):
    spec = specs.whole(eva.net, eva.layout)
    cut(eva.net, eva.layout, {"hidden": {"blocks.1": [0]}})
    with pytest.raises(ValueError, match=r"hidden\.blocks\.1: made for 24, the net has 1"):
        specs.apply(eva.net, spec)
    del spec["heads"]["blocks.0"]
    with pytest.raises(ValueError, match=r"heads: .*'blocks\.0'"):
        specs.apply(eva.net, spec)
    for text, message in (
        ("[", "not JSON"),
        ("{}", "not of the format"),
        (f'{{"format": "{specs.FORMAT}"}}', "lacks 'layout'"),
    ):
        (tmp_path / "s.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            specs.load(tmp_path / "s.json")


def test_another_spec_of_other_widths_takes_a_state_dict_of_its_own(case):
    """Scores that differ in the last bit keep other units: on resume, and in other processes."""
    other = copy.deepcopy(case.net)
    current = prune(case.net, layout=case.layout, score=Random(1), hidden=Budget(0.5, ranking="global"))
    target = prune(other, layout=case.layout, score=Random(2), hidden=Budget(0.4, ranking="global"))
    assert current["hidden"] != target["hidden"]
    specs.reshape(case.net, current, target)
    case.net.load_state_dict(other.state_dict())
    torch.testing.assert_close(case.net(case.image), other(case.image))

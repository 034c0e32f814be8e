"""student.safetensors: weights, and a header that rebuilds the net."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from kd_runner.distillation.student_file import load_student, read_header, save_student
from kd_runner.errors import ConfigError
from kd_runner.models.orion.eva_vit import EvaViT
from kd_runner.models.segmentation.fcn_resnet import fcn_resnet
from kd_runner.pruning.budget import Budget
from kd_runner.pruning.prune import prune
from kd_runner.pruning.pruned import Pruned
from kd_runner.pruning.scores import Random

FCN = {
    "_target_": "kd_runner.models.segmentation.fcn_resnet.fcn_resnet", "num_classes": 4, "layers": [1, 1, 1, 1],
    "width": 4,
}  # fmt: skip
NESTED = {
    "_target_": "torch.nn.Sequential",
    "_args_": [{"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2}, {"_target_": "torch.nn.ReLU"}],
}


def test_the_header_alone_rebuilds_the_net(tmp_path: Path) -> None:
    torch.manual_seed(3)
    net = fcn_resnet(4, layers=(1, 1, 1, 1), width=4).eval()
    save_student(net, tmp_path / "student.safetensors", FCN)
    state = torch.get_rng_state()
    loaded = load_student(tmp_path / "student.safetensors")
    assert type(loaded) is type(net) and not loaded.training
    assert torch.equal(torch.get_rng_state(), state)  # a notebook's random numbers stay as they were
    image = torch.rand(1, 3, 32, 32)
    assert torch.equal(loaded(image)["out"], net(image)["out"])
    assert torch.equal(load_student(tmp_path)(image)["out"], net(image)["out"])  # the run's folder will do


def test_nested_configurations_are_rebuilt(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    save_student(net, tmp_path / "x.safetensors", NESTED)
    loaded = load_student(tmp_path / "x.safetensors")
    assert torch.equal(loaded(torch.ones(1, 3)), net(torch.ones(1, 3)))


def test_pruned_widths_are_rebuilt(tmp_path: Path) -> None:
    config = {"_target_": "kd_runner.models.orion.eva_vit.EvaViT", "embed_dim": 32, "depth": 2, "num_heads": 4,
              "window_block_indexes": []}  # fmt: skip
    net = EvaViT(**{key: value for key, value in config.items() if key != "_target_"}).eval()
    layout = {
        "blocks": "blocks.*", "qkv": ["attn.q_proj", "attn.k_proj", "attn.v_proj"], "proj": "attn.proj",
        "qkv_bias": ["attn.q_bias", None, "attn.v_bias"], "num_heads": "attn.num_heads",
        "head_rows": "attn.head_index",
    }  # fmt: skip
    spec = prune(net, layout=layout, score=Random(), heads=Budget(0.5))
    save_student(net, tmp_path / "x.safetensors", config, Pruned("", spec).header)
    loaded = load_student(tmp_path / "x.safetensors")
    image = torch.rand(1, 3, 32, 32)
    assert [block.attn.num_heads for block in loaded.blocks] == [2, 2]
    assert torch.equal(loaded.blocks[1].attn.head_index, net.blocks[1].attn.head_index)
    expected, got = net(image), loaded(image)
    torch.testing.assert_close(got, expected)


def test_reading_a_header_builds_nothing(tmp_path: Path) -> None:
    save_student(nn.Linear(1, 1), tmp_path / "x.safetensors", {"_target_": "no.such.thing"})
    assert read_header(tmp_path / "x.safetensors").net == {"_target_": "no.such.thing"}
    assert read_header(tmp_path / "absent.safetensors").net is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "its header does not say which net it belongs to"),
        ({"width": 3}, "names no _target_"),
        ({"_target_": 3}, "'3' is no dotted name"),
        ({"_target_": "os.system", "command": "touch HACKED"}, "os.system is no net: it belongs to Python's standard"),
        ({**NESTED, "extra": [{"_target_": "builtins.eval"}]}, r"builtins\.eval is no net"),
        ({"_target_": "torch.nn.Linaer"}, "no 'Linaer' in torch. Did you mean 'Linear'"),
        ({"_target_": "no_such_package.Net"}, "no package 'no_such_package'; it must be importable"),
        ({"_target_": "torch.nn.Linear", "in_features": 1}, r"torch\.nn\.Linear cannot be built as the header says"),
        ({"_target_": "torch.Size", "_args_": [[1]]}, "gives a Size, not a torch.nn.Module"),
        ({"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 1}, "the weights do not fit the net"),
    ],
)
def test_a_header_that_cannot_be_used_is_refused(config: dict | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_student(nn.Linear(1, 1), path, config)
    with pytest.raises(ConfigError, match=message) as caught:
        load_student(path)
    assert str(path) in str(caught.value) and not Path("HACKED").exists()


def test_a_header_that_is_no_json_is_refused(tmp_path: Path) -> None:
    for text, message in (("{", "is not JSON"), (json.dumps([1]), "is no mapping")):
        content = safetensors.torch.save({"w": torch.zeros(1)}, metadata={"kd_runner": text})
        (tmp_path / "x.safetensors").write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            read_header(tmp_path / "x.safetensors")

"""SeveralNets: one input, one output per net, weights from a file each."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kd_runner.distillation.features import FeatureExtractor
from kd_runner.models.several import SeveralNets


def test_each_net_answers_with_its_own_weights(tmp_path: Path) -> None:
    first, second = nn.Linear(3, 2), nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    save_file(first.state_dict(), tmp_path / "first.safetensors")
    torch.save(second.state_dict(), tmp_path / "second.pth")
    nets = {"first": nn.Linear(3, 2), "second": nn.Sequential(nn.Linear(3, 4), nn.ReLU())}
    weights = {"first": str(tmp_path / "first.safetensors"), "second": str(tmp_path / "second.pth")}
    several, x = SeveralNets(nets, weights), torch.randn(5, 3)
    read = FeatureExtractor(several, {"input": "x"}, {"logits": ":first", "hidden": "nets.second.0"})
    features = read({"x": x}, ["logits", "hidden"])
    assert torch.equal(features["logits"], first(x)) and torch.equal(features["hidden"], second[0](x))


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    save_file(nn.Linear(3, 2).state_dict(), tmp_path / "w.safetensors")
    file = str(tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="weights of 'b'; the nets are a"):
        SeveralNets({"a": nn.Linear(3, 2)}, {"b": file})
    with pytest.raises(ValueError, match=r"weights of 'a', .*size mismatch for weight"):
        SeveralNets({"a": nn.Linear(3, 4)}, {"a": file})

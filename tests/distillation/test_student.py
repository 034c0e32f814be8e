"""How a student begins."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kd_runner.distillation.student import load_part
from kd_runner.errors import ConfigError


def net() -> nn.Module:
    return nn.ModuleDict({"encoder": nn.Linear(3, 2), "head": nn.Linear(2, 4)})


def test_one_part_begins_with_weights_of_another_task(tmp_path: Path) -> None:
    other, student = net(), net()
    before = student["head"].weight.clone()
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    load_part(student, nn.Identity(), part="encoder", file=str(tmp_path / "other.safetensors"))
    assert torch.equal(student["encoder"].weight, other["encoder"].weight)
    assert torch.equal(student["head"].weight, before)
    with pytest.raises(ConfigError, match=r"student\.init\.part.*encoder"):
        load_part(student, nn.Identity(), part="encodr", file=str(tmp_path / "other.safetensors"))
    student["encoder"] = nn.Linear(3, 5)
    with pytest.raises(ConfigError, match=r"student\.init\.file.*encoder.*wrong shape"):
        load_part(student, nn.Identity(), part="encoder", file=str(tmp_path / "other.safetensors"))

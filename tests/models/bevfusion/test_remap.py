"""Remapped students: the same function where nothing was cut, agreeing channels where something was."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kd_runner.models.bevfusion import BEVFusionLidar
from kd_runner.models.bevfusion.remap import fpn_pieces, remap

Make = Callable[..., BEVFusionLidar]


def test_a_student_of_the_same_size_becomes_the_teacher(small: Make, cloud: dict[str, Tensor]) -> None:
    teacher, student = small(seed=1).eval(), small(seed=2).eval()
    report = remap(student, teacher.state_dict())
    assert len(report.copied) == len(teacher.state_dict()) and not report.cut and not report.kept
    assert torch.equal(student(**cloud)["codes"], teacher(**cloud)["codes"])


def test_channels_agree_from_layer_to_layer(small: Make, cloud: dict[str, Tensor]) -> None:
    """A teacher whose later channels are silent is the same net without them."""
    narrow = {
        "encoder_channels": (2, 4, 4),
        "second_channels": (4, 8),
        "fpn_channels": (3, 5),
        "encoder_out_channels": 4,
    }
    teacher, student = small(seed=1).eval(), small(seed=2, **narrow).eval()
    slim = dict(student.named_parameters())
    for name, parameter in teacher.named_parameters():
        # A norm's scale and shift of 0 silence a channel: the shift is 0 from the start.
        if parameter.ndim == 1 and name.endswith(".weight") and name in slim:
            parameter.data[len(slim[name]) :] = 0
    report = remap(student, teacher.state_dict(), fpn_pieces(student, teacher))
    assert "bbox_head.shared_conv.weight" in report.cut and not report.kept
    torch.testing.assert_close(student(**cloud)["heatmap"], teacher(**cloud)["heatmap"])


def test_projections_of_attention_are_cut_one_by_one() -> None:
    student, teacher = torch.nn.MultiheadAttention(4, 1), torch.nn.MultiheadAttention(8, 2)
    remap(student, teacher.state_dict())
    rows = [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19]
    assert torch.equal(student.in_proj_weight, teacher.in_proj_weight[rows, :4])


def test_wider_or_unknown_tensors_stay_and_wrong_pieces_are_refused() -> None:
    wide, narrow = torch.nn.Linear(4, 4), torch.nn.Linear(2, 4)
    before = wide.weight.clone()
    report = remap(wide, narrow.state_dict())
    assert report.kept == ["weight"] and report.copied == ["bias"] and torch.equal(wide.weight, before)
    with pytest.raises(ValueError, match="pieces of weight"):
        remap(narrow, wide.state_dict(), {("weight", 1): ([1, 2], [2, 2])})

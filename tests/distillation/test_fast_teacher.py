"""Batch norms folded into the teacher's convolutions."""

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from kd_runner.distillation.fast_teacher import fold
from kd_runner.distillation.features import FeatureExtractor


class Net(nn.Module):
    """One pair that can be folded for sure, one with an activation, and three that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.conv_act, self.norm_act = nn.Conv2d(4, 4, 1), BatchNormAct2d(4)
        self.read, self.norm_read = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.twice, self.norm_twice = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.norm_alone = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm_act(self.conv_act(self.norm(self.conv(x)).relu()))
        x = self.norm_read(self.read(x))
        return self.norm_alone(self.norm_twice(self.twice(self.twice(x))) + x)


class Skip(Net):
    def forward(self, x: Tensor) -> Tensor:
        first = self.conv(x)
        return self.norm(first) + first


FEATURES = {"out": ":", "at_norm": "norm", "at_act": "norm_act", "at_conv": "read"}


@pytest.fixture
def teacher() -> FeatureExtractor:
    torch.manual_seed(0)
    net = Net()
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for value, low in ((norm.weight, 0.5), (norm.bias, -1), (norm.running_mean, -1), (norm.running_var, 0.5)):
                nn.init.uniform_(value, low, 2)
    return FeatureExtractor(net.eval().requires_grad_(False), {"x": "image"}, FEATURES, "teacher")


def test_features_stay_and_only_what_no_feature_reads_is_folded(teacher: FeatureExtractor) -> None:
    batch = {"image": torch.randn(2, 3, 8, 8)}
    folded, other = fold(teacher, batch, FEATURES), {"image": torch.randn(3, 3, 9, 9)}
    kept = {path for path, module in folded.net.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert kept == {"norm_read", "norm_twice", "norm_alone"}
    for name, value in teacher(other).items():
        torch.testing.assert_close(folded(other)[name], value, rtol=1e-5, atol=1e-5)
    assert isinstance(teacher.net.norm, nn.BatchNorm2d)  # the teacher itself is as it was
    assert not any(part.training or any(p.requires_grad for p in part.parameters()) for part in folded.net.modules())


def test_a_convolution_that_something_else_reads_is_refused(teacher: FeatureExtractor) -> None:
    """What reads it is not seen, but the features differ."""
    alone = FeatureExtractor(Skip().eval(), {"x": "image"}, {"out": ":"}, "teacher")
    alone.net.load_state_dict(teacher.net.state_dict())
    assert fold(alone, {"image": torch.randn(2, 3, 8, 8)}, ["out"]) is alone


def test_a_teacher_whose_modules_the_student_holds_is_left_alone(teacher: FeatureExtractor) -> None:
    student = nn.Sequential(teacher.net.conv)
    assert fold(teacher, {"image": torch.randn(2, 3, 8, 8)}, ["out"], student) is teacher

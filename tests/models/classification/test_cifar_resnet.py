"""The nets of the CIFAR benchmark."""

from pathlib import Path

import pytest
import torch

from kd_runner.distillation import checkpoints
from kd_runner.models.classification.cifar_resnet import CifarResNet


@pytest.mark.parametrize(("depth", "count"), [(32, 7_433_860), (8, 1_233_540)])
def test_parameters_are_the_published_ones(depth: int, count: int) -> None:
    with torch.device("meta"):
        net = CifarResNet(depth, num_classes=100)
    assert sum(p.numel() for p in net.parameters()) == count


def test_features_and_logits() -> None:
    net = CifarResNet(8, (4, 6, 8, 10), num_classes=7).eval()
    image = torch.randn(2, 3, 16, 12)
    shapes = {}
    for name in ("layer1", "layer2", "layer3", "pool"):
        net.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: shapes.update({name: out.shape}))
    logits = net(image)
    assert [tuple(shapes[name]) for name in shapes] == [(2, 6, 16, 12), (2, 8, 8, 6), (2, 10, 4, 3), (2, 10)]
    assert logits.shape == (2, 7)


def test_a_checkpoint_in_repdistillers_layout(tmp_path: Path) -> None:
    """`model` beside epoch, accuracy and optimizer; names as RepDistiller's models/resnet.py writes them."""
    torch.manual_seed(0)
    state = CifarResNet(14, (4, 4, 8, 8), num_classes=5).state_dict()
    for name in ("conv1.weight", "bn1.running_var", "layer1.1.conv2.weight", "layer2.0.downsample.0.weight",
                 "layer3.0.downsample.1.num_batches_tracked", "fc.bias"):  # fmt: skip
        assert name in state
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.05, "params": [0]}]}
    file = tmp_path / "ckpt_epoch_240.pth"
    torch.save({"epoch": 240, "model": state, "best_acc": torch.tensor(79.42), "optimizer": optimizer}, file)
    net = CifarResNet(14, (4, 4, 8, 8), num_classes=5)
    assert checkpoints.load(net, file, "teacher.checkpoint").complete
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in state.items())


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="depth=10: 8, 14, 20"):
        CifarResNet(10)
    with pytest.raises(ValueError, match="four numbers"):
        CifarResNet(8, (4, 8, 16))

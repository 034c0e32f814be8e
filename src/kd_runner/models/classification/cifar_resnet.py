"""The ResNets of the CIFAR distillation benchmark, with the module names of their published checkpoints.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2; the four-fold widths ("x4")
and the names are those of Tian et al., "Contrastive Representation Distillation", ICLR 2020 (RepDistiller,
`models/resnet.py`).
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with batch normalization and a shortcut.

        y = relu(x' + bn2(conv2(relu(bn1(conv1(x))))))

    x' is x, or a 1 x 1 convolution of it (`downsample`) where channels or size change.

    Args:
        inputs: channels of x.
        width: channels of y.
        stride: of the first convolution.
    """

    def __init__(self, inputs: int, width: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or inputs != width:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: (B, inputs, H, W).

        Returns:
            (B, width, H / stride, W / stride).
        """
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class CifarResNet(nn.Module):
    """ResNet of depth 6n + 2 for small images: a 3 x 3 stem and three stages of n blocks, the last two at stride 2.

    Useful features: `layer1` (B, C1, H, W), `layer2` (B, C2, H/2, W/2), `layer3` (B, C3, H/4, W/4), `pool` (B, C3), the
    input of the classifier, and `:` the logits.

    Args:
        depth: 8, 14, 20, 26, 32, ...
        widths: channels of the stem and of the three stages. `[32, 64, 128, 256]` is "x4": resnet32x4 has 7.43 M
            parameters with 100 classes, resnet8x4 1.23 M.
        num_classes: number of classes.

    Raises:
        ValueError: there is no net of this depth, or not four widths.
    """

    def __init__(self, depth: int, widths: Sequence[int] = (32, 64, 128, 256), num_classes: int = 100):
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth={depth}: 8, 14, 20, 26, 32, ... (6n + 2)")
        if len(widths) != 4:
            raise ValueError(f"widths={list(widths)}: four numbers, of the stem and of three stages")
        stem, *stages = widths
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = _stage(stem, stages[0], blocks, 1)
        self.layer2 = _stage(stages[0], stages[1], blocks, 2)
        self.layer3 = _stage(stages[1], stages[2], blocks, 2)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
        self.fc = nn.Linear(stages[2], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> Tensor:
        """Classify images.

        Args:
            image: (B, 3, H, W).

        Returns:
            Logits (B, num_classes).
        """
        x = F.relu(self.bn1(self.conv1(image)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.pool(x))


def _stage(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(inputs, width, stride)
    return nn.Sequential(first, *(BasicBlock(width, width) for _ in range(blocks - 1)))

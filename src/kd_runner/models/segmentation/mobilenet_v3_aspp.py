"""MobileNetV3-Small with atrous spatial pyramid pooling and two skip connections: the segmentation student.

Useful feature paths, with channels at width 1 and strides (half of them with `stem_stride=1`):
`features.1` low 16 /4, `features.3` mid 24 /8, `features.8` 48 /16, `features.12` high 576 /16 (/32
undilated), `aspp` 96 as `features.12`, `fuse` 96 /4, `classifier` the logits /4.

Sources: Howard et al., "Searching for MobileNetV3", ICCV 2019 (torchvision's network); Chen et al.,
"Rethinking Atrous Convolution", 2017 (the pyramid) and "Encoder-Decoder with Atrous Separable Convolution",
ECCV 2018 (the skip connections).
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import mobilenet_v3_small
from torchvision.ops import Conv2dNormActivation

LOW, MID = 1, 3


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: (B, in_channels, h, w) to (B, channels, h, w).

    A 1 x 1 convolution, one dilated 3 x 3 convolution per entry of `rates`, and global average pooling, joined by a
    1 x 1 projection. The pooling branch has a bias instead of batch normalization, which cannot train on a single
    value per channel with one image in a batch.

    Args:
        in_channels: channels of the input.
        channels: channels of each branch and of the output.
        rates: dilation rates, in cells of the feature map.
    """

    def __init__(self, in_channels: int, channels: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [Conv2dNormActivation(in_channels, channels, kernel_size=1)]
            + [Conv2dNormActivation(in_channels, channels, kernel_size=3, dilation=rate) for rate in rates]
        )
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(in_channels, channels, 1), nn.ReLU())
        self.project = Conv2dNormActivation((len(rates) + 2) * channels, channels, kernel_size=1)

    def forward(self, feature: Tensor) -> Tensor:
        """Pool the context of each pixel.

        Args:
            feature: (B, in_channels, h, w).

        Returns:
            (B, channels, h, w).
        """
        context = [branch(feature) for branch in self.branches]
        context.append(self.pooled(feature).expand_as(context[0]))
        return self.project(torch.cat(context, dim=1))


class MobileNetV3ASPP(nn.Module):
    """Segmentation network on MobileNetV3-Small: images (B, 3, H, W) of any size to logits (B, num_classes, H, W).

    The pyramid's output and 1 x 1 convolutions of the low and mid features are concatenated at the low features' size;
    a 3 x 3 convolution and the classifier follow, and the logits are upsampled bilinearly. 2,776,309 parameters with 21
    classes at the defaults.

    Args:
        num_classes: number of classes, background included.
        aspp_channels: channels of the pyramid and of the fused features.
        skip_channels: channels of each skip connection.
        aspp_rates: dilation rates in cells of the last feature map; on a map of 12 x 12 cells a rate of 12 or more
            reads only padding around its center.
        width_mult: factor of the backbone's channels.
        dilated: keep the last blocks at stride 16.
        stem_stride: 2, or 1 to halve every stride, for images of about 100 pixels.
        dropout: probability of dropping a channel before the classifier.
        norm_momentum: momentum of the backbone's batch norms; torchvision's 0.01 suits long training only.
        weights_backbone: torchvision's ImageNet weights ("IMAGENET1K_V1", "DEFAULT"); None for random initialization,
            without a download.

    Raises:
        ValueError: no class; a width_mult of 0 or below; stem_stride is neither 1 nor 2; published weights with a
            `width_mult` other than 1, or a failed download.
    """

    def __init__(
        self,
        num_classes: int = 21,
        *,
        aspp_channels: int = 96,
        skip_channels: int = 64,
        aspp_rates: Sequence[int] = (6, 12, 18),
        width_mult: float = 1.0,
        dilated: bool = True,
        stem_stride: int = 2,
        dropout: float = 0.1,
        norm_momentum: float = 0.01,
        weights_backbone: str | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes={num_classes}: must be at least 1")
        if width_mult <= 0:
            raise ValueError(f"width_mult={width_mult}: must be above 0")
        if stem_stride not in (1, 2):
            raise ValueError(f"stem_stride={stem_stride}: must be 1 or 2")
        self.features = _features(width_mult, dilated, stem_stride, norm_momentum, weights_backbone)
        self.aspp = ASPP(_width(self.features[-1]), aspp_channels, aspp_rates)
        self.skip_low = Conv2dNormActivation(_width(self.features[LOW]), skip_channels, kernel_size=1)
        self.skip_mid = Conv2dNormActivation(_width(self.features[MID]), skip_channels, kernel_size=1)
        self.fuse = Conv2dNormActivation(aspp_channels + 2 * skip_channels, aspp_channels, kernel_size=3)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Conv2d(aspp_channels, num_classes, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Classify pixels.

        Args:
            image: (B, 3, H, W).

        Returns:
            Logits (B, num_classes, H, W).
        """
        low = self.features[: LOW + 1](image)
        mid = self.features[LOW + 1 : MID + 1](low)
        context = self.aspp(self.features[MID + 1 :](mid))
        size = low.shape[-2:]
        joined = [_resize(context, size), _resize(self.skip_mid(mid), size), self.skip_low(low)]
        logits = self.classifier(self.fuse(torch.cat(joined, dim=1)))
        return _resize(logits, image.shape[-2:])


def _resize(feature: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(feature, size=size, mode="bilinear", align_corners=False)


def _width(block: nn.Module) -> int:
    """Output channels of one of torchvision's feature blocks."""
    width = block.out_channels
    return width  # type: ignore[return-value]


def _features(
    width_mult: float, dilated: bool, stem_stride: int, norm_momentum: float, weights: str | None
) -> nn.Sequential:
    """The 13 feature blocks of torchvision's MobileNetV3-Small."""
    if weights is not None and width_mult != 1.0:
        raise ValueError(f"weights_backbone={weights} is published for width_mult=1 only, not for {width_mult}")
    norm = partial(nn.BatchNorm2d, eps=0.001, momentum=norm_momentum)
    try:
        features = mobilenet_v3_small(
            weights=weights, progress=False, width_mult=width_mult, dilated=dilated, norm_layer=norm
        ).features
    except (KeyError, OSError) as error:  # an unknown name, or urllib's errors
        raise ValueError(
            f"weights_backbone={weights} could not be loaded ({error!r}): set it to null, "
            "or to IMAGENET1K_V1 with internet access"
        ) from error
    stem = next(module for module in features.modules() if isinstance(module, nn.Conv2d))
    stem.stride = (stem_stride, stem_stride)  # a convolution's weights do not depend on its stride
    return features

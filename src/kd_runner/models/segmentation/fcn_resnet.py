"""Fully convolutional networks on a dilated ResNet: the teachers of the segmentation experiments.

Both give torchvision's dictionary: "out" (B, num_classes, H, W) at the size of the input and, with `aux`,
"aux" of the same shape, read from layer3. Useful feature paths, with strides: `backbone.layer1` /4,
`backbone.layer2`, `backbone.layer3` and `backbone.layer4` /8, `classifier` /8 (the logits before upsampling).

Source: Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015, in the
dilated form of `torchvision.models.segmentation.fcn_resnet50`.
"""

from collections.abc import Sequence

from timm.models.resnet import BasicBlock, ResNet
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation import FCN_ResNet50_Weights
from torchvision.models.segmentation import fcn_resnet50 as torchvision_fcn_resnet50
from torchvision.models.segmentation.fcn import FCN, FCNHead


def fcn_resnet50(num_classes: int = 21, *, weights: str | None = None, aux: bool = False) -> FCN:
    """torchvision's FCN-ResNet50: 32,957,013 parameters with 21 classes, 35,322,218 with the auxiliary head.

    Args:
        num_classes: number of classes, background included.
        weights: None for random initialization (nothing is downloaded, not even the backbone's ImageNet weights), or
            the name of published weights: "COCO_WITH_VOC_LABELS_V1" or "DEFAULT".
        aux: with the auxiliary head; without, it is removed after loading.

    Returns:
        torchvision's module; see the module's docstring for its outputs.

    Raises:
        ValueError: no weights of that name, weights for another number of classes, or a failed download.
    """
    if weights is None:
        return torchvision_fcn_resnet50(
            weights=None, weights_backbone=None, num_classes=num_classes, aux_loss=aux, progress=False
        )
    try:
        published = FCN_ResNet50_Weights[weights]
    except KeyError:
        names = ", ".join(FCN_ResNet50_Weights.__members__)
        raise ValueError(f"weights={weights}: torchvision publishes only {names} (or null)") from None
    published_classes = len(published.meta["categories"])
    if num_classes != published_classes:
        raise ValueError(f"num_classes={num_classes}: the weights {weights} are for {published_classes} classes")
    try:
        net = torchvision_fcn_resnet50(weights=published, progress=False)
    except OSError as error:  # urllib's URLError and HTTPError are OSErrors, as is a full disk
        raise ValueError(
            f"weights={weights} could not be downloaded from {published.url} ({error}): "
            "set it to null and load a local file of the same weights"
        ) from error
    if not aux:
        net.aux_classifier = None
        net.backbone.return_layers.pop("layer3")  # otherwise its features would still be returned
    return net


def fcn_resnet(num_classes: int, *, layers: Sequence[int] = (2, 2, 2, 2), width: int = 20, aux: bool = False) -> FCN:
    """A small FCN on a ResNet of timm's basic blocks, with a stem of three 3 x 3 convolutions and random weights.

    Strides, module paths and the head are those of `fcn_resnet50`. 1,153,741 parameters with 11 classes at the
    defaults.

    Args:
        num_classes: number of classes, background included.
        layers: number of blocks of layer1 to layer4.
        width: channels of layer1; layer2 to layer4 have 2, 4 and 8 times as many.
        aux: with the auxiliary head.

    Returns:
        A module with the outputs of torchvision's FCN.

    Raises:
        ValueError: `layers` has not four positive entries, or `width` is odd.
    """
    if len(layers) != 4 or min(layers) < 1:
        raise ValueError(f"layers={list(layers)}: four numbers of at least one block are needed")
    if width < 2 or width % 2:
        raise ValueError(f"width={width}: an even number is needed, the stem starts with half of it")
    channels = tuple(width * factor for factor in (1, 2, 4, 8))
    resnet = ResNet(
        BasicBlock,  # type: ignore[arg-type]  # timm annotates the class as its instance
        tuple(layers),
        output_stride=8,
        stem_type="deep",
        stem_width=width // 2,
        channels=channels,
    )
    return_layers = {"layer4": "out"} | ({"layer3": "aux"} if aux else {})
    return FCN(
        IntermediateLayerGetter(resnet, return_layers),
        FCNHead(channels[3], num_classes),
        FCNHead(channels[2], num_classes) if aux else None,
    )

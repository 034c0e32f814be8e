"""Fully convolutional networks on a dilated ResNet: the teachers of the segmentation experiments.

Both give torchvision's dictionary: "out" (B, num_classes, H, W) at the size of the input and, with `aux`,
"aux" of the same shape, read from layer3. Module paths worth tapping, with strides: `backbone.layer1` /4,
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

    `weights` is None (random; nothing is downloaded, the backbone's ImageNet weights neither) or the name of
    published ones: "COCO_WITH_VOC_LABELS_V1" or "DEFAULT". Those hold the auxiliary head too; with `aux` off
    it is dropped after loading.

    Raises ValueError if there are no weights of that name, they do not fit `num_classes`, or cannot be
    fetched.
    """
    if weights is None:
        return torchvision_fcn_resnet50(
            weights=None, weights_backbone=None, num_classes=num_classes, aux_loss=aux, progress=False
        )
    try:
        published = FCN_ResNet50_Weights[weights]
    except KeyError:
        names = ", ".join(FCN_ResNet50_Weights.__members__)
        raise ValueError(f"teacher.net.weights={weights}: torchvision publishes only {names} (or null)") from None
    published_classes = len(published.meta["categories"])
    if num_classes != published_classes:
        raise ValueError(
            f"teacher.net.num_classes={num_classes}: the weights teacher.net.weights={weights} "
            f"are for {published_classes} classes"
        )
    try:
        net = torchvision_fcn_resnet50(weights=published, progress=False)
    except OSError as error:  # urllib's URLError and HTTPError are OSErrors, as is a full disk
        raise ValueError(
            f"teacher.net.weights={weights} could not be fetched from {published.url} ({error}): "
            "set it to null and name a local file of the same weights in teacher.checkpoint"
        ) from error
    if not aux:
        net.aux_classifier = None
        net.backbone.return_layers.pop("layer3")  # otherwise its features would still be passed on
    return net


def fcn_resnet(num_classes: int, *, layers: Sequence[int] = (2, 2, 2, 2), width: int = 20, aux: bool = False) -> FCN:
    """The same network in small, with random weights: timm's basic blocks and a stem of three 3 x 3
    convolutions.

    `layers` are the numbers of blocks of layer1 to layer4, whose channels are `width` times 1, 2, 4, 8.
    Strides, module paths and the head are those of `fcn_resnet50`. 1,153,741 parameters with 11 classes at
    the defaults.

    Raises ValueError if `layers` has not four entries or `width` is odd.
    """
    if len(layers) != 4 or min(layers) < 1:
        raise ValueError(f"teacher.net.layers={list(layers)}: four numbers of at least one block are needed")
    if width < 2 or width % 2:
        raise ValueError(f"teacher.net.width={width}: an even number is needed, the stem starts with half of it")
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

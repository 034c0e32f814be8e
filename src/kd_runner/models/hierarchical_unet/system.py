"""Person instance segmentation in given boxes: a U-Net on the image and a head on each ROI."""

from collections.abc import Sequence

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from kd_runner.models.hierarchical_unet.blocks import ResidualBlock, conv_norm_relu
from kd_runner.models.hierarchical_unet.head import HierarchicalHead


class HierarchicalUNet(nn.Module):
    """Masks of persons in given boxes: the box's own person (target) and other persons in it (non-target).

    A U-Net classifies the pixels of the whole image as background or person. Its logits and the image, both cropped by
    RoIAlign (He et al. 2017), go through a head per box. In two-class outputs channel 0 is background.

    26,903,400 parameters with `timm-efficientnet-b3`, 19,995,836 with `timm-efficientnet-b0`, of them 13,159,033 and
    6,251,469 in the U-Net; with `roi_width=128` the other 13,744,367 become 3,443,375.

    Args:
        encoder_name: encoder of segmentation_models_pytorch; `tu-<name>` selects one of timm.
        encoder_weights: `imagenet` downloads the published weights; None for random initialization.
        encoder_depth: number of downsampling stages, 3 to 5; image sizes must be multiples of 2 to that power.
        decoder_channels: channels of each decoder block, deepest first, as many as `encoder_depth`.
        roi_size: (height, width) of the RoIAlign crops.
        mask_size: (height, width) of the masks.
        roi_width: channels of the ROI network; a multiple of 16, at least 32.
        dropout: probability of dropping a channel of the ROI network in training.

    Raises:
        ValueError: arguments that do not fit, or weights that cannot be downloaded.

    Source:
        PINTO0309/human-instance-segmentation, hierarchical UNet v2.
    """

    def __init__(
        self,
        encoder_name: str,
        encoder_weights: str | None = None,
        encoder_depth: int = 5,
        decoder_channels: Sequence[int] = (256, 128, 64, 32, 16),
        roi_size: Sequence[int] = (80, 60),
        mask_size: Sequence[int] = (160, 120),
        roi_width: int = 256,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if roi_width % 16 or roi_width < 32:
            raise ValueError(f"roi_width={roi_width}: must be a multiple of 16, at least 32")
        self.roi_size = (roi_size[0], roi_size[1])
        self.unet = _unet(encoder_name, encoder_weights, encoder_depth, decoder_channels)
        self.bg_fg = nn.Conv2d(1, 2, 1)
        with torch.no_grad():
            self.bg_fg.weight.copy_(torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1))
            self.bg_fg.bias.zero_()  # type: ignore[union-attr]
        quarter, half = roi_width // 4, roi_width // 2
        self.rgb = nn.Sequential(
            conv_norm_relu(3, quarter),
            ResidualBlock(quarter),
            conv_norm_relu(quarter, half),
            ResidualBlock(half),
            conv_norm_relu(half, roi_width),
            ResidualBlock(roi_width),
            conv_norm_relu(roi_width, roi_width, kernel_size=1),
        )
        self.combine = nn.Conv2d(roi_width + 2, roi_width, 1)
        self.head = HierarchicalHead(roi_width, mask_size, dropout)

    def forward(self, image: Tensor, rois: Tensor, roi_mask: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the outputs of R ROIs: all B * N in order or, with a mask, the valid ones.

        Args:
            image: (B, 3, H, W).
            rois: (B, N, 4) boxes x1, y1, x2, y2 in 0..1 of width and height.
            roi_mask: (B, N) bool, False for padding, which is not computed.

        Returns:
            Dictionary of
            `masks` (R, h, w) bool, True where target is the most probable class;
            `logits` (R, 3, h, w) of background, target, non-target;
            `bg_fg` (R, 2, h, w) and `target_nontarget` (R, 2, h, w), logits of the two branches;
            `contour` (R, 1, h, w), logit of the target's edge;
            `distance` (R, 1, h, w), 0.5 on that edge and more inside;
            `distance_mask` (R, 1, h, w), logit of the target from thresholding the distance;
            `image_logits` (B, 2, H, W) of background and foreground.

        Raises:
            ValueError: no ROI is valid.
        """
        image_logits = self.bg_fg(self.unet(image))
        boxes = _boxes(rois, image)
        if roi_mask is not None:
            boxes = boxes[roi_mask.flatten()]
            if not len(boxes):
                raise ValueError("roi_mask: the batch has no ROI; leave images without one out of the data")
        patches, logits = self._cut(image, boxes), self._cut(image_logits, boxes)
        outputs = self.head(self.combine(torch.cat([self.rgb(patches), logits], dim=1)))
        return {"masks": outputs["logits"].argmax(1) == 1, **outputs, "image_logits": image_logits}

    def _cut(self, x: Tensor, boxes: Tensor) -> Tensor:
        return roi_align(x, boxes.to(x.dtype), self.roi_size, sampling_ratio=2, aligned=True)


def _boxes(rois: Tensor, image: Tensor) -> Tensor:
    """Boxes (B, N, 4) in 0..1 to RoIAlign's (B * N, 5): image number, x1, y1, x2, y2 in pixels."""
    height, width = image.shape[-2:]
    size = torch.tensor([width, height, width, height], dtype=rois.dtype, device=rois.device)
    image_number = torch.arange(rois.shape[0], dtype=rois.dtype, device=rois.device)[:, None, None].expand_as(
        rois[..., :1]
    )
    return torch.cat([image_number, rois * size], dim=-1).flatten(0, 1)


def _unet(name: str, weights: str | None, depth: int, decoder_channels: Sequence[int]) -> nn.Module:
    try:
        unet = smp.Unet(name, depth, weights, decoder_channels=list(decoder_channels), classes=1)
    except (KeyError, OSError) as error:  # an unknown name, or no network
        raise ValueError(
            f"encoder_name={name}, encoder_weights={weights}: {error}; null starts from random weights"
        ) from error
    _freeze_unread(unet, 2**depth)
    return unet


def _freeze_unread(unet: nn.Module, side: int) -> None:
    """Freeze parameters without gradient (the encoder's own classifier): DDP would wait for them."""
    unet.eval()
    with torch.enable_grad():
        unet(torch.zeros(1, 3, side, side)).sum().backward()
    for parameter in unet.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None
    unet.train()

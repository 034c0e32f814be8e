"""Transforms of image and mask."""

import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors

from kd_runner.data.voc.transforms import MEAN, STD, evaluate, to_pixels, train


def pair(height: int = 6, width: int = 9) -> tuple[Tensor, Tensor]:
    """An image whose red value is three times the label, so that it tells what the mask should be."""
    labels = torch.arange(height * width, dtype=torch.uint8).reshape(height, width)
    image = torch.stack([3 * labels, 0 * labels, 0 * labels + 255])
    return tv_tensors.Image(image), tv_tensors.Mask(labels)


def filled(image: Tensor) -> Tensor:
    """The labels that the image's red tells."""
    return (to_pixels(image.as_subclass(Tensor))[0] * 255 / 3).round().long()


def test_image_and_mask_are_cut_flipped_and_padded_alike() -> None:
    """Scale 1, so that every pixel stays itself; 12 draws show crops, flips and padding."""
    torch.manual_seed(0)
    seen = set()
    for _ in range(12):
        image, mask = train(crop=8, scale=(1.0, 1.0))(*pair())
        inside = mask != 255
        assert image.shape == (3, 8, 8) and mask.shape == (8, 8)
        assert torch.equal(filled(image)[inside], mask.as_subclass(Tensor)[inside].long())
        seen.add((bool((mask[inside][0] > mask[inside][1]).item()), int(mask[inside].min())))
    assert {flipped for flipped, _ in seen} == {True, False} and len({least for _, least in seen}) > 1


def test_padding_is_the_mean_color_and_void() -> None:
    for image, mask in (evaluate(12)(*pair()), train(crop=12, scale=(1.0, 1.0))(*pair())):
        outside = mask == 255
        assert int(outside.sum()) == 12 * 12 - 6 * 9
        assert image.as_subclass(Tensor)[:, outside].abs().max() < 0.01  # the mean, rounded to a byte, normalized


def test_a_flip_may_be_forbidden() -> None:
    """Mirrored digits are other things."""
    torch.manual_seed(0)
    for _ in range(10):
        mask = train(crop=6, scale=(1.0, 1.0), flip=0.0)(*pair(6, 6))[1]
        assert torch.equal(mask.as_subclass(Tensor), pair(6, 6)[1].as_subclass(Tensor))


def test_scaling_keeps_the_proportions_and_both_together() -> None:
    """A factor of 2 shows each pixel as 2 x 2."""
    mask = train(crop=12, scale=(2.0, 2.0), flip=0.0)(*pair(6, 6))[1].as_subclass(Tensor)
    expected = pair(6, 6)[1].as_subclass(Tensor).repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(mask, expected)


def test_scales_fill_their_range() -> None:
    torch.manual_seed(0)
    sides = []
    for _ in range(200):
        mask = train(crop=40, scale=(0.5, 2.0))(*pair(16, 16))[1]
        sides.append(int((mask != 255).sum()) ** 0.5)
    assert 8 <= min(sides) < 10 and 30 < max(sides) <= 32


def test_color_changes_the_image_and_not_the_mask() -> None:
    torch.manual_seed(0)
    image, mask = train(crop=6, scale=(1.0, 1.0), flip=0.0, brightness=0.5)(*pair(6, 6))
    plain = evaluate()(*pair(6, 6))
    assert torch.equal(mask, plain[1])
    assert not torch.allclose(image, plain[0], atol=0.05)


def test_the_global_seed_decides_everything() -> None:
    """SeededDataset relies on it: no other source of randomness."""
    transform = train(crop=8, brightness=0.4, contrast=0.4, saturation=0.4)
    draws = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        draws.append(transform(*pair())[0])
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_evaluation_leaves_pixels_as_they_are() -> None:
    image, mask = evaluate()(*pair())
    raw, labels = pair()
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    torch.testing.assert_close(image.as_subclass(Tensor), (raw.as_subclass(Tensor) / 255 - mean) / std)
    assert torch.equal(mask, labels)


def test_to_pixels_undoes_the_normalization() -> None:
    raw = pair()[0].as_subclass(Tensor)
    torch.testing.assert_close(to_pixels(evaluate()(*pair())[0].as_subclass(Tensor)), raw / 255)


def test_an_image_larger_than_the_padding_names_the_key() -> None:
    with pytest.raises(ValueError, match="6 x 9 pixels exceeds size=8"):
        evaluate(8)(*pair())

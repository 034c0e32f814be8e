"""Features and inputs between a batch and a net."""

import pytest
import torch
from torch import nn

from kd_runner.distillation.features import FeatureExtractor
from kd_runner.distillation.net_transforms import ChannelsFirst, ImageInput, MapToTokens, Resize, TokensToMap
from kd_runner.errors import ConfigError


def test_tokens_are_laid_out_row_by_row_without_the_prefix() -> None:
    tokens = torch.arange(1 + 2 * 3).float().view(1, 7, 1).repeat(2, 1, 4)  # token k holds k
    value = TokensToMap(prefix=1)(tokens, (32, 48))
    assert value.shape == (2, 4, 2, 3) and value[1, 2].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert torch.equal(MapToTokens()(value, None), tokens[:, 1:])
    assert torch.equal(TokensToMap(prefix=1, grid=[3, 2])(tokens, None)[0, 0], torch.tensor([[1.0, 2], [3, 4], [5, 6]]))
    assert ChannelsFirst()(value.permute(0, 2, 3, 1), None).equal(value)


def test_a_wrong_prefix_is_named() -> None:
    with pytest.raises(ValueError, match=r"21 tokens less prefix=1 make .* prefix 5\)"):
        TokensToMap(prefix=1)(torch.zeros(1, 21, 8), (64, 64))


def test_images_of_other_statistics_and_size() -> None:
    pixels = torch.rand(2, 3, 8, 8)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
    given = (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    back = ImageInput(mean.tolist(), std.tolist())
    assert torch.allclose(back(given), pixels, atol=1e-6)
    other = ImageInput(mean.tolist(), std.tolist(), [0.4, 0.4, 0.4], [0.2, 0.2, 0.2], [6, 10])(given)
    resized = nn.functional.interpolate(pixels, (6, 10), mode="bilinear", antialias=True)
    assert torch.allclose(other, (resized - 0.4) / 0.2, atol=1e-5)


def test_a_net_reads_and_gives_what_the_transforms_make() -> None:
    net = nn.Conv2d(3, 5, 4, 4)
    features = FeatureExtractor(
        net,
        inputs={"input": "image"},
        features={"logits": ":", "coarse": ":"},
        transforms={"logits": Resize()},
        input_transforms={"input": ImageInput(size=[16, 24])},
    )
    out = features({"image": torch.rand(2, 3, 8, 12)})
    assert out["coarse"].shape == (2, 5, 4, 6) and out["logits"].shape == (2, 5, 8, 12)
    expected = nn.functional.interpolate(out["coarse"], (8, 12), mode="bilinear", align_corners=False)
    assert torch.equal(out["logits"], expected)
    assert features.one_sample({"image": torch.rand(2, 3, 8, 12)})["input"].shape == (1, 3, 16, 24)


def test_transforms_of_unknown_names_and_wrong_features_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"student\.feature_transforms\.logit: no such name.*'logits'"):
        FeatureExtractor(nn.Conv2d(3, 5, 1), {"input": "x"}, {"logits": ":"}, transforms={"logit": Resize()})
    features = FeatureExtractor(nn.Conv2d(3, 5, 1), {"input": "x"}, {"map": ":"}, transforms={"map": TokensToMap()})
    with pytest.raises(ConfigError, match=r"student\.feature_transforms\.map: TokensToMap takes tokens"):
        features({"x": torch.rand(1, 3, 4, 4)})

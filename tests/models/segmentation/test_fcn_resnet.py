"""The FCN teachers: published sizes, torchvision's interface, no silent downloads."""

import urllib.error
from typing import Any

import pytest
import torch
from torch import nn

from kd_runner.models.segmentation.fcn_resnet import fcn_resnet, fcn_resnet50


def size(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def no_network(*args: Any, **kwargs: Any) -> None:
    raise urllib.error.URLError("no route to host")


def test_parameters_are_the_published_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", no_network)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    assert size(fcn_resnet50()) == 32_957_013
    assert size(fcn_resnet50(aux=True)) == 35_322_218


@pytest.mark.parametrize("aux", [False, True])
def test_published_weights_load_with_and_without_the_auxiliary_head(monkeypatch: pytest.MonkeyPatch, aux: bool) -> None:
    published = fcn_resnet50(aux=True).state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *args, **kwargs: published)
    net = fcn_resnet50(weights="DEFAULT", aux=aux).eval()
    torch.testing.assert_close(net.state_dict()["classifier.4.weight"], published["classifier.4.weight"])
    outputs = net(torch.zeros(1, 3, 32, 32))
    assert set(outputs) == ({"out", "aux"} if aux else {"out"})
    assert size(net) == (35_322_218 if aux else 32_957_013)


def test_a_failed_download_names_the_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(ValueError, match=r"weights=COCO_WITH_VOC_LABELS_V1 could not be downloaded.*null"):
        fcn_resnet50(weights="COCO_WITH_VOC_LABELS_V1")


def test_wrong_weights_are_named() -> None:
    with pytest.raises(ValueError, match="COCO_WITH_VOC_LABELS_V1"):
        fcn_resnet50(weights="IMAGENET")
    with pytest.raises(ValueError, match="num_classes"):
        fcn_resnet50(11, weights="DEFAULT")


@pytest.mark.parametrize("aux", [False, True])
def test_small_network_answers_at_input_size(aux: bool) -> None:
    net = fcn_resnet(11, width=8, layers=(1, 1, 1, 1), aux=aux)
    outputs = net(torch.rand(2, 3, 50, 70))
    assert set(outputs) == ({"out", "aux"} if aux else {"out"})
    assert all(output.shape == (2, 11, 50, 70) for output in outputs.values())


def test_small_network_has_the_paths_and_strides_of_the_large_one() -> None:
    shapes: dict[str, list[tuple[int, ...]]] = {}
    for net in (fcn_resnet(21, width=8), fcn_resnet50()):
        net.eval()
        for path in ("backbone.layer1", "backbone.layer2", "backbone.layer4", "classifier"):
            net.get_submodule(path).register_forward_hook(
                lambda module, args, output, path=path: shapes.setdefault(path, []).append(output.shape[2:])
            )
        with torch.no_grad():
            net(torch.rand(1, 3, 64, 64))
    assert shapes == {
        "backbone.layer1": [(16, 16)] * 2,
        "backbone.layer2": [(8, 8)] * 2,
        "backbone.layer4": [(8, 8)] * 2,
        "classifier": [(8, 8)] * 2,
    }


def test_small_network_fits_a_small_file() -> None:
    assert size(fcn_resnet(11)) * 4 < 5e6


@pytest.mark.parametrize("wrong", [{"layers": (1, 1, 1)}, {"width": 7}])
def test_wrong_arguments_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        fcn_resnet(11, **wrong)

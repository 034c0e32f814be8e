"""The MobileNetV3 student: its size, any input shape, one picture in a batch, ONNX."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kd_runner.models.segmentation.mobilenet_v3_aspp import MobileNetV3ASPP

MINI = {
    "num_classes": 11,
    "width_mult": 0.5,
    "aspp_channels": 24,
    "skip_channels": 8,
    "aspp_rates": (1, 2, 3),
}


def shapes_of(net: MobileNetV3ASPP, side: int, *paths: str) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for path in paths:
        net.get_submodule(path).register_forward_hook(
            lambda module, args, output, path=path: shapes.update({path: tuple(output.shape[1:])})
        )
    with torch.no_grad():
        net.eval()(torch.rand(1, 3, side, side))
    return shapes


def test_size_at_the_defaults() -> None:
    size = sum(parameter.numel() for parameter in MobileNetV3ASPP().parameters())
    assert size == 2_776_309
    assert abs(size / 2.8e6 - 1) < 0.03


@pytest.mark.parametrize("shape", [(2, 3, 96, 96), (2, 3, 75, 101), (1, 3, 33, 40)])
def test_logits_have_the_input_size(shape: tuple[int, ...]) -> None:
    assert MobileNetV3ASPP(**MINI).eval()(torch.rand(shape)).shape == (shape[0], 11, *shape[2:])


def test_one_picture_trains_and_reaches_every_parameter() -> None:
    net = MobileNetV3ASPP(**MINI).train()
    net(torch.rand(1, 3, 64, 64)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_tapped_channels_and_strides() -> None:
    shapes = shapes_of(MobileNetV3ASPP(), 64, "features.1", "features.3", "features.12", "fuse")
    assert shapes == {
        "features.1": (16, 16, 16),
        "features.3": (24, 8, 8),
        "features.12": (576, 4, 4),
        "fuse": (96, 16, 16),
    }
    assert shapes_of(MobileNetV3ASPP(dilated=False), 64, "features.12") == {"features.12": (576, 2, 2)}
    assert shapes_of(MobileNetV3ASPP(stem_stride=1), 64, "features.12") == {"features.12": (576, 8, 8)}


def test_the_same_seed_gives_the_same_network() -> None:
    torch.manual_seed(0)
    first = MobileNetV3ASPP(**MINI).state_dict()
    torch.manual_seed(0)
    second = MobileNetV3ASPP(**MINI).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "wrong",
    [{"stem_stride": 4}, {"weights_backbone": "DEFAULT", "width_mult": 0.5}, {"weights_backbone": "NONE"}],
)
def test_wrong_arguments_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MobileNetV3ASPP(**wrong)


def test_onnx_with_free_batch_and_size(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    net = MobileNetV3ASPP(**MINI).eval()
    free = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    torch.onnx.export(
        net,
        (torch.rand(2, 3, 64, 80),),
        tmp_path / "net.onnx",
        dynamo=True,
        dynamic_shapes=(free,),
        verbose=False,
    )
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 96, 64), (3, 3, 70, 90)):
        image = torch.rand(shape)
        with torch.no_grad():
            expected = net(image).numpy()
        (logits,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        np.testing.assert_allclose(logits, expected, atol=1e-4)

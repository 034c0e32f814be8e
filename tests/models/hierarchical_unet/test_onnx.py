"""The ONNX file: any number of images and ROIs, and what torch computes."""

from pathlib import Path

import numpy as np
import onnxruntime
import torch

from kd_runner.export.onnx import Outputs
from kd_runner.models.hierarchical_unet.system import HierarchicalUNet
from kd_runner.taps import TappedNet

OUTPUTS = ["logits", "bg_fg", "target_nontarget"]


def sample(images: int, per_image: int) -> dict[str, torch.Tensor]:
    low = 0.5 * torch.rand(images, per_image, 2)
    rois = torch.cat([low, low + 0.1 + 0.4 * torch.rand(low.shape)], -1)
    return {"image": torch.randn(images, 3, 32, 32), "rois": rois}


def test_file_takes_any_number_of_images_and_rois(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"decoder_channels": (16, 8, 8), "roi_size": (10, 8), "mask_size": (20, 16), "roi_width": 32}
    net = HierarchicalUNet("tu-mobilenetv3_small_050", encoder_depth=3, **sizes).eval()
    tapped = TappedNet(net, {"image": "image", "rois": "rois"}, {name: f":{name}" for name in OUTPUTS}, "student")
    dynamic = torch.export.Dim.DYNAMIC
    program = torch.onnx.export(
        Outputs(tapped).eval(),
        kwargs=sample(2, 3),
        dynamo=True,
        dynamic_shapes={"inputs": {"image": {0: dynamic}, "rois": {0: dynamic, 1: dynamic}}},
        input_names=["image", "rois"],
        output_names=OUTPUTS,
        verbose=False,
    )
    program.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for images, rois in ((1, 1), (2, 3), (3, 5)):
        given = sample(images, rois)
        with torch.no_grad():
            expected = net(**given)
        found = session.run(OUTPUTS, {name: value.numpy() for name, value in given.items()})
        for name, value in zip(OUTPUTS, found):
            assert len(value) == images * rois
            np.testing.assert_allclose(value, expected[name].numpy(), atol=1e-3)

"""The ONNX file is the student, or the run fails."""

import json
import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from kd_runner.data.module import DataModule
from kd_runner.data.voc import transforms
from kd_runner.data.voc.dataset import VOCSegmentation
from kd_runner.distillation.features import FeatureExtractor
from kd_runner.distillation.module import Distiller
from kd_runner.errors import ConfigError
from kd_runner.export.exporter import ExportONNX
from kd_runner.export.int8 import check_metric
from kd_runner.metrics.segmentation_iou import SegmentationIoU


class SmallNet(torch.nn.Module):
    """Few layers, so that an export takes a second; the student's own net is exported by a test of a whole run."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Sequential(
            torch.nn.Conv2d(3, 64, 3, stride=2, padding=1), torch.nn.BatchNorm2d(64), torch.nn.Hardswish()
        )
        self.middle = torch.nn.Conv2d(64, 64, 3, padding=1)
        self.classifier = torch.nn.Conv2d(64, 11, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = self.classifier(self.middle(self.stem(image)).relu())
        return torch.nn.functional.interpolate(logits, image.shape[-2:], mode="bilinear", align_corners=False)


@pytest.fixture
def module() -> Distiller:
    torch.manual_seed(0)
    net = SmallNet()
    features = FeatureExtractor(net, {"image": "image"}, {"logits": ":"}, "student")
    inputs = {"preds": "student.logits", "target": "batch.target"}
    return Distiller(features, metrics={"segmentation_iou": (SegmentationIoU(11), inputs)})


@pytest.fixture
def data(mini_root: Path) -> DataModule:
    def part(split: str):
        return lambda: VOCSegmentation(mini_root, split, transforms.evaluate(), num_classes=11)

    return DataModule(part("train"), part("val"), batch_size=2, val_batch_size=3)


def exporter(**changes) -> ExportONNX:
    return ExportONNX(**{"tolerance": 1e-3, "agreement": 0.999, "samples": 4, **changes})


def test_the_file_equals_torch_at_other_batch_and_image_sizes(
    module: Distiller, data: DataModule, tmp_path: Path
) -> None:
    result = exporter().export(module, data, tmp_path)["onnx"]
    assert result["dynamic"] == ["batch", "height", "width"] and result["relative_error"] < 1e-5
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    image = torch.randn(3, 3, 64, 96)
    with torch.no_grad():
        expected = module.net.eval()(image).numpy()
    np.testing.assert_allclose(session.run(["logits"], {"image": image.numpy()})[0], expected, atol=1e-4)


def test_a_difference_fails_the_run(module: Distiller, data: DataModule, tmp_path: Path, monkeypatch) -> None:
    """A weight of the file is changed behind the exporter's back."""
    from kd_runner.export import onnx as export

    plain = export.export

    def tampered(features, batch, path, *more):
        axes = plain(features, batch, path, *more)
        graph = onnx.load(path)
        (weight,) = (w for w in graph.graph.initializer if "classifier" in w.name and len(w.dims) == 4)
        weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 1.5, weight.name))
        onnx.save(graph, path)
        return axes

    monkeypatch.setattr(export, "export", tampered)
    with pytest.raises(ConfigError, match=r"export\.tolerance: .* differs from torch"):
        exporter().export(module, data, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"leave_out": ["imagee"]}, r"export\.leave_out: the net has no 'imagee'\. Did you mean 'image'"),
        ({"dynamic": ["height", "batch"]}, r"export\.dynamic"),
        ({"dynamic": ["batch", "depth"]}, r"export\.dynamic"),
    ],
)
def test_what_the_net_does_not_have_is_named(
    module: Distiller, data: DataModule, tmp_path: Path, change: dict, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        exporter(**change).export(module, data, tmp_path)


def test_int8_that_loses_too_much_is_refused_and_fp32_kept(module: Distiller, data: DataModule, tmp_path: Path) -> None:
    (tmp_path / "model_int8.onnx").write_bytes(b"of an earlier export")
    strict = exporter(int8=True, calibration_samples=2, monitor="miou", int8_tolerance=-1.0)  # asks for a gain
    with pytest.raises(ConfigError, match=r"export.int8_tolerance: INT8 loses .* points of miou .*model.onnx is kept"):
        strict.export(module, data, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx"]


@pytest.mark.parametrize(("fp32", "int8", "message"), [(0.5, 0.489, "1.10 points"), (0.5, math.nan, "nothing to")])
def test_the_gate_is_one_point_and_no_nan(fp32: float, int8: float, message: str) -> None:
    check_metric("miou", 0.5, 0.491, 0.01)
    check_metric("miou", 0.5, 0.6, 0.01)
    with pytest.raises(ValueError, match=message):
        check_metric("miou", fp32, int8, 0.01)


def test_int8_is_smaller_and_measured_beside_fp32(module: Distiller, data: DataModule, tmp_path: Path) -> None:
    result = exporter(int8=True, calibration_samples=4, monitor="miou", int8_tolerance=1.0).export(
        module, data, tmp_path
    )
    metrics = result["int8"]["metrics"]
    assert set(metrics) == {"fp32", "int8"} and metrics["fp32"].keys() == metrics["int8"].keys()
    assert {n.op_type for n in onnx.load(tmp_path / "model_int8.onnx").graph.node} >= {
        "QuantizeLinear",
        "DequantizeLinear",
    }
    # The fp32 file's metric is torch's.
    for batch in data.plain_val_loader():
        module.net.eval()
        with torch.no_grad():
            module.validation_step(batch, 0)
    expected = module.compute_metrics(module.metrics)["miou"]
    assert metrics["fp32"]["miou"] == pytest.approx(float(expected), abs=1e-4)


def test_a_run_leaves_files_that_load_without_this_package(cli, tmp_path: Path) -> None:
    """The whole way: distill, then load the student's file into the plain class in a process without Lightning."""
    import subprocess
    import sys

    done = cli("export.samples=2")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (p.parent for p in (tmp_path / "outputs" / "voc_kd").glob("*/metrics.json"))
    for name in ("model.onnx", "report.md", "pictures.png", "student_untrained.safetensors", "checkpoints/best.ckpt"):
        assert (folder / name).stat().st_size > 0
    assert list(folder.glob("events.out.tfevents.*"))
    result = json.loads((folder / "metrics.json").read_text())
    assert result["onnx"]["agreement"] >= 0.999 and result["steps"] == 6 and result["scale"] == "mini"
    code = (
        "import sys, torch\nfrom safetensors.torch import load_file\n"
        "from kd_runner.models.segmentation.mobilenet_v3_aspp import MobileNetV3ASPP\n"
        "net = MobileNetV3ASPP(11, aspp_channels=8, skip_channels=8, width_mult=0.25, aspp_rates=[1, 2])\n"
        "net.load_state_dict(load_file(sys.argv[1]), strict=True)\n"
        "assert 'lightning' not in sys.modules and 'hydra' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder / "student.safetensors")], check=True)


def test_the_file_says_what_a_deployer_needs(module: Distiller, data: DataModule, tmp_path: Path) -> None:
    names = ["background", *map(str, range(10))]
    exporter(class_names=names, experiment="mine").export(module, data, tmp_path, {"miou": 0.5}, "abc")
    file = onnx.load(tmp_path / "model.onnx")
    (image,), (logits,) = file.graph.input, file.graph.output
    assert [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim] == ["batch", 3, "height", "width"]
    assert logits.type.tensor_type.shape.dim[0].dim_param == "batch"
    said = {entry.key.removeprefix("kd_runner."): entry.value for entry in file.metadata_props}
    assert json.loads(said["class_names"]) == names and json.loads(said["scores"]) == {"miou": 0.5}
    normalization = json.loads(said["normalization"])
    assert normalization["mean"] == [0.485, 0.456, 0.406] and normalization["channel_order"] == "RGB"
    assert said["part"] == "" and len(said["student_sha256"]) == 64
    assert said["experiment"] == "mine" and said["teacher_sha256"] == "abc"
    onnx.checker.check_model(file)


def test_outputs_that_are_not_finite_are_refused(module: Distiller, data: DataModule, tmp_path: Path) -> None:
    next(iter(module.net.parameters())).data[0] = torch.nan
    with pytest.raises(ConfigError, match=r"output 'logits' of torch is not finite"):
        exporter(samples=2).export(module, data, tmp_path)


class Heads(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"classes": x @ torch.eye(3) * 2, "points": x[:, :, None].expand(-1, -1, 2) + 1}


def test_classes_of_whole_images_are_compared_and_nothing_is_reported_where_nothing_is(tmp_path: Path) -> None:
    from kd_runner.export import onnx as export

    batch = {"x": torch.randn(2, 3)}
    both = FeatureExtractor(Heads(), {"x": "x"}, {"classes": ":classes", "points": ":points"})
    for features, agreement in ((both, 1.0), (export.only(both, ["points"]), None)):
        export.export(features, batch, tmp_path / "x.onnx")
        compared = export.compare(features, tmp_path / "x.onnx", [batch])
        assert compared["agreement"] == agreement and compared["max_error"] < 1e-5

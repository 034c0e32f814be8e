"""The callback on frames of the small world, with nets that repeat the truth."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from kd_runner.callbacks.detection_visualizer import DetectionVisualizer
from kd_runner.data.bench2drive.camera_pipeline import CameraPipeline
from kd_runner.data.bench2drive.classes import CLASSES, LINE_CLASSES
from kd_runner.data.bench2drive.dataset import Bench2Drive
from kd_runner.data.collate import stack
from kd_runner.distillation.features import FeatureExtractor
from kd_runner.distillation.module import Distiller
from kd_runner.errors import ConfigError
from kd_runner.synthetic.driving.bench2drive_writer import write

FEATURES = ("boxes", "scores", "labels", "line_points", "line_scores", "line_labels", "heat_map")
KEYS = ("gt_boxes", "gt_labels", "gt_mask", "line_points", "line_labels", "line_mask")
FIGURE = {"camera_size": [32, 16]}
SIDE, GAP = 96, 6


class Oracle(nn.Module):
    """Gives the truth with the scores asked for."""

    def __init__(self, score: float):
        super().__init__()
        self.score = score

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        boxes, lines = batch["gt_mask"].float(), batch["line_mask"].float()
        names = {"gt_boxes": "boxes", "gt_labels": "labels", "line_points": "line_points", "line_labels": "line_labels"}
        outputs = {feature: batch[key] for key, feature in names.items()}
        heat = torch.zeros(len(boxes), 2, 8, 8)
        return {**outputs, "scores": self.score * boxes, "line_scores": self.score * lines, "heat_map": heat}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = write(tmp_path_factory.mktemp("pictures") / "world", num_train=1, num_val=2, num_frames=2)
    pipeline = CameraPipeline(False, resize=(0.74, 0.9), crop=(64, 128), final=(64, 64))
    return SimpleNamespace(val=Bench2Drive(root, "val", pipeline), collate=stack)


def module(score: float, teacher: float | None = None) -> Distiller:
    def net(score: float, key: str) -> FeatureExtractor:
        return FeatureExtractor(
            Oracle(score), {k: k for k in KEYS}, {feature: f":{feature}" for feature in FEATURES}, key
        )

    return Distiller(net(score, "student"), None if teacher is None else net(teacher, "teacher"))


def pictures(**options: Any) -> DetectionVisualizer:
    options = {"class_names": CLASSES, "line_names": LINE_CLASSES, "figure": FIGURE, **options}
    return DetectionVisualizer(1, 1, **options)


def columns(picture: np.ndarray, count: int) -> list[np.ndarray]:
    """The views without captions and legend."""
    return [picture[24:160, i * (SIDE + GAP) : i * (SIDE + GAP) + SIDE] for i in range(count)]


def test_a_student_that_knows_the_truth_has_its_picture(data: Any) -> None:
    truth, teacher, student = columns(pictures().draw(module(0.9, teacher=0.2), data), 3)
    assert np.array_equal(truth, student) and not np.array_equal(truth, teacher)


def test_the_threshold_decides_what_is_drawn(data: Any) -> None:
    """Below it nothing is: the picture is that of a net that finds nothing."""
    low, none = (columns(pictures(threshold=0.5).draw(module(score), data), 2)[1] for score in (0.49, 0.0))
    assert np.array_equal(low, none)
    assert not np.array_equal(low, columns(pictures(threshold=0.4).draw(module(0.49), data), 2)[1])


def test_samples_spread_over_the_set_and_the_mode_is_restored(data: Any) -> None:
    net = module(0.9).train()
    one = pictures().draw(net, data)
    two = DetectionVisualizer(2, 1, CLASSES, LINE_CLASSES, figure=FIGURE).draw(net, data)
    assert net.training and len(two) == 2 * len(one) + GAP
    assert np.array_equal(two[: len(one)], one)
    only = SimpleNamespace(val=[data.val[2]], collate=stack)  # the first frame of the second clip
    assert np.array_equal(two[len(one) + GAP :], pictures().draw(net, only))


def test_lidar_has_points_and_heat_maps_without_cameras_and_lines(data: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    points = 20 * torch.randn(200, 4, generator=generator)
    points[100:] = 0.5  # padding, in the middle
    samples = [{**data.val[0], "sweep": points, "num_points": torch.tensor(100)}]
    callback = DetectionVisualizer(
        1, 1, CLASSES, lines=False, cameras=False, points=True, heat_map="heat_map",
        keys={"points": "sweep"}, figure=FIGURE,
    )  # fmt: skip
    shown = callback.draw(module(0.9), SimpleNamespace(val=samples, collate=stack))
    samples[0]["sweep"] = torch.cat([points[:100], -30 * torch.ones(100, 4)])
    assert np.array_equal(shown, callback.draw(module(0.9), SimpleNamespace(val=samples, collate=stack)))
    heat = shown[24 + SIDE + GAP + 2 : 24 + 2 * SIDE + GAP - 2, SIDE + GAP + 2 : -2]
    assert len(np.unique(heat.reshape(-1, 3), axis=0)) == 1 and heat.max() < 255  # 0.5 everywhere


def test_goes_to_the_logger_and_to_the_file(data: Any, tmp_path: Path) -> None:
    shown: list[np.ndarray] = []
    experiment = SimpleNamespace(add_image=lambda name, picture, step, dataformats: shown.append(picture))
    trainer = SimpleNamespace(
        current_epoch=0, max_epochs=9, is_global_zero=True, global_step=3, datamodule=data,
        default_root_dir=tmp_path, loggers=[SimpleNamespace(experiment=experiment)],
    )  # fmt: skip
    net, callback = module(0.9), pictures()
    callback.every_n_epochs = 2
    callback.on_validation_epoch_end(trainer, net)
    assert not shown
    trainer.current_epoch = 1
    callback.on_validation_epoch_end(trainer, net)
    callback.save(net, trainer.datamodule, tmp_path)
    assert len(shown) == 1 and np.array_equal(np.asarray(Image.open(tmp_path / "pictures.png")), shown[0])


def test_wrong_names_are_named(data: Any) -> None:
    with pytest.raises(ConfigError, match=r"features has no 'box'.*'boxes'"):
        pictures(features={"box": "boxes"})
    with pytest.raises(ConfigError, match="keys has no 'points'"):
        pictures(keys={"points": "sweep"})
    with pytest.raises(ConfigError, match=r"no 'gt_box' to draw.*'gt_boxes'"):
        pictures(keys={"boxes": "gt_box"}).draw(module(0.9), data)

"""`experiment=hierarchical_unet_kd` from teacher to ONNX, on a few scenes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kd_runner.config import build
from kd_runner.synthetic import mini_coco
from tests.tasks.onnx_metadata import check_metadata

TINY = [
    "experiment=hierarchical_unet_kd", "data.prepare=null", "data.batch_size=2", "data.unlabeled_batch_size=2",
    "data.val_batch_size=2", "data.steps_per_epoch=3", "data.image_size=[48,48]", "data.mask_size=[20,16]",
    "data.min_side=4", "teacher.net.encoder_name=tu-test_efficientnet", "teacher.net.encoder_depth=3",
    "teacher.net.decoder_channels=[8,8,8]", "teacher.net.roi_size=[10,8]", "teacher.net.roi_width=32",
    "student.net.encoder_depth=3", "student.net.decoder_channels=[8,8,8]",
    "scheduler.warmup_steps=1"
]  # fmt: skip


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes") / "data"
    return mini_coco.write(root, num_train=6, num_val=4, num_unlabeled=4, num_teacher=4, size=48)


@pytest.fixture
def unet(started: Callable[..., Path], scenes: Path) -> Callable[..., Path]:
    return lambda *words: started(*TINY, f"data.root={scenes}", *words)


@pytest.fixture(scope="module")
def teacher(started_once: Callable[..., Path], scenes: Path) -> Path:
    words = ["task=train_teacher", "trainer.max_epochs=1", "export=none", "callbacks=[checkpoints]"]
    tiny = [word for word in TINY if not word.startswith("data.unlabeled")]  # what nothing reads then is refused
    return started_once(*tiny, f"data.root={scenes}", *words) / "teacher.safetensors"


def test_from_teacher_to_onnx(unet, teacher: Path) -> None:
    folder = unet(f"teacher.checkpoint={teacher}", "trainer.max_epochs=1", "export.samples=3")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["onnx"]["agreement"] > 0.99 and metrics["onnx"]["relative_error"] < 1e-3
    said = check_metadata(folder, "hierarchical_unet_kd", num_classes=3)
    assert said["normalization"]["mean"] == [0.485, 0.456, 0.406] and said["part"] == ""
    assert metrics["onnx"]["dynamic"] == ["batch", "boxes", "height", "width"]
    assert (folder / "pictures.png").stat().st_size > 1000
    _the_file_masks_every_box(folder)


def _the_file_masks_every_box(folder: Path) -> None:
    """Other numbers of images and boxes than it was exported with, other sizes, and without a mask of the boxes."""
    cfg = OmegaConf.load(folder / "config.yaml")
    cfg.student.checkpoint = str(folder / "student.safetensors")
    net = build.student(cfg).net.eval()
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == ["image", "rois"]
    for images, boxes in ((1, 1), (3, 5)):
        low = 0.5 * torch.rand(images, boxes, 2)
        given = {"image": torch.randn(images, 3, 64, 48), "rois": torch.cat([low, low + 0.4], -1)}
        with torch.no_grad():
            expected = net(**given)
        masks, logits = session.run(["masks", "logits"], {name: value.numpy() for name, value in given.items()})
        np.testing.assert_allclose(logits, expected["logits"].numpy(), atol=1e-3)
        assert masks.shape == (images * boxes, 20, 16) and masks.dtype == bool
        assert np.array_equal(masks, logits.argmax(1) == 1)


def test_it_trains_in_mixed_precision(unet, teacher: Path) -> None:
    words = ["trainer.precision=bf16-mixed", "callbacks=[checkpoints]", "logger=none", "export=none"]
    folder = unet(f"teacher.checkpoint={teacher}", "trainer.max_epochs=1", *words)
    assert json.loads((folder / "metrics.json").read_text())["steps"] == 3


def test_schedule_and_stages_by_their_names(unet, teacher: Path) -> None:
    """Of four epochs the encoder holds still in the first two; the temperature falls to 1."""
    folder = unet(
        f"teacher.checkpoint={teacher}",
        "callbacks=[checkpoints,kd_schedule,staged_training]",
        "callbacks.staged_training.blocks=[unet.encoder.model.blocks]",
        "callbacks.staged_training.frozen_epochs=2",
        "callbacks.every.every_n_epochs=2",
        "trainer.max_epochs=4",
        "data.steps_per_epoch=1",
        "trainer.log_every_n_steps=1",
        "export=none",
    )
    files = [folder / "checkpoints" / f"epoch={epoch:04d}.ckpt" for epoch in (1, 3)]
    first, second = (torch.load(file, weights_only=False)["state_dict"] for file in files)
    encoder = [name for name, value in first.items() if ".encoder." in name and name.endswith("weight")]
    assert encoder
    assert all(torch.equal(first[name], before) for name, before in _untrained(folder, encoder).items())
    assert any(not torch.equal(first[name], second[name]) for name in encoder)
    assert _logged(folder, "train/kd/temperature") == pytest.approx([4.0, 1.0], abs=1e-6)


def _untrained(folder: Path, names: list[str]) -> dict[str, torch.Tensor]:
    weights = load_file(folder / "student_untrained.safetensors")
    return {name: weights[name.removeprefix("net.")] for name in names}


def _logged(folder: Path, name: str) -> list[float]:
    """First and last value of a curve."""
    events = EventAccumulator(str(folder))
    events.Reload()
    values = [one.value for one in events.Scalars(name)]
    return [values[0], values[-1]]

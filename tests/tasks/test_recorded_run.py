"""A run that is taught by a folder of arrays."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kd_runner.distillation import recording

NET = "{_target_: kd_runner.distillation.recorded_teacher.RecordedTeacher, folder: %s}"


def test_a_recording_of_the_voc_images_teaches(
    started: Callable[..., Path], tiny: list[str], mini_root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = (mini_root / "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt").read_text().split()
    logits = np.random.default_rng(0).normal(size=(len(names), 11, 32, 32))
    recording.write(tmp_path / "recorded", {"logits": logits[::-1]}, keys=names[::-1])
    (tmp_path / "mine/model").mkdir(parents=True)
    kept = [word for word in tiny if not word.startswith(("++teacher", "teacher", "student", "data.unlabeled"))]
    file = tmp_path / "mine/model/recorded.yaml"
    file.write_text(f"""# @package _global_
teacher:
  net: {NET % (tmp_path / "recorded")}
  inputs: {{index: index, key: key}}
  features: {{logits: ":logits"}}
student:
  net: {{_target_: torch.nn.Conv2d, in_channels: 3, out_channels: 11, kernel_size: 1}}
  inputs: {{input: image}}
  features: {{logits: ":"}}
""")
    words = [
        *kept,
        "--config-dir=mine",
        "model=recorded",
        "loss=[task_ce,kl_logits]",
        "data.unlabeled=null",
        "export=none",
    ]
    with pytest.raises(SystemExit):  # crops are random
        started(*words)
    assert "the recording holds one view of it" in "".join(capfd.readouterr())
    fixed = [
        "data.train.transform.scale=[1.0,1.0]",
        "data.train.transform.brightness=0",
        "data.train.transform.contrast=0",
    ]
    folder = started(*words, *fixed)
    assert json.loads((folder / "metrics.json").read_text())["steps"] == 6

"""task=nuscenes_submission: detections on nuScenes' validation or test split as the benchmark's JSON file."""

import logging
from pathlib import Path

import torch
from omegaconf import DictConfig

from kd_runner.config import build
from kd_runner.errors import ConfigError
from kd_runner.export.nuscenes_submission import NuScenesSubmission

log = logging.getLogger(__name__)
PREDICTED = ("boxes", "scores", "labels")


def nuscenes_submission(cfg: DictConfig, folder: Path) -> None:
    """Write `results_nusc.json` from `student.checkpoint`, over all of `data.val`."""
    if cfg.student.checkpoint is None:
        raise ConfigError("student.checkpoint: name the weights that are to be submitted")
    data, student = build.data(cfg), build.student(cfg)
    samples = data.val.samples
    if not hasattr(samples, "token"):
        raise ConfigError(
            "task=nuscenes_submission: data.val has no sample tokens; it is for nuScenes, e.g. data=nuscenes_lidar"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    student.net.to(device).eval()
    submission = NuScenesSubmission([samples.token(i) for i in range(len(data.val))], list(cfg.data.class_names))
    with torch.inference_mode():
        for batch in data.plain_val_loader():
            on_device = {name: batch[name].to(device) for name in student.inputs.values()}
            found = student(on_device, PREDICTED)
            submission.add(
                **found, lidar2local=batch["lidar2local"], lidar2global=batch["lidar2global"], index=batch["index"]
            )
    submission.write(folder / "results_nusc.json")
    log.info("%d samples: %s", len(data.val), folder / "results_nusc.json")

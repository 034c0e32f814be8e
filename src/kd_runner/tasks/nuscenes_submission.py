"""task=nuscenes_submission: detections on nuScenes' validation or test split as the benchmark's JSON file."""

import logging

import torch
from omegaconf import DictConfig

from kd_runner.config import build
from kd_runner.errors import ConfigError
from kd_runner.export.nuscenes_submission import NuScenesSubmission
from kd_runner.runtime.files import write_json
from kd_runner.runtime.run_folder import RunFolder

log = logging.getLogger(__name__)
PREDICTED = ("boxes", "scores", "labels")


def nuscenes_submission(cfg: DictConfig, run: RunFolder) -> None:
    """Write `results_nusc.json` from `student.checkpoint`, over all of `data.val`.

    Args:
        cfg: the composed configuration.
        run: folder where the file is written.

    Raises:
        ConfigError: no weights are named, or the samples of `data.val` have no tokens of nuScenes.
    """
    if cfg.student.checkpoint is None:
        raise ConfigError("student.checkpoint: name the weights that are to be submitted")
    run.run_or_load(cfg, lambda: _write(cfg, run))


def _write(cfg: DictConfig, run: RunFolder) -> None:
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
            predictions = student(on_device, PREDICTED)
            submission.add(
                **predictions,
                lidar2local=batch["lidar2local"],
                lidar2global=batch["lidar2global"],
                index=batch["index"],
            )
    submission.write(run.path / "results_nusc.json")
    log.info("%d samples: %s", len(data.val), run.path / "results_nusc.json")
    write_json(run.metrics_file, {"samples": len(data.val), "file": "results_nusc.json"})

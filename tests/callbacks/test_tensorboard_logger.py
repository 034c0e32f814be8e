"""What TensorBoard shows of a run."""

from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kd_runner.callbacks.tensorboard_logger import RunTensorBoardLogger
from kd_runner.visualization.panels import enlarge


def test_one_file_with_curves_and_the_score_beside_the_settings(tmp_path: Path) -> None:
    logger = RunTensorBoardLogger(str(tmp_path), score="val/miou")
    logger.log_metrics({"train/loss/total": 2.0, "epoch": 0}, step=1)
    logger.finalize("success")  # after the fit
    logger.log_metrics({"val/miou": 0.5, "epoch": 0}, step=2)
    logger.finalize("success")  # after the validation
    logger.log_hyperparams({"kd.enabled": "yes", "kd.alpha": None})
    logger.finalize("success")
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["train/loss/total", "val/miou"]
    plugin = events.summary_metadata["_hparams_/experiment"].plugin_data.content
    assert b"val/miou" in plugin and b"kd.enabled" in plugin
    assert b"yes" in events.summary_metadata["_hparams_/session_start_info"].plugin_data.content


def test_small_pictures_are_magnified_by_whole_numbers() -> None:
    small = np.arange(2 * 500 * 3, dtype=np.uint8).reshape(2, 500, 3)
    large = enlarge(small, 1200)
    assert large.shape == (4, 1000, 3) and (large[::2, ::2] == small).all() and (large[1::2, 1::2] == small).all()
    assert enlarge(np.zeros((4, 1300, 3), np.uint8)).shape == (4, 1300, 3)

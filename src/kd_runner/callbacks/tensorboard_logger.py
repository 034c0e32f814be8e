"""TensorBoard for one run: curves of training and validation only, and the score beside the hyperparameters."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only


class RunTensorBoardLogger(TensorBoardLogger):
    """Lightning's logger with one event file per session of a run and nothing but curves among the scalars.

    Lightning closes the writer after every fit and validation, and a closed writer opens another file; here it is only
    flushed. The epoch number, which Lightning logs as a curve, is left out.

    Args:
        save_dir: the run's folder; the event file lies directly in it.
        score: tag of the scalar whose last value is the run's score on the HParams page, e.g. `val/miou`.
    """

    def __init__(self, save_dir: str, score: str):
        super().__init__(save_dir, name="", version="", default_hp_metric=False)
        self.score = score

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        curves = {name: value for name, value in metrics.items() if name != "epoch"}
        if curves:
            super().log_metrics(curves, step)

    @rank_zero_only
    def log_hyperparams(self, params: Any, metrics: dict[str, Any] | None = None, step: int | None = None) -> None:
        """Write the run's row of the HParams page.

        Args:
            params: settings by name.
            metrics: not used; the score comes with `log_metrics`.
            step: not used.
        """
        from torch.utils.tensorboard.summary import hparams

        super().log_hyperparams(params)
        row = self._sanitize_params(dict(params))
        writer = self.experiment._get_file_writer()
        for summary in hparams(row, {self.score: 0.0, **(metrics or {})}):  # the values come from the curves
            writer.add_summary(summary, step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._experiment is not None:
            self.experiment.flush()
        if status == "success":
            self.save()

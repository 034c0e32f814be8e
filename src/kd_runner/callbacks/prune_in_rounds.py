"""Progressive pruning: further rounds at the start of epochs."""

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy

from kd_runner.errors import ConfigError
from kd_runner.pruning.plan import Pruning

log = logging.getLogger(__name__)


class PruneInRounds(Callback):
    """Does the rounds of `plan.schedule` that come after the start of training; those before it are `student.prune`.

    Momenta of what stays, stay. A checkpoint that was best before a round has other widths and is forgotten.

    Args:
        plan: the rounds.

    Raises:
        ConfigError: a round would come after the last validation.
    """

    def __init__(self, plan: Pruning):
        self.plan = plan
        self.result: dict[str, Any] = {}

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        last, every = max(self.plan.schedule.epochs()), trainer.check_val_every_n_epoch
        if last >= trainer.max_epochs // every * every:
            raise ConfigError(
                f"pruning.schedule.end: no validation follows the round at epoch {last} (trainer.max_epochs="
                f"{trainer.max_epochs}, one validation in {every} epochs)"
            )

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        epoch = trainer.current_epoch
        if epoch == 0 or epoch not in self.plan.schedule.epochs():
            return
        pruned, (optimizer,) = pl_module.student.pruned, trainer.optimizers
        if pruned is None:
            raise ConfigError("pruning: the student was not prepared for it (build.student needs the data)")
        calibration = trainer.datamodule.calibration(self.plan.num_batches)
        batches = (pl_module.transfer_batch_to_device(batch, pl_module.device, 0) for batch in calibration)
        pl_module.eval()
        try:
            done = self.plan.round(
                pl_module.net, pruned, epoch, pl_module.task_loss, batches, optimizer, trainer.strategy.broadcast
            )
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"pruning: {error}") from error
        pl_module.train()
        pl_module.student.pruned = done
        if isinstance(trainer.strategy, DDPStrategy):  # its buckets hold the old parameters
            trainer.strategy.model = pl_module
            trainer.strategy.configure_ddp()
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.monitor is not None:
                _forget(callback, trainer.is_global_zero)
        done.after = done.cost(pl_module.net)
        log.info("pruned further at the start of epoch %d\n%s", epoch + 1, done.table)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        if pl_module.student.pruned is not None:
            self.result = {"pruning": pl_module.student.pruned.plain()}


def _forget(callback: ModelCheckpoint, on_disk: bool) -> None:
    if on_disk and callback.best_model_path:
        Path(callback.best_model_path).unlink(missing_ok=True)
    callback.best_k_models, callback.kth_best_model_path, callback.kth_value = {}, "", None  # type: ignore[assignment]
    callback.best_model_path, callback.best_model_score, callback.current_score = "", None, None

"""One readable line per epoch."""

import logging
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

log = logging.getLogger(__name__)


class EpochSummary(Callback):
    """Logs the epoch's mean of every loss term, the metrics of its validation, the learning rate and its time.

    A run that goes on in mid-epoch counts what came before as well.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor | float] = {}
        self._batches = 0
        self._started = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        sums = {name: float(total) for name, total in self._sums.items()}
        return {"sums": sums, "batches": self._batches, "seconds": time.perf_counter() - self._started}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._sums, self._batches = dict(state_dict["sums"]), state_dict["batches"]
        self._started = time.perf_counter() - state_dict["seconds"]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._sums, self._batches, self._started = {}, 0, time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._batches += 1
        for name, value in outputs["terms"].items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A run that goes on from the end of an epoch comes here again, without a batch.
        if not trainer.is_global_zero or self._batches == 0:
            return
        losses = {name: float(total) / self._batches for name, total in self._sums.items()}
        total = losses.pop("total", float("nan"))
        parts = [f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", f"loss {total:.4f}"]
        parts[-1] += " (" + ", ".join(f"{name} {value:.4f}" for name, value in losses.items()) + ")"
        if trainer.current_epoch % (trainer.check_val_every_n_epoch or 1) == (trainer.check_val_every_n_epoch or 1) - 1:
            parts += [
                f"{name.removeprefix('val/')} {float(value):.4f}"
                for name, value in trainer.callback_metrics.items()
                if name.startswith("val/") and name.count("/") == 1
            ]
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        log.info("%s | lr %.2e | %.1f s", " | ".join(parts), rate, time.perf_counter() - self._started)
        self._sums, self._batches = {}, 0

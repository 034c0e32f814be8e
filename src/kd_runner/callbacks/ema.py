"""Exponential moving average of the weights."""

from typing import Any

from lightning.pytorch.callbacks import EMAWeightAveraging

from kd_runner.callbacks.prune_in_rounds import PruneInRounds
from kd_runner.errors import ConfigError


class EMA(EMAWeightAveraging):
    """Exponential moving average of the weights, which is validated, saved and exported.

        average = decay * average + (1 - decay) * weights

    Training goes on from the raw weights.
    Buffers of floating point are averaged too. Whole numbers (counters, indices of pruned heads) are copied: an average
    of them, rounded down, would be another number.

    Args:
        decay: fraction of the average that each step keeps.

    Raises:
        ConfigError: when training starts: pruning in rounds, which changes the shapes that are averaged.
    """

    def __init__(self, decay: float = 0.999):
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay}: expected 0 <= decay < 1")
        super().__init__(decay=decay)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        rounds = [c for c in trainer.callbacks if isinstance(c, PruneInRounds) and max(c.plan.schedule.epochs()) > 0]
        if rounds:
            raise ConfigError("callbacks.ema: pruning in rounds changes the shapes of weights; prune before training")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._average_model is not None:
            for average, current in zip(self._average_model.module.buffers(), pl_module.buffers(), strict=True):
                if not average.is_floating_point():
                    average.copy_(current)

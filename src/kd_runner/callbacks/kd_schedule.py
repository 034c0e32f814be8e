"""Temperature and fraction of distillation (alpha) that change during training."""

import math
from typing import Any

from lightning.pytorch import Callback

from kd_runner.errors import ConfigError, nearest

SHAPES = {
    "constant": lambda progress: 0.0,
    "linear": lambda progress: progress,
    "cosine": lambda progress: (1 - math.cos(math.pi * progress)) / 2,
}


class Schedule:
    """A number that goes from `start` to `end` while progress goes from 0 to 1.

    Args:
        start: first value.
        end: last value; not for `constant`.
        shape: `constant`, `linear`, or `cosine`, half a wave, flat at both ends.

    Raises:
        ConfigError: an unknown shape, or no end where one is needed.
    """

    def __init__(self, start: float, end: float | None = None, shape: str = "linear"):
        if shape not in SHAPES:
            raise ConfigError(f"callbacks.kd_schedule: there is no shape {shape!r}.{nearest(shape, SHAPES)}")
        if (end is None) != (shape == "constant"):
            raise ConfigError(f"callbacks.kd_schedule: shape={shape} and end={end}; `constant` alone has no end")
        self.start, self.end, self.shape = start, start if end is None else end, shape

    def value(self, progress: float) -> float:
        """Value at a point of the training.

        Args:
            progress: fraction of the training that is done, 0..1.

        Returns:
            The value.
        """
        return self.start + (self.end - self.start) * SHAPES[self.shape](min(1.0, max(0.0, progress)))


class KDSchedule(Callback):
    """Sets, before each step, the temperature of every loss term that reads `kd.temperature`, and the fraction `alpha`.

    Both are functions of the step alone, so that a resumed run goes on with what the unbroken one would have had.
    Without distillation it does nothing.

    Args:
        temperature: schedule of T, above 0; None leaves the terms' own.
        alpha: schedule of the fraction, in 0..1; None leaves `kd.alpha`.

    Raises:
        ConfigError: values out of range; when training starts, an alpha to schedule where `kd.alpha` is null.
    """

    def __init__(self, temperature: Schedule | None = None, alpha: Schedule | None = None):
        if temperature is not None and min(temperature.start, temperature.end) <= 0:
            raise ConfigError("callbacks.kd_schedule.temperature: a temperature must be above 0")
        if alpha is not None and not 0 <= min(alpha.start, alpha.end) <= max(alpha.start, alpha.end) <= 1:
            raise ConfigError("callbacks.kd_schedule.alpha: a fraction lies in 0..1")
        self.temperature, self.alpha = temperature, alpha

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if self._idle(pl_module):
            return
        if self.alpha is not None and pl_module.alpha is None:
            raise ConfigError("callbacks.kd_schedule.alpha: kd.alpha is null; give it a number to schedule")
        if self.temperature is not None and not _terms_with_temperature(pl_module):
            raise ConfigError("callbacks.kd_schedule.temperature: no loss reads kd.temperature")

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self._idle(pl_module):
            return
        step, last = trainer.global_step, max(1, int(trainer.estimated_stepping_batches) - 1)
        now: dict[str, float] = {}
        if self.temperature is not None:
            now["train/kd/temperature"] = self.temperature.value(step / last)
            for term in _terms_with_temperature(pl_module):
                term.temperature = now["train/kd/temperature"]
        if self.alpha is not None:
            now["train/kd/alpha"] = pl_module.alpha = self.alpha.value(step / last)
        if now and step % trainer.log_every_n_steps == 0:
            for logger in trainer.loggers:
                logger.log_metrics(now, step=step)

    @staticmethod
    def _idle(pl_module: Any) -> bool:
        return not any(term.uses_teacher for term in pl_module.terms)


def _terms_with_temperature(pl_module: Any) -> list[Any]:
    return [term.fn for term in pl_module.terms if term.uses_teacher and term.temperature_is_shared]

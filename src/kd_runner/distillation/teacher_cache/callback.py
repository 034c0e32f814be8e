"""Puts a recorded teacher before the real one while a run trains."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from kd_runner.distillation.teacher_cache import identity
from kd_runner.distillation.teacher_cache.recorded import RecordedTeacher
from kd_runner.errors import ConfigError

log = logging.getLogger(__name__)


class RecordTeacher(Callback):
    """Gives the module a `RecordedTeacher` for its training batches; validation keeps asking the real one.

    Args:
        root_folder: folder of all recorded teachers.
        settings: what the outputs depend on besides weights, features and inputs.
        root: folder of the training data, whose files must stay as they are.
        views: see `RecordedTeacher`.
        map_dtype: see `RecordedTeacher`.
    """

    def __init__(
        self, root_folder: Path, settings: Mapping[str, Any], root: str | None, views: int | None, map_dtype: str
    ) -> None:
        self.root_folder, self.settings, self.root = root_folder, settings, root
        self.views, self.map_dtype = views, map_dtype
        self._recorded: RecordedTeacher | None = None

    @property
    def result(self) -> dict[str, Any]:
        """For metrics.json: the folder, and the numbers of samples computed, computed again to compare, and read."""
        if (kept := self._recorded) is None:
            return {}
        counts = {"computed": kept.computed, "checked": kept.checked, "read": kept.read}
        return {"teacher_cache": {"folder": str(kept.folder), **counts}}

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        names = pl_module.loss_inputs.required_features("teacher")
        if pl_module.teacher is None or not names:
            return
        teacher, samples = pl_module.teacher, trainer.datamodule.train
        if any(part.training for part in teacher.net.modules()):  # the student has set what it shares to train
            raise ConfigError("kd.teacher_cache: the student trains modules of the teacher, whose outputs so change")
        check_fixed(samples, list(teacher.inputs.values()), self.views)
        identity_parts = {
            **self.settings,
            "weights": identity.weights(teacher.net),
            "sources": identity.sources({type(module) for module in teacher.net.modules()}),
            "features": {name: teacher.features[name] for name in names},
            "inputs": teacher.inputs,
            "views": self.views,
        }
        state = {} if self.root is None else {"data.root": identity.files(self.root)}
        self._recorded = pl_module.recorded_teacher = RecordedTeacher(
            teacher, names, self.root_folder, identity_parts, state, len(samples), self.views, self.map_dtype
        )
        log.info("teacher's outputs: %s", self._recorded.folder)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if self._recorded is not None:  # a schedule that no setting here shows may change a transform
            self._recorded.check_again()

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        if (kept := self._recorded) is not None:
            log.info("teacher's outputs: %d samples computed, %d read", kept.computed, kept.read)


def check_fixed(samples: Any, inputs: list[str], views: int | None) -> None:
    """Draw a few samples again and again: what the teacher is shown must depend on sample and view alone.

    Args:
        samples: the training samples.
        inputs: batch keys that the teacher reads.
        views: fixed views per sample; None for one.

    Raises:
        ConfigError: it does not.
    """
    for index in sorted({0, len(samples) // 2, len(samples) - 1}):
        seen: dict[int, Any] = {}
        for seed in range(2 * (views or 1) + 1):  # more draws than views: one is drawn twice
            sample = samples[index, seed]
            own = int(sample["index"])  # that of another one where samples are repeated, to balance classes say
            if own != index and (views is not None or not 0 <= own < len(samples)):
                raise ConfigError(
                    f"kd.teacher_cache: training sample {index} gives itself the index {own}; "
                    + (
                        "with views every sample must keep its own number"
                        if views is not None
                        else "there is no such row"
                    )
                )
            first = seen.setdefault(int(sample.get("view", 0)), sample)
            for key in inputs:
                if _differ(first[key], sample[key]):
                    cure = (
                        "data.train.transform is random. Set kd.teacher_cache.views to a number: every sample is then "
                        "seen in so many fixed random views"
                        if views is None
                        else "something random in it is not drawn from torch's generator"
                    )
                    raise ConfigError(
                        f"kd.teacher_cache: {key!r} of training sample {index} looks different at every draw, so what "
                        f"the teacher says of it cannot be kept: {cure}"
                    )


def _differ(first: Any, second: Any) -> bool:
    if isinstance(first, Mapping):
        return any(_differ(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return any(_differ(a, b) for a, b in zip(first, second))
    return not torch.equal(torch.as_tensor(first), torch.as_tensor(second))

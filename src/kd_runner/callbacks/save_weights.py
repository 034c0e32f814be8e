"""The student alone: before training and at its best."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback


class SaveWeights(Callback):
    """Writes `<role>_untrained.safetensors` when training starts and `<role>.safetensors`, the best by the metric, when
    it ends; puts those best weights back into the module, for what comes after training.

    They load into the plain model class, without Lightning or this package; a pruned one says in its header what was
    kept.
    """

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        untrained = self._folder(trainer) / f"{pl_module.role}_untrained.safetensors"
        if trainer.is_global_zero and not untrained.exists():
            pl_module.student.save(untrained)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        folder = self._folder(trainer)
        chosen = [p for p in (folder / "checkpoints" / "best.ckpt", folder / "checkpoints" / "last.ckpt") if p.exists()]
        if chosen:
            # Our own file: it also holds the optimizer's and the callbacks' plain objects.
            weights = torch.load(chosen[0], map_location="cpu", weights_only=False)["state_dict"]
            pl_module.load_state_dict(weights)
        if trainer.is_global_zero:
            pl_module.student.save(folder / f"{pl_module.role}.safetensors")

    @staticmethod
    def _folder(trainer: Any) -> Path:
        return Path(trainer.default_root_dir)

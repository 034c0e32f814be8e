"""Random number generators in the checkpoint, so that a resumed run draws what the unbroken one would have drawn."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import distributed


class RandomState(Callback):
    """Saves the states of torch, numpy and Python of every process; each gets its own back.

    A run that goes on with another number of processes keeps the fresh states.
    """

    def __init__(self) -> None:
        self._loaded: list[dict[str, Any]] | None = None

    def state_dict(self) -> dict[str, Any]:
        own = _state()
        if not distributed.is_available() or not distributed.is_initialized():
            return {"ranks": [own]}
        states: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(states, own)
        return {"ranks": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict["ranks"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        states, self._loaded = self._loaded, None
        if states is not None and len(states) == trainer.world_size:
            _restore(states[trainer.global_rank])


def _state() -> dict[str, Any]:
    """Plain data and tensors only, which `torch.load(weights_only=True)` reads."""
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "python": random.getstate(),
    }


def _restore(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([part.cpu() for part in state["cuda"]])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))

"""Checkpoint files of a run: never half written, checked when read, valid after the folder has moved."""

import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from kd_runner.callbacks.training_cost import TrainingCost
from kd_runner.errors import ConfigError
from kd_runner.runtime.digests import check_digest, replace_with_digest
from kd_runner.runtime.run_folder import RunFolder

# What Lightning needs to go on.
_ENTRIES = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks", "global_step", "epoch")
# Entries of ModelCheckpoint's state that are paths, or have paths as keys.
_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes each checkpoint beside its place and renames it, so that it is there whole or not at all.

    Lightning's own writer moves a file from the temporary folder, which is a copy where that is another disk. Step and
    cost of every `last.ckpt` are recorded in the run's status.

    Args:
        run: folder of the run.
    """

    def __init__(self, run: RunFolder):
        super().__init__()
        self.run = run

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        replace_with_digest(Path(path), lambda file: torch.save(checkpoint, file))
        if Path(path) == self.run.last_checkpoint:
            cost = checkpoint.get("callbacks", {}).get(TrainingCost.__qualname__)
            self.run.record_step(int(checkpoint["global_step"]), cost)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_checkpoint(Path(path), self.run.checkpoints)


def read_checkpoint(path: Path, checkpoints: Path) -> dict[str, Any]:
    """A run's checkpoint on the CPU; no code from the file runs (`weights_only=True`).

    Args:
        path: the checkpoint.
        checkpoints: folder that the paths in it are made relative to: the run may have moved.

    Returns:
        Its content.

    Raises:
        ConfigError: cut short, damaged, or holding objects other than tensors and plain data.
    """
    check_digest(path, "resume")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"resume: {path} holds objects other than tensors and plain data, or is no checkpoint; it was not loaded"
        ) from error
    except Exception as error:  # a damaged file raises whatever its bytes happen to say
        reason = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise ConfigError(f"resume: {path} is cut short or no checkpoint ({reason})") from error
    missing = [key for key in _ENTRIES if not isinstance(checkpoint, dict) or key not in checkpoint]
    if missing:
        raise ConfigError(f"resume: {path} is no checkpoint of a run: it has no {missing[0]!r}")
    for name, value in checkpoint["state_dict"].items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ConfigError(f"resume: {path}: {name} is not finite")
    for state in checkpoint.get("callbacks", {}).values():
        if isinstance(state, dict) and "dirpath" in state:
            _move_paths(state, checkpoints.absolute())
    return checkpoint


def _move_paths(state: dict[str, Any], folder: Path) -> None:
    def moved(path: str) -> str:
        return str(folder / Path(path).name) if path else path

    state["dirpath"] = str(folder)
    for key in _PATHS:
        if key in state:
            state[key] = moved(state[key])
    state["best_k_models"] = {moved(path): score for path, score in state.get("best_k_models", {}).items()}

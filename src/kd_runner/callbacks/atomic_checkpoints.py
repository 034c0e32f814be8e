"""Checkpoint files that are never half written."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from kd_runner.runtime.files import replace


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's own writer moves a file from the temporary folder, which is a copy where that is another disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        replace(Path(path), lambda file: torch.save(checkpoint, file))

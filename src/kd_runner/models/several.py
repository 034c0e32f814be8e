"""Several nets in one: the teachers of multi-teacher distillation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn


class SeveralNets(nn.Module):
    """Runs every net on the same input. Features of one of them: `nets.NAME.module.path`, or `:NAME` for its output.

    Args:
        nets: name to net.
        weights: name to a file of its weights, safetensors or a state dict of torch; all keys must fit. None where
            one file holds the weights of all of them, `nets.NAME.` before each key.

    Raises:
        ValueError: weights of a net that is not there, or of other keys or shapes than its own.

    Example:
        >>> teachers = SeveralNets({"small": nn.Linear(4, 2), "large": nn.Linear(4, 8)})
        >>> {name: tuple(y.shape) for name, y in teachers(torch.zeros(1, 4)).items()}
        {'small': (1, 2), 'large': (1, 8)}
    """

    def __init__(self, nets: Mapping[str, nn.Module], weights: Mapping[str, str] | None = None):
        super().__init__()
        self.nets = nn.ModuleDict(dict(nets))
        for name, file in (weights or {}).items():
            if name not in self.nets:
                raise ValueError(f"weights of {name!r}; the nets are {', '.join(self.nets)}")
            try:
                self.nets[name].load_state_dict(_read(Path(file)))
            except RuntimeError as error:  # one line per kind of mismatch
                raise ValueError(f"weights of {name!r}, {file}: {' '.join(str(error).split())[:300]}") from error

    def forward(self, *inputs: Any, **named: Any) -> dict[str, Any]:
        """Run every net.

        Args:
            *inputs: arguments of each net's `forward`.
            **named: likewise.

        Returns:
            Net to its output.
        """
        return {name: net(*inputs, **named) for name, net in self.nets.items()}


def _read(file: Path) -> dict[str, torch.Tensor]:
    if file.suffix == ".safetensors":
        return load_file(file)
    state: dict[str, torch.Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return state

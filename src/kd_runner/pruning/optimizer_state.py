"""Carry an optimizer over a change of parameter shapes: momenta of what stays, stay."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Cut = tuple[Tensor, Tensor, Sequence[tuple[int, Tensor]]]


@torch.no_grad()
def replace_parameters(optimizer: Optimizer, cuts: Sequence[Cut]) -> list[Tensor]:
    """Put new parameters in the place of old ones, in an optimizer's groups and state.

    State of the parameter's own shape (AdamW `exp_avg`, `exp_avg_sq`, `max_exp_avg_sq`, SGD `momentum_buffer`) is cut
    along, scalars (`step`) are kept.

    Args:
        optimizer: changed in place.
        cuts: `(old parameter, new values, [(axis, kept positions), ...])` of each tensor.

    Returns:
        The new parameters, in the order of `cuts`. A tensor that belongs to no group (a buffer, a frozen parameter)
        comes back as its new values.

    Raises:
        ValueError: state of another shape, as factored optimizers keep; nothing has changed then.
    """
    known = {id(p) for group in optimizer.param_groups for p in group["params"]}
    states = [_cut_state(optimizer, *cut) if id(cut[0]) in known else None for cut in cuts]
    new: list[Tensor] = []
    for (old, values, _), state in zip(cuts, states):
        if state is None:
            new.append(values)
            continue
        parameter = nn.Parameter(values, requires_grad=old.requires_grad)
        new.append(parameter)
        for group in optimizer.param_groups:
            group["params"] = [parameter if p is old else p for p in group["params"]]
        if optimizer.state.pop(old, None) is not None:
            optimizer.state[parameter] = state
    return new


def select(tensor: Tensor, axes: Sequence[tuple[int, Tensor]]) -> Tensor:
    """Some positions of a tensor, axis by axis.

    Args:
        tensor: of any shape.
        axes: (axis, positions) pairs, on different axes.

    Returns:
        The smaller tensor.
    """
    for axis, index in axes:
        tensor = tensor.index_select(axis, index.to(tensor.device))
    return tensor


def _cut_state(optimizer: Optimizer, old: Tensor, values: Tensor, axes: Sequence[tuple[int, Tensor]]) -> dict:
    state = {}
    for name, value in optimizer.state.get(old, {}).items():
        if isinstance(value, Tensor) and value.dim():
            if value.shape != old.shape:
                raise ValueError(
                    f"optimizer: {type(optimizer).__name__} keeps {name} {tuple(value.shape)} for a parameter "
                    f"{tuple(old.shape)}; pruning with its state is possible where the shapes agree"
                )
            value = select(value, axes)
        state[name] = value
    return state

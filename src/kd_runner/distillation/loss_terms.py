"""Loss terms: what is computed, from which tensors, and with which weight."""

import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kd_runner.distillation.inputs import InputSpec, Sources
from kd_runner.errors import ConfigError


class LossTerm:
    """`weight * fn(**inputs)`.

    Args:
        name: the term's key in `loss`; its errors name it.
        fn: a function of tensors that returns a scalar tensor. It may have a method `build(**inputs)`, which is called
            once, with example tensors, before training: to size projections from what the features give.
        inputs: argument of `fn` to what it reads (`inputs.InputSpec`).
        weight: factor in the total.
        temperature_is_shared: whether `fn.temperature` is the temperature of distillation (`kd.temperature`), which a
            schedule may change, and not a constant of the loss's own.

    Example:
        >>> term = LossTerm("ce", torch.nn.functional.cross_entropy, {"input": "student.out", "target": "batch.label"})
        >>> logits, labels = torch.zeros(2, 4), torch.tensor([0, 3])
        >>> round(term.value({"student": {"out": logits}, "batch": {"label": labels}}).item(), 4)  # log 4
        1.3863
    """

    def __init__(
        self,
        name: str,
        fn: Callable[..., Tensor],
        inputs: Mapping[str, Any],
        weight: float = 1.0,
        temperature_is_shared: bool = False,
    ):
        self.name, self.fn, self.inputs, self.weight = name, fn, InputSpec(inputs), weight
        self.temperature_is_shared = temperature_is_shared

    @property
    def uses_teacher(self) -> bool:
        """Whether any input comes from the teacher; any other term is a task loss."""
        return "teacher" in self.inputs.sources

    def build(self, arguments: Mapping[str, Any]) -> None:
        """Let `fn` size its projections.

        Args:
            arguments: example tensors, as for `call`.

        Raises:
            ConfigError: it cannot work with these tensors.
        """
        if hasattr(self.fn, "build"):
            self._call(self.fn.build, arguments)

    def value(self, sources: Sources) -> Tensor:
        """The unweighted value.

        Args:
            sources: source to its values by name.

        Returns:
            A scalar tensor.

        Raises:
            ConfigError: see `call`.
        """
        return self.call(self.inputs.resolve(sources))

    def call(self, arguments: Mapping[str, Any]) -> Tensor:
        """The unweighted value for resolved inputs.

        Args:
            arguments: argument of `fn` to its value.

        Returns:
            A scalar tensor.

        Raises:
            ConfigError: `fn` raised, or returned anything but a scalar tensor.
        """
        value = self._call(self.fn, arguments)
        if not isinstance(value, Tensor):
            raise ConfigError(
                f"loss.{self.name}: it returned a {type(value).__name__}; a loss returns a tensor of one number, "
                "computed from its inputs, so that it has a gradient"
            )
        if value.ndim != 0:
            raise ConfigError(
                f"loss.{self.name}: it returned a tensor of shape {tuple(value.shape)}; a loss returns one number, "
                "e.g. value.mean()"
            )
        return value

    def _call(self, fn: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
        try:
            return fn(**arguments)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise ConfigError(f"loss.{self.name}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The message in one line; for errors that no check has raised on purpose, their type and line as well."""
    text = " ".join(str(error).split())[:400]
    if type(error) in (ValueError, ConfigError):
        return text
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/torch/" not in frame.filename]
    if len(frames) < 2:  # the call itself: wrong arguments
        return f"{type(error).__name__}: {text}"
    return f"{type(error).__name__}: {text} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"


def weighted_total(terms: Sequence[LossTerm], values: Mapping[str, Tensor], alpha: float | None) -> Tensor:
    """The optimized total.

    With `alpha` None: `L = sum_i w_i L_i`. Else `L = alpha * D + (1 - alpha) * T`, D the weighted sum of the terms
    that read the teacher, T that of the others.

    Args:
        terms: at least one.
        values: term name to its unweighted value, a scalar tensor.
        alpha: fraction of distillation in the total, in [0, 1].

    Returns:
        A scalar tensor.

    Raises:
        ValueError: no terms.

    Source:
     Hinton et al. 2015, arXiv 1503.02531, section 2.
    """
    if not terms:
        raise ValueError("a total needs at least one loss term")

    def weight(term: LossTerm) -> float:
        if alpha is None:
            return term.weight
        return term.weight * (alpha if term.uses_teacher else 1.0 - alpha)

    return sum((weight(term) * values[term.name] for term in terms[1:]), weight(terms[0]) * values[terms[0].name])

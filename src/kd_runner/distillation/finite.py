"""Losses, gradients, weights and metrics that are nan or infinite end a run, with the step and the name."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kd_runner.errors import ConfigError


class NonFiniteError(ConfigError):
    """Training has diverged."""


class LossCheck:
    """Finds the first step with a loss that is not finite, without waiting for the GPU at every step.

    The values of `interval` steps are gathered on their device and read together; on a CPU each step is read at once.

    Args:
        interval: steps between two readings on an accelerator.
    """

    def __init__(self, interval: int = 50):
        self.interval = interval
        self._steps: list[int] = []
        self._values: list[Tensor] = []
        self._names: list[str] = []

    def add(self, step: int, values: Mapping[str, Tensor]) -> None:
        """Add the detached values of a step.

        Args:
            step: number of the step.
            values: term to its value.

        Raises:
            NonFiniteError: one of them, or of the steps before, is not finite.
        """
        self._names = list(values)
        self._values.append(torch.stack([value.detach().float() for value in values.values()]))
        self._steps.append(step)
        if self._values[-1].device.type == "cpu" or len(self._steps) >= self.interval:
            self.read()

    def read(self) -> None:
        """Read what was added.

        Raises:
            NonFiniteError: with the first step and all of its terms that are not finite.
        """
        steps, values = self._steps, self._values
        self._steps, self._values = [], []
        if not steps:
            return
        for step, row in zip(steps, torch.stack(values).tolist()):
            wrong = {name: value for name, value in zip(self._names, row) if not abs(value) < float("inf")}
            if wrong:
                terms = {name: value for name, value in wrong.items() if name != "total"} or wrong
                text = ", ".join(f"loss.{name} is {value}" for name, value in terms.items())
                raise NonFiniteError(
                    f"{text} at step {step}: training has diverged. The last checkpoint is from before; try a lower "
                    "optimizer.lr, trainer.gradient_clip_val, or a look at the term"
                )


def check_gradients(net: nn.Module, step: int) -> None:
    """Raise where a gradient is not finite; the weights are still those of the step before.

    Args:
        net: the net.
        step: number of the step, for the message.

    Raises:
        NonFiniteError: with the parameters.
    """
    gradients = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    if not gradients:
        return
    norms = torch._foreach_norm(list(gradients.values()))
    if torch.stack([norm.float() for norm in norms]).isfinite().all():
        return
    wrong = [name for name, norm in zip(gradients, norms) if not norm.isfinite()]
    raise NonFiniteError(
        f"the gradient of {wrong[0]} and {len(wrong) - 1} other parameters is not finite at step {step}, though every "
        "loss term is: training has diverged. Try a lower optimizer.lr, or a look at the terms near 0 and at log, sqrt"
    )


def check_weights(net: nn.Module, step: int) -> None:
    """Raise where a weight is not finite.

    Args:
        net: the net.
        step: number of the step, for the message.

    Raises:
        NonFiniteError: with the tensors.
    """
    # Moving statistics too: they are what the net computes with once it is trained.
    tensors = net.state_dict()
    wrong = [name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if wrong:
        raise NonFiniteError(
            f"{len(wrong)} weights are not finite after step {step}, the first is {wrong[0]}: training has diverged"
        )


def check_metrics(values: Mapping[str, float | Tensor], monitored: set[str], step: int) -> None:
    """Raise where a metric that chooses the weights is not finite. Others may be nan: of classes that are absent.

    Args:
        values: metric to its value.
        monitored: names of those that must be finite.
        step: number of the step, for the message.

    Raises:
        NonFiniteError: with the metric.
    """
    for name in sorted(monitored & values.keys()):
        if not abs(float(values[name])) < float("inf"):
            raise NonFiniteError(
                f"metric {name} is {float(values[name])} after step {step}: nothing can be chosen by it"
            )

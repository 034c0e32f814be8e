"""A loss term: what is computed, from which tensors, and how much it counts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from kd_runner.distillation.inputs import InputSpec, names, resolve


@dataclass(frozen=True)
class LossTerm:
    """`weight * fn(**inputs)`.

    `fn` may have a method `build(**inputs)`: it is called once, with example tensors, before training, so that
    projections are sized from what the features really give.
    """

    name: str
    fn: Callable[..., Tensor]
    inputs: Mapping[str, InputSpec]
    weight: float = 1.0

    @property
    def uses_teacher(self) -> bool:
        """A term that reads the teacher distils; any other one is a task loss."""
        return any(source == "teacher" for source, _ in names(dict(self.inputs)))

    def arguments(self, scope: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        return resolve(dict(self.inputs), scope)

    def value(self, scope: Mapping[str, Mapping[str, Any]]) -> Tensor:
        return self.fn(**self.arguments(scope))


def weighted_total(terms: list[LossTerm], values: Mapping[str, Tensor], alpha: float | None) -> Tensor:
    """The optimized total.

    With `alpha` None: sum of weight * value. Else `alpha * D + (1 - alpha) * L`, D the weighted sum of the terms that
    read the teacher and L that of the others (Hinton et al. 2015, section 2; alpha is the share of distillation).
    """

    def share(term: LossTerm) -> float:
        if alpha is None:
            return term.weight
        return term.weight * (alpha if term.uses_teacher else 1.0 - alpha)

    total = sum(share(term) * values[term.name] for term in terms)
    assert isinstance(total, Tensor)
    return total

"""The record of a pruned net: what is kept, and the costs before and after."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from kd_runner.pruning import spec as specs
from kd_runner.pruning.layout import KINDS
from kd_runner.pruning.report import cost, table


@dataclass
class Pruned:
    """A pruned part of a net.

    Args:
        module: path of the part in the net, empty for all of it.
        spec: what is kept of it (`pruning.spec`).
        arguments: what the part is called with, positional and named, for its multiply-adds.
        before: parameters, multiply-adds and latency of the part before pruning, where it was measured.
        after: the same after it.
    """

    module: str
    spec: specs.Spec
    arguments: tuple[tuple[Tensor, ...], dict[str, Tensor]] | None = None
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)

    def part(self, net: nn.Module) -> nn.Module:
        """The pruned part of the whole net.

        Args:
            net: the whole net.

        Returns:
            Its module at `module`.
        """
        return net.get_submodule(self.module)

    def cost(self, net: nn.Module) -> dict[str, float]:
        """Parameters and multiply-adds of the part as it is now.

        Args:
            net: the whole net.

        Returns:
            `parameters` and `multiply_adds`.

        Raises:
            ValueError: `arguments` are not known.
        """
        if self.arguments is None:
            raise ValueError("the cost of a pruned part needs the arguments that it is called with")
        args, named = self.arguments
        return dict(cost(self.part(net), *args, **named))

    @property
    def header(self) -> str:
        """Small JSON from which, with a state dict, the net is rebuilt."""
        return specs.dumps({"module": self.module, **self.spec})

    @property
    def table(self) -> str:
        """Markdown; empty where nothing was measured."""
        return table(self.before, self.after) if self.before else ""

    def plain(self) -> dict[str, Any]:
        """The record as plain values, for metrics.json.

        Returns:
            `module`, `kept` (kept units per block), and the costs `before` and `after`.
        """
        kept: Mapping[str, list[int]] = {kind: specs.counts(self.spec, kind) for kind in KINDS}
        return {"module": self.module, "kept": kept, "before": self.before, "after": self.after}


def rebuild(net: nn.Module, header: str, source: str) -> Pruned:
    """Cut the unpruned `net`, in place, to the widths of `Pruned.header`.

    Args:
        net: with the widths before pruning.
        header: JSON text.
        source: file of the header, for messages.

    Returns:
        What was kept.

    Raises:
        ValueError: the text is no such header, or is of another net.
    """
    spec = specs.loads(header, source)
    pruned = Pruned(spec.pop("module"), spec)
    specs.apply(pruned.part(net), pruned.spec)
    return pruned

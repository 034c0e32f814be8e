"""What to prune, by which score, how far and when: what `conf/pruning/` says."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.optim import Optimizer

from kd_runner.errors import nearest
from kd_runner.pruning import spec as specs
from kd_runner.pruning.budget import Budget
from kd_runner.pruning.fit import Arguments, Fit, Milliseconds
from kd_runner.pruning.layout import Layout
from kd_runner.pruning.prune import Kept, prune
from kd_runner.pruning.pruned import Pruned
from kd_runner.pruning.schedule import Schedule
from kd_runner.pruning.scores import Scores
from kd_runner.pruning.surgery import cut

if TYPE_CHECKING:
    from kd_runner.pruning.trace import Traced


class Pruning:
    """Rounds of structured pruning of one part of a net.

    Args:
        module: path of the part, e.g. `img_backbone`; empty for the whole net.
        layout: where its heads and hidden units are (`pruning.layout.Layout`), or what finds its channels
            (`pruning.trace.Traced`).
        score: which of them matter (`pruning.scores`).
        heads: how many heads are removed; None for none.
        hidden: how many hidden units are removed; None for none.
        channels: how many channels are removed; None for none.
        budget: of the whole part, into which its channels are fitted at once, before training; instead of the others.
        schedule: when; None for all at once before training.
        num_batches: training samples that are offered to the score.

    Attributes:
        milliseconds: times nets for a budget of time; None for torch on the CPU.
    """

    def __init__(
        self,
        module: str,
        layout: "Layout | Mapping | Traced",
        score: Callable[..., Scores],
        heads: Budget | None = None,
        hidden: Budget | None = None,
        channels: Budget | None = None,
        budget: Fit | None = None,
        schedule: Schedule | None = None,
        num_batches: int = 8,
    ):
        if budget is not None and (heads or hidden or channels):
            raise ValueError("budget: it chooses the channels; give no heads, hidden or channels beside it")
        self.fit = budget
        self.milliseconds: Milliseconds | None = None
        self.module, self.score = module, score
        self.layout = Layout.read(layout) if isinstance(layout, Layout | Mapping) else layout
        self.budgets: dict[str, Budget | None] = {"heads": heads, "hidden": hidden, "channels": channels}
        self.schedule, self.num_batches = schedule or Schedule(), num_batches
        if budget is not None and self.schedule.epochs() != [0]:
            raise ValueError("schedule: a budget of the whole net is met in one round at the start")

    def part(self, net: nn.Module) -> nn.Module:
        """The part of a net that is pruned.

        Args:
            net: the whole net.

        Returns:
            The module at `module`.

        Raises:
            ValueError: the net has no such part.
        """
        modules = dict(net.named_modules(remove_duplicate=False))
        if self.module not in modules:
            raise ValueError(f"module: the net has no module {self.module!r}.{nearest(self.module, modules)}")
        return modules[self.module]

    def unpruned(self, net: nn.Module, arguments: Arguments = ((), {}), features: Iterable[str] = ()) -> Pruned:
        """The record of a net that is not pruned yet.

        Args:
            net: the whole net.
            arguments: what the part is called with.
            features: feature paths of the net that something reads and that keep their width.

        Returns:
            The record: everything kept.

        Raises:
            ValueError: the net has no such part, or the layout does not fit it.
        """
        part, layout = self.part(net), self.layout
        if not isinstance(layout, Layout):
            prefix = f"{self.module}." if self.module else ""
            inside = [path.removeprefix(prefix) for path in features if path.startswith(prefix)]
            layout = layout.layout(part, *arguments, inside)
        return Pruned(self.module, specs.whole(part, layout), arguments)

    def round(
        self,
        net: nn.Module,
        pruned: Pruned,
        epoch: int,
        loss: Callable[[Any], Tensor],
        batches: Iterable[Any],
        optimizer: Optimizer | None = None,
        synchronize: Callable[[Kept], Kept] | None = None,
    ) -> Pruned:
        """Cut `net` to what is due when `epoch` starts.

        Args:
            net: the whole net, cut in place.
            pruned: record of the rounds before.
            epoch: number of the epoch that starts, from 0.
            loss: of the whole net on a batch, a scalar; scores take its gradient.
            batches: of training samples; read only by scores that need data.
            optimizer: of the net, carried along.
            synchronize: see `prune`.

        Returns:
            The new record.
        """
        part, fraction = pruned.part(net), self.schedule.fraction(epoch)
        if self.fit is not None:
            return self._fitted(part, pruned, loss, batches, synchronize)
        spec = prune(
            part, layout=pruned.spec["layout"], score=self.score, fraction=fraction, spec=pruned.spec,
            optimizer=optimizer, loss=loss, batches=batches, synchronize=synchronize, **self.budgets,
        )  # fmt: skip
        return replace(pruned, spec=spec)

    def _fitted(
        self,
        part: nn.Module,
        pruned: Pruned,
        loss: Callable[[Any], Tensor],
        batches: Iterable[Any],
        synchronize: Callable[[Kept], Kept] | None,
    ) -> Pruned:
        if self.fit is None or pruned.arguments is None:
            raise ValueError("budget: the arguments that the part is called with are not known")
        layout = specs.layout_of(pruned.spec)
        if not pruned.spec["channels"]:
            raise ValueError("budget: it is for channels; choose pruning/layout=channels")
        scores = self.score(part, layout, loss=loss, batches=batches)["channels"]
        kept = {"channels": self.fit.choose(part, layout, scores, pruned.arguments, self.milliseconds)}
        kept = kept if synchronize is None else synchronize(kept)
        cut(part, layout, kept)
        return replace(pruned, spec=specs.narrowed(pruned.spec, kept))

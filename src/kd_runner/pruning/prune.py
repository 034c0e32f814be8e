"""One round of pruning: score, choose, cut, record."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from kd_runner.pruning import spec as specs
from kd_runner.pruning.budget import Budget
from kd_runner.pruning.layout import Layout
from kd_runner.pruning.surgery import cut

Kept = dict[str, dict[str, list[int]]]
"""Kind of unit to block to the indices that are kept of the present units."""
NAMED_BY = {"heads": "proj", "hidden": "mlp_out", "channels": "channels"}


def prune(
    net: nn.Module,
    *,
    layout: Layout | Mapping,
    score: Callable[..., dict[str, dict[str, Tensor]]],
    heads: Budget | None = None,
    hidden: Budget | None = None,
    channels: Budget | None = None,
    fraction: float = 1.0,
    spec: specs.Spec | None = None,
    optimizer: Optimizer | None = None,
    loss: Callable[[Any], Tensor] | None = None,
    batches: Iterable = (),
    synchronize: Callable[[Kept], Kept] | None = None,
) -> specs.Spec:
    """Prune `net` in place to `fraction` of its budgets.

    Nothing is scored where nothing is to be removed.

    Presets on ORION's backbone at 640 x 640 (parameters, multiply-adds of one image):
        none                                      303,388,608 (100 %)     592.9 G (100 %)
        heads_50  heads=Budget(0.5)               253,032,384 (83.4 %)    458.1 G (77.3 %)
        half      heads and hidden=Budget(0.5)    152,262,624 (50.2 %)    297.1 G (50.1 %)    hidden 1365
                  hidden=Budget(0.503)            151,672,032 (49.99 %)   296.1 G (49.9 %)    hidden 1357

    Args:
        net: the net.
        layout: where its units are.
        score: gives each unit's importance (`pruning.scores`).
        heads: how many heads are removed; None for none.
        hidden: how many hidden units are removed; None for none.
        channels: how many channels are removed; None for none.
        fraction: part of the budgets that is due, in [0, 1].
        spec: result of the round before; fractions removed refer to the unpruned net, which it describes. Without it
            `net` counts as unpruned.
        optimizer: of the net, carried along (`surgery.cut`).
        loss: `loss(batch)` runs the net and returns a scalar; only for scores that need data.
        batches: of training samples; only for scores that need data.
        synchronize: gives the kept units of the first process to every process, whose scores may differ in the last
            bit.

    Returns:
        What is kept now (`pruning.spec`).

    Raises:
        ValueError: a fraction outside [0, 1], a budget for units that the layout does not name, a layout that does not
            fit.

    Example:
        >>> from kd_runner.pruning.budget import Budget
        >>> from kd_runner.pruning.scores import Magnitude
        >>> mlp = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> layout = {"blocks": "net", "mlp_in": "0", "mlp_out": "2"}
        >>> spec = prune(nn.ModuleDict({"net": mlp}), layout=layout, score=Magnitude(), hidden=Budget(ratio=0.5))
        >>> mlp[0].weight.shape, len(spec["hidden"]["net"]["kept"])
        (torch.Size([4, 4]), 4)
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction: the fraction that is due lies in [0, 1], got {fraction}")
    spec = specs.whole(net, layout) if spec is None else spec
    layout = specs.layout_of(spec)
    named = (("heads", heads), ("hidden", hidden), ("channels", channels))
    budgets = {kind: b for kind, b in named if b is not None and b.ratio * fraction > 0}
    if not budgets:
        return spec
    for kind in budgets:
        if not spec[kind]:
            raise ValueError(f"{kind}: the layout names none ({NAMED_BY[kind]})")
    scores = score(net, layout, loss=loss, batches=batches)
    kept: Kept = {}
    for kind, budget in budgets.items():
        sizes = {block: entry["of"] for block, entry in spec[kind].items()}
        kept[kind] = budget.keep(scores[kind], sizes=sizes, fraction=fraction)
    if synchronize is not None:
        kept = synchronize(kept)
    cut(net, layout, kept, optimizer=optimizer)
    return specs.narrowed(spec, kept)

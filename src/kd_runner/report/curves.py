"""Validation curves, from the TensorBoard files that a run has written."""

from pathlib import Path

Curve = list[tuple[int, float]]
"""(optimizer steps, value)"""


def curve(folder: Path, metric: str) -> Curve:
    """`val/<metric>` over the steps; empty where the run has no event files (logger=none).

    Args:
        folder: the run's folder.
        metric: name of the metric, without `val/`.

    Returns:
        Pairs (optimizer steps, value), sorted by steps; of several values at one step the first.
    """
    if not list(folder.glob("events.out.tfevents.*")):
        return []
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 1})
    events.Reload()
    if f"val/{metric}" not in events.Tags()["scalars"]:
        return []
    values: dict[int, float] = {}
    for event in events.Scalars(f"val/{metric}"):
        values.setdefault(event.step, event.value)  # the last step comes again when the final weights are measured
    return sorted(values.items())

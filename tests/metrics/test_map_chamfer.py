"""Map lines by chamfer distance: cases by hand, and a slow loop."""

import numpy as np
import pytest
import torch
from torch import Tensor

from kd_runner.metrics.map_chamfer import MapChamfer, chamfer, resample

POINTS = 5


def line(x: float, length: float = 20.0) -> Tensor:
    """A straight line along y at x."""
    return torch.stack([torch.full((POINTS,), x), torch.linspace(0, length, POINTS)], -1)


def measured(
    metric: MapChamfer, predicted: list[Tensor], scores: list[float], true: list[Tensor], index: int = 0
) -> dict:
    stacked = [torch.stack(lines)[None] if lines else torch.zeros(1, 0, POINTS, 2) for lines in (predicted, true)]
    labels, true_labels = (torch.zeros(lines.shape[:2], dtype=torch.long) for lines in stacked)
    mask = torch.ones_like(true_labels, dtype=torch.bool)
    metric.update(stacked[0], torch.tensor([scores]), labels, stacked[1], true_labels, mask, torch.tensor([index]))
    return {name: value.item() for name, value in metric.compute().items()}


def lanes() -> MapChamfer:
    return MapChamfer(["lane", "edge"], num_points=POINTS)


def test_parallel_lines_are_their_distance_apart() -> None:
    """0.7 m: false at 0.5, true at 1.0 and 1.5; whichever way the line runs. The absent class is no zero."""
    result = measured(lanes(), [line(0.7).flip(0)], [0.9], [line(0.0)])
    assert (result["chamfer_map/0.5"], result["chamfer_map/1"], result["chamfer_map/1.5"]) == (0.0, 1.0, 1.0)
    assert result["chamfer_map"] == pytest.approx(2 / 3) == result["chamfer_ap/lane"]
    assert np.isnan(result["chamfer_ap/edge"])


def test_half_a_line_counts_both_directions() -> None:
    """10 of 20 m: the half lies on the line, the line's points are 0..10 m from it: mean of 0 and 2.5."""
    gap = chamfer(*(resample(line(0.0, length).double().numpy()[None], 100) for length in (10.0, 20.0)))
    assert gap[0, 0] == pytest.approx(1.25, abs=0.05)  # steps of 0.1 and 0.2 m


def test_the_second_prediction_of_a_line_is_false() -> None:
    """Scores true, false, true of two lines: area 0.5 * 1 + 0.5 * 2/3."""
    result = measured(lanes(), [line(0.1), line(0.0), line(9.0)], [0.9, 0.8, 0.7], [line(0.0), line(9.0)])
    assert result["chamfer_map"] == pytest.approx(0.5 + 1 / 3)


def test_no_lines_found_and_none_there() -> None:
    assert measured(lanes(), [], [], [line(0.0)])["chamfer_map"] == 0
    assert np.isnan(measured(lanes(), [line(0.0)], [0.5], [])["chamfer_map"])
    assert np.isnan(lanes().compute()["chamfer_map"])


def random_samples(count: int, seed: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    true = torch.rand(count, 4, POINTS, 2, generator=g) * 2 + torch.rand(count, 4, 1, 2, generator=g) * 12
    predicted = true.repeat(1, 2, 1, 1) + torch.randn(count, 8, 1, 2, generator=g) * 0.8
    labels = torch.randint(0, 2, (count, 4), generator=g)
    mine = torch.where(torch.rand(count, 8, generator=g) < 0.1, -1, labels.repeat(1, 2))
    scores, mask = torch.rand(count, 8, generator=g), torch.rand(count, 4, generator=g) < 0.8
    names = ("points", "scores", "labels", "line_points", "line_labels", "line_mask", "index")
    return dict(zip(names, (predicted, scores, mine, true, labels, mask, torch.arange(count) * 7)))


def walk(points: np.ndarray, count: int) -> np.ndarray:
    """A polyline walked at even steps."""
    length = np.append(0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1)))
    position = np.linspace(0, length[-1], count)
    return np.stack([np.interp(position, length, points[:, 0]), np.interp(position, length, points[:, 1])], 1)


def slow(samples: dict[str, Tensor], label: int, limit: float) -> float:
    s = {name: value.double().numpy() for name, value in samples.items()}
    count = len(s["scores"])
    chosen = [(s["scores"][i, j], i, j) for i in range(count) for j in range(8) if s["labels"][i, j] == label]
    true = {(i, k) for i in range(count) for k in range(4) if s["line_mask"][i, k] and s["line_labels"][i, k] == label}
    taken, hits = set(), []
    for _, i, j in sorted(chosen)[::-1]:
        a, gaps = walk(s["points"][i, j], 100), []
        for k in [k for n, k in sorted(true) if n == i]:
            d = np.linalg.norm(a[:, None] - walk(s["line_points"][i, k], 100), axis=-1)
            gaps.append(((d.min(0).mean() + d.min(1).mean()) / 2, k))
        hits.append(bool(gaps) and min(gaps)[0] < limit and (i, min(gaps)[1]) not in taken)
        if hits[-1]:
            taken.add((i, min(gaps)[1]))
    true_positives, area = np.cumsum(hits), 0.0
    for k in np.flatnonzero(hits):  # each hit adds 1 / n of recall at the best precision from there on
        area += max(true_positives[m] / (m + 1) for m in range(k, len(hits))) / len(true)
    return area


def test_a_slow_loop_gives_the_same() -> None:
    samples, metric = random_samples(10, seed=0), lanes()
    metric.update(**samples)
    result = metric.compute()
    for label, name in enumerate(("lane", "edge")):
        expected = np.mean([slow(samples, label, limit) for limit in (0.5, 1.0, 1.5)])
        assert 0.1 < expected < 0.9
        assert result[f"chamfer_ap/{name}"].item() == pytest.approx(expected, abs=1e-6)


def test_shards_in_any_order_equal_one_process() -> None:
    samples, whole, merged = random_samples(9, seed=1), lanes(), lanes()
    whole.update(**samples)
    shards = [lanes() for _ in range(3)]
    for shard, rows in zip(shards, ([8, 0], [3, 2, 1, 4], [7, 6, 5])):
        shard.update(**{name: value[rows] for name, value in samples.items()})
    for state in ("predictions", "objects"):
        parts = [torch.cat(getattr(shard, state)) for shard in shards]
        setattr(merged, state, torch.cat([*parts, torch.tensor([])]))
    assert merged.compute() == whole.compute()


def test_lines_of_another_number_of_points_are_refused() -> None:
    with pytest.raises(ValueError, match="lines of 5 points, num_points is 11"):
        measured(MapChamfer(["lane"], num_points=11), [line(0.0)], [0.5], [line(0.0)])

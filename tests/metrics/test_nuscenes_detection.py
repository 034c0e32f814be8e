"""Detection by center distance: figures of the official devkit, cases by hand, and a slow loop."""

import numpy as np
import pytest
import torch
from torch import Tensor

from kd_runner.metrics.nuscenes_detection import ERRORS, NuScenesDetection

NUSCENES = {
    "car": 50, "truck": 50, "bus": 50, "trailer": 50, "construction_vehicle": 50, "pedestrian": 40, "motorcycle": 40,
    "bicycle": 40, "traffic_cone": 30, "barrier": 30,
}  # fmt: skip
NUSCENES_UNDEFINED = {"traffic_cone": ("aoe", "ave", "aae"), "barrier": ("ave", "aae")}


def nuscenes() -> NuScenesDetection:
    """detection_cvpr_2019."""
    options = {"round_range": True, "errors": ERRORS, "undefined": NUSCENES_UNDEFINED, "half_turn": ("barrier",)}
    return NuScenesDetection(list(NUSCENES), NUSCENES, **options)


def one_class(**options: object) -> NuScenesDetection:
    return NuScenesDetection(["car"], {"car": 50.0}, **options)


def boxes(*rows: tuple[float, ...]) -> Tensor:
    """(1, n, 9) from the first numbers of each box; 2 x 4 x 1.5 m where sizes are not given."""
    usual = (0, 0, 0, 2, 4, 1.5, 0, 0, 0)
    return torch.tensor([[*row, *usual[len(row) :]] for row in rows], dtype=torch.float32).view(1, -1, 9)


def feed(
    metric: NuScenesDetection, predicted: Tensor, scores: list[float], true: Tensor, index: int = 0
) -> dict[str, float]:
    """Add a sample of class 0, and measure."""
    labels, gt_labels = (torch.zeros(b.shape[:2], dtype=torch.long) for b in (predicted, true))
    metric.update(predicted, torch.tensor([scores]), labels, true, gt_labels, gt_labels == 0, torch.tensor([index]))
    return {name: value.item() for name, value in metric.compute().items()}


def fabricated(shift: float = 0.0, attributes: bool = True) -> dict[str, float]:
    """The case that the official devkit was run on: 2 samples, 20 boxes of 5 of the 10 classes, found as they are."""
    names = ["car", "truck", "pedestrian", "bicycle", "traffic_cone"]
    labels = torch.tensor([[list(NUSCENES).index(names[k % 5]) for k in range(10)]] * 2)
    true = boxes(*((-20.0 + 4 * k, 5.0) for k in range(10))).repeat(2, 1, 1)
    predicted, scores = true.clone(), torch.linspace(0.9, 0.5, 20).view(2, 10)
    predicted[..., 1] += shift
    kinds = torch.where(labels == list(NUSCENES).index("traffic_cone"), -1, 2)
    metric, mask = nuscenes(), torch.ones_like(labels, dtype=torch.bool)
    mine = kinds if attributes else torch.full_like(kinds, -1)
    metric.update(predicted, scores, labels, true, labels, mask, torch.arange(2), mine, kinds)
    return {name: value.item() for name, value in metric.compute().items()}


def test_figures_of_the_official_devkit() -> None:
    perfect, shifted, bare = fabricated(), fabricated(shift=0.7), fabricated(attributes=False)
    assert (perfect["map"], perfect["nds"]) == pytest.approx((0.5, 0.4944), abs=5e-5)
    assert (shifted["map"], shifted["mate"]) == pytest.approx((0.375, 0.85), abs=1e-6)
    assert [shifted[f"map/{m}"] for m in ("0.5", "1", "2", "4")] == pytest.approx([0.0, 0.5, 0.5, 0.5], abs=1e-6)
    assert bare["maae"] == pytest.approx(1.0)


def test_errors_of_one_match_by_hand() -> None:
    """0.6 m aside: AP 0, 1, 1, 1 of four thresholds. Sizes 2x4x1.5 in 2x5x1.5: IoU 0.8. Heading 3.0 against -3.0."""
    predicted, true = boxes((10.6, 0, 0, 2, 4, 1.5, 3.0, 1, 0)), boxes((10, 0, 0, 2, 5, 1.5, -3.0, 1, 0.5))
    result = feed(one_class(), predicted, [0.7], true)
    expected = {"map": 0.75, "mate": 0.6, "mase": 0.2, "maoe": 2 * np.pi - 6, "mave": 0.5}
    assert {name: result[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    assert result["nds"] == pytest.approx((5 * 0.75 + 0.4 + 0.8 + (7 - 2 * np.pi) + 0.5) / 9, abs=1e-5)


def test_precision_by_hand() -> None:
    """Two objects, scores true, false, true: precision 1 up to recall 0.5, then on a line from 1/2 to 2/3."""
    result = feed(one_class(), boxes((0, 0), (30, 30), (10, 0)), [0.9, 0.8, 0.7], boxes((0, 0), (10, 0)))
    # Of recalls 0.11, 0.12, ... 1: 39 below 0.5 with 1; at 0.5 the later of two values, 1/2; then the line.
    rest = [0.5 + (2 / 3 - 0.5) * k / 50 for k in range(51)]
    assert result["map"] == pytest.approx((39 * 0.9 + sum(p - 0.1 for p in rest)) / 90 / 0.9, abs=1e-5)


def test_a_prediction_goes_to_the_nearest_free_object() -> None:
    """The better score takes the object between them; the other one still finds its second choice."""
    predicted, true = boxes((1.0, 0), (1.2, 0)), boxes((1.1, 0), (2.6, 0))
    result = feed(one_class(thresholds=(2.0,)), predicted, [0.9, 0.8], true)
    assert result["map"] == pytest.approx(1.0)
    assert result["mate"] < 1.4
    assert feed(one_class(thresholds=(1.0,), tp_threshold=1.0), predicted, [0.9, 0.8], true)["map"] < 0.6


def test_nothing_counts_out_of_range() -> None:
    """A square here, a circle in nuScenes; predictions out there are false only when asked for."""
    predicted, true = boxes((10, 0), (49, 49), (51, 0)), boxes((10, 0), (49, 49), (51, 0))
    assert feed(one_class(), predicted, [0.5, 0.9, 0.9], true)["map"] == pytest.approx(1.0)
    assert feed(one_class(round_range=True), predicted[:, :1], [0.5], true)["map"] == pytest.approx(1.0)
    assert feed(one_class(filter_predictions=False), predicted, [0.5, 0.9, 0.9], true)["map"] < 0.9


def test_no_predictions_and_no_objects() -> None:
    none = torch.zeros(1, 0, 9)
    for predicted, scores, true in ((none, [], boxes((0, 0))), (boxes((0, 0)), [0.5], none), (none, [], none)):
        result = feed(one_class(), predicted, scores, true)
        assert (result["map"], result["mate"], result["nds"]) == (0.0, 1.0, 0.0)
    assert one_class().compute()["nds"] == 0


def random_samples(count: int, seed: int) -> dict[str, Tensor]:
    """Objects, and predictions scattered around them, some false and some twice; scores with ties."""
    g = torch.Generator().manual_seed(seed)
    true = torch.rand(count, 6, 9, generator=g) * 4 + 1
    true[..., :2] = torch.rand(count, 6, 2, generator=g) * 30 - 15
    predicted = true.repeat(1, 2, 1) + torch.randn(count, 12, 9, generator=g) * 0.6
    predicted[..., 3:6] = predicted[..., 3:6].abs() + 0.1
    gt_labels = torch.randint(0, 2, (count, 6), generator=g)
    labels = gt_labels.repeat(1, 2)
    labels[:, ::5] = torch.randint(-1, 2, labels[:, ::5].shape, generator=g)
    scores = torch.randint(1, 40, (count, 12), generator=g) / 40
    mask = torch.rand(count, 6, generator=g) < 0.8
    names = ("boxes", "scores", "labels", "gt_boxes", "gt_labels", "gt_mask", "index")
    return dict(zip(names, (predicted, scores, labels, true, gt_labels, mask, torch.arange(count) * 3)))


def slow(samples: dict[str, Tensor], label: int) -> tuple[float, list[float]]:
    """AP of a class and its four errors, as the devkit goes about it: one prediction after the other."""
    s = {name: value.double().numpy() for name, value in samples.items()}
    predictions = [
        (s["scores"][i, j], i, j) for i in range(len(s["scores"])) for j in range(12) if s["labels"][i, j] == label
    ]
    predictions = [p for _, p in sorted(((p[0], k), p) for k, p in enumerate(predictions))][::-1]
    objects = [
        [k for k in range(6) if s["gt_mask"][i, k] and s["gt_labels"][i, k] == label] for i in range(len(s["scores"]))
    ]
    total, grid, aps, errors = sum(map(len, objects)), np.linspace(0, 1, 101), [], []
    for limit in (0.5, 1.0, 2.0, 4.0):
        taken, hits, matched, values = set(), [], [], []
        for score, i, j in predictions:
            a = s["boxes"][i, j]
            free = [(np.linalg.norm(a[:2] - s["gt_boxes"][i, k, :2]), k) for k in objects[i] if (i, k) not in taken]
            hits.append(bool(free) and min(free)[0] < limit)
            if hits[-1]:
                distance, k = min(free)
                taken.add((i, k))
                b = s["gt_boxes"][i, k]
                common = np.prod(np.minimum(a[3:6], b[3:6]))
                turn = abs(np.angle(np.exp(1j * (a[6] - b[6]))))
                overlap = common / (np.prod(a[3:6]) + np.prod(b[3:6]) - common)
                matched.append(score)
                values.append((distance, 1 - overlap, turn, np.linalg.norm(a[7:] - b[7:])))
        true = np.cumsum(hits)
        precision = np.interp(grid, true / total, true / np.arange(1, len(hits) + 1), right=0)
        aps.append(np.mean(np.clip(precision[11:] - 0.1, 0, None)) / 0.9)
        if limit == 2.0:
            score = np.interp(grid, true / total, [p[0] for p in predictions], right=0)
            running = np.cumsum(values, 0) / np.arange(1, len(values) + 1)[:, None]
            last = np.nonzero(score)[0][-1]
            for column in running.T:
                read = np.interp(score[::-1], matched[::-1], column[::-1])[::-1]
                errors.append(read[11 : last + 1].mean())
    return float(np.mean(aps)), errors


def test_a_slow_loop_gives_the_same() -> None:
    samples = random_samples(25, seed=1)
    metric = NuScenesDetection(["a", "b"], {"a": 60.0, "b": 60.0})
    metric.update(**samples)
    result = {name: value.item() for name, value in metric.compute().items()}
    for label, name in enumerate("ab"):
        ap, errors = slow(samples, label)
        assert 0.1 < ap < 0.9
        assert result[f"ap/{name}"] == pytest.approx(ap, abs=1e-6)
        assert [result[f"{e}/{name}"] for e in ("ate", "ase", "aoe", "ave")] == pytest.approx(errors, abs=1e-5)


def test_shards_in_any_order_equal_one_process() -> None:
    """Even where one process saw nothing: torchmetrics then brings an empty vector."""
    samples = random_samples(12, seed=2)
    whole, merged = (NuScenesDetection(["a", "b"], {"a": 60.0, "b": 60.0}) for _ in range(2))
    whole.update(**samples)
    shards = []
    for rows in ([11, 5, 7], [0, 1, 2, 3], [10, 9, 8, 6, 4]):
        shard = NuScenesDetection(["a", "b"], {"a": 60.0, "b": 60.0})
        shard.update(**{name: value[rows] for name, value in samples.items()})
        shards.append(shard)
    for state in ("predictions", "objects"):
        parts = [torch.cat(getattr(shard, state)) for shard in shards]
        setattr(merged, state, torch.cat([*parts, torch.tensor([])]))
    assert merged.compute() == whole.compute()


def test_only_the_best_boxes_of_a_sample_count() -> None:
    predicted = boxes((0, 0), (20, 0), (10, 0))
    assert feed(one_class(max_predictions=2), predicted, [0.9, 0.1, 0.8], boxes((0, 0), (10, 0), (20, 0)))["map"] < 0.7
    assert feed(one_class(max_predictions=3), predicted, [0.9, 0.1, 0.8], boxes((0, 0), (10, 0), (20, 0)))[
        "map"
    ] == pytest.approx(1)


def test_misspelt_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"'trunk' is not among class_names\. Did you mean 'truck'"):
        NuScenesDetection(["car", "truck"], {"trunk": 50.0})
    with pytest.raises(ValueError, match="tp_threshold=3"):
        one_class(tp_threshold=3.0)
    with pytest.raises(ValueError, match="needs attributes"):
        feed(one_class(errors=ERRORS), boxes((0, 0)), [0.5], boxes((0, 0)))

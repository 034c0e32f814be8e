"""Pasting objects: no collisions, the right numbers, their own points, and a switch."""

from pathlib import Path

import pytest
import torch

from kd_runner.data.nuscenes.dataset import NuScenesLidar
from kd_runner.data.nuscenes.frame import LidarFrame
from kd_runner.data.nuscenes.object_sample import ObjectSample
from kd_runner.geometry.boxes3d import inside, overlaps


@pytest.fixture(scope="module")
def dataset(world: Path, tmp_path_factory: pytest.TempPathFactory) -> NuScenesLidar:
    sampler = ObjectSample(
        tmp_path_factory.mktemp("paste") / "objects", {"car": 12, "pedestrian": 9, "bus": 1}, min_points=4
    )
    return NuScenesLidar(world, "v1.0-mini", "world_train", train=True, num_sweeps=1, object_sample=sampler)


def pasted(dataset: NuScenesLidar, index: int, seed: int) -> tuple[LidarFrame, LidarFrame]:
    assert dataset.object_sample is not None
    torch.manual_seed(seed)
    before = dataset.load(index)
    return before, dataset.object_sample(before)


@pytest.mark.parametrize("index", range(6))
def test_pasted_objects_touch_nothing_and_bring_their_points(dataset: NuScenesLidar, index: int) -> None:
    before, after = pasted(dataset, index, seed=index)
    old, new = len(before.objects), after.objects.boxes[len(before.objects) :]
    assert torch.equal(after.objects.boxes[:old].nan_to_num(), before.objects.boxes.nan_to_num())
    assert not overlaps(new, after.objects.boxes[:old]).any()
    assert overlaps(new, new).sum() == len(new)
    labels = after.objects.labels
    for name, most in (("car", 12), ("pedestrian", 9), ("bus", 1)):
        number = dataset.classes.index(name)
        assert (labels == number).sum() <= max(most, (labels[:old] == number).sum())
    counts = inside(after.points, new).sum(1)
    assert (counts >= 4).all()
    others = inside(before.points, new).any(0)
    assert len(after.points) == int(counts.sum()) + int((~others).sum())


def test_a_pasted_object_keeps_its_number(dataset: NuScenesLidar) -> None:
    boxes = {}
    for index in range(len(dataset)):
        objects = dataset.load(index).objects
        boxes |= dict(zip(objects.ids.tolist(), objects.boxes.nan_to_num()))
    before, after = pasted(dataset, 0, seed=1)
    assert len(after.objects) > len(before.objects)
    assert all(torch.equal(boxes[int(n)], box.nan_to_num()) for n, box in zip(after.objects.ids, after.objects.boxes))


def test_off_means_off_and_the_stock_is_kept(dataset: NuScenesLidar) -> None:
    sampler = dataset.object_sample
    assert sampler is not None
    before = dataset.load(0)
    sampler.enabled = False
    assert sampler(before) is before
    sampler.enabled = True
    times = {path: path.stat().st_mtime_ns for path in sampler.folder.iterdir()}
    sampler.fill(dataset)
    assert times == {path: path.stat().st_mtime_ns for path in sampler.folder.iterdir()}


def test_an_unknown_class(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Did you mean 'truck'"):
        ObjectSample(tmp_path, {"trucks": 2})

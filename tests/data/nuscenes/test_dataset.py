"""The reader against transforms by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from kd_runner.data.nuscenes.dataset import NuScenesLidar
from kd_runner.data.order import SeededDataset
from kd_runner.geometry.boxes3d import inside, transform
from tests.data.nuscenes.conftest import MOUNT, POSES

SMALL = {"max_points": 40, "max_boxes": 5}


def lidar2global(k: int) -> np.ndarray:
    """By scipy, whose quaternions end with w."""
    poses = []
    for translation, (w, x, y, z) in (POSES[k], MOUNT):
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = Rotation.from_quat([x, y, z, w]).as_matrix(), translation
        poses.append(matrix)
    return poses[0] @ poses[1]


def by_hand(root: Path, **more: object) -> NuScenesLidar:
    return NuScenesLidar(root, "v1.0-mini", "mini_val", **{**SMALL, **more})


def test_sweeps_are_moved_to_the_key_frame(tables: Path) -> None:
    """Key frame 1 is sweep 2, after sweeps 1 and 0; the near point (0.5, 0.5) stays in the key frame only."""
    sample = by_hand(tables)[1]
    points = sample["points"][: sample["num_points"]].numpy()
    expected = [[10, 2, 1, 7, 0], [0.5, 0.5, -1, 8, 0], [0.5, -6, 0, 9, 0]]
    for k, lag in ((1, 0.25), (0, 0.5)):
        back = np.linalg.inv(lidar2global(2)) @ lidar2global(k)
        for x, y, z, intensity in ((10, k, 1, 7), (0.5, -6, 0, 9)):
            expected.append([*(back @ [x, y, z, 1])[:3], intensity, lag])
    assert np.allclose(points, expected, atol=1e-4)
    assert not sample["points"][7:].any()


def test_without_history_the_key_frame_is_repeated(tables: Path) -> None:
    sample = by_hand(tables, num_sweeps=3)[0]
    assert int(sample["num_points"]) == 3 + 3 * 2
    assert not sample["points"][:, 4].any()


def test_sweeps_are_the_nearest_in_evaluation_and_any_in_training(tables: Path) -> None:
    def lags(dataset: NuScenesLidar, seed: int) -> float:
        sample = SeededDataset(dataset)[(2, seed)]
        return round(sample["points"][:, 4].max().item(), 2)

    assert {lags(by_hand(tables, num_sweeps=1), seed) for seed in range(9)} == {0.5}
    assert {lags(by_hand(tables, num_sweeps=1, train=True), seed) for seed in range(30)} == {0.5, 0.75, 1.0}
    assert {lags(by_hand(tables, num_sweeps=1, num_history=2, train=True), s) for s in range(30)} == {0.5, 0.75}


def test_boxes_come_back_to_the_tables(tables: Path) -> None:
    """Objects of key frame 1 that a point shows: b moves (3, 1) m in 1 s; e was seen by radar, once."""
    sample = by_hand(tables)[1]
    assert sample["gt_mask"].tolist() == [True, True, False, False, False]
    assert sample["gt_labels"].tolist() == [0, 0, -1, -1, -1]
    assert sample["gt_ids"].tolist() == [1, 3, -1, -1, -1]
    assert sample["gt_attributes"].tolist() == [0, -1, -1, -1, -1]
    assert sample["gt_velocity_mask"].tolist() == [True, False, False, False, False]
    boxes = transform(sample["gt_boxes"][:2].double(), sample["lidar2global"]).numpy()
    yaw = 2 * np.arctan2(0.6, 0.8)
    assert np.allclose(boxes[0], [411, 1105.5, 1, 4, 2, 1.5, yaw, 3, 1], atol=1e-4)
    assert np.allclose(boxes[1, :7], [400, 1090, 1, 4, 2, 1.5, yaw], atol=1e-4)
    center = np.linalg.inv(lidar2global(2)) @ [411, 1105.5, 1, 1]
    assert np.allclose(sample["gt_boxes"][0, :3], center[:3], atol=1e-4)


def test_local_axes_are_the_global_ones_around_the_car(tables: Path) -> None:
    sample = by_hand(tables)[1]
    local = transform(sample["gt_boxes"][:1], sample["lidar2local"])[0]
    assert np.allclose(local[:3], np.subtract([411, 1105.5, 1], POSES[2][0]), atol=1e-4)
    rack = torch.cat([sample["racks"][:1], torch.zeros(1, 2)], 1).double()
    assert np.allclose(transform(rack, sample["lidar2global"])[0, :3], [395, 1095, 1], atol=1e-4)
    assert not sample["racks"][1:].any()


def test_real_points_lie_in_real_boxes(world: Path) -> None:
    """Without sweeps, the points in each box are those that the tables count."""
    dataset = NuScenesLidar(world, "v1.0-mini", "world_val", num_sweeps=0, point_range=(-99, -99, -9, 99, 99, 99))
    for index in range(len(dataset)):
        frame = dataset.load(index)
        counts = inside(frame.points, frame.objects.boxes).sum(1)
        known = dataset.frames[index].points
        assert (counts - torch.from_numpy(known[known > 0])).abs().max() <= 1  # single precision on a surface


def test_the_same_key_gives_the_same_sample(world: Path) -> None:
    dataset = SeededDataset(NuScenesLidar(world, "v1.0-mini", "world_train", train=True, num_sweeps=2, max_points=500))
    first, again, other = dataset[(4, 1)], dataset[(4, 1)], dataset[(4, 2)]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["points"], other["points"])
    assert int(first["index"]) == 4
    assert int(first["scene"]) == 1


def test_too_many_points_are_thinned_evenly_and_said_once(world: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = {"num_sweeps": 0, "point_range": (-20, -20, -3, 20, 20, 3)}
    full, part = (NuScenesLidar(world, "v1.0-mini", "world_val", max_points=n, **options) for n in (20_000, 300))
    first, again, whole = part[0], part[0], full[0]
    assert torch.equal(first["points"], again["points"])
    assert len([r for r in caplog.records if "max_points=300" in r.message]) == 1
    rows = {tuple(row) for row in whole["points"].tolist()}
    assert {tuple(row) for row in first["points"].tolist()} <= rows
    assert (whole["points"][: whole["num_points"], :3].abs().amax(0) <= torch.tensor([20, 20, 3])).all()


def test_an_own_list_of_scenes_goes_before_the_official_ones(tables: Path) -> None:
    (tables / "v1.0-mini" / "splits.json").write_text(json.dumps({"mine": ["scene-0916"], "bad": ["scene-1"]}))
    assert len(NuScenesLidar(tables, "v1.0-mini", "mine", **SMALL)) == len(by_hand(tables)) == 3
    with pytest.raises(ValueError, match="scene-1"):
        NuScenesLidar(tables, "v1.0-mini", "bad", **SMALL)
    with pytest.raises(ValueError, match="Did you mean 'mine'"):
        NuScenesLidar(tables, "v1.0-mini", "min", **SMALL)


def test_errors_name_what_to_change(tables: Path) -> None:
    with pytest.raises(ValueError, match=r"no .*v1\.0-trainval"):
        NuScenesLidar(tables, "v1.0-trainval", "val")
    with pytest.raises(ValueError, match=r"v1\.0-mini has no split 'test'"):
        NuScenesLidar(tables, "v1.0-mini", "test")
    with pytest.raises(ValueError, match=r"no class 'cars'\. Did you mean 'car'"):
        by_hand(tables, classes=["cars"])
    with pytest.raises(ValueError, match="train=true"):
        by_hand(tables, augment=lambda frame: frame)


def test_without_labels_a_sample_has_no_boxes(tables: Path) -> None:
    known, hidden = by_hand(tables)[1], by_hand(tables, labeled=False)[1]
    assert known["labeled"] and known["gt_mask"].any()
    assert not hidden["labeled"] and not hidden["gt_mask"].any() and (hidden["gt_ids"] == -1).all()
    assert torch.equal(known["points"], hidden["points"])


def test_intensity_is_scaled_and_nothing_else(tables: Path) -> None:
    plain, scaled = by_hand(tables)[1]["points"], by_hand(tables, intensity_scale=0.5)[1]["points"]
    assert torch.equal(scaled, plain * torch.tensor([1, 1, 1, 0.5, 1]))


def test_scenes_have_one_number_in_every_split(world: Path) -> None:
    numbers = [
        {int(sample["scene"]) for sample in map(dataset.__getitem__, range(len(dataset)))}
        for dataset in (NuScenesLidar(world, "v1.0-mini", f"world_{split}", num_sweeps=0) for split in ("train", "val"))
    ]
    assert numbers == [{0, 1}, {2}]

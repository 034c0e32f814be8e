"""The data set on disk."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kd_runner.errors import ConfigError
from kd_runner.synthetic.driving.bench2drive_writer import write

SMALL = {"num_train": 2, "num_val": 1, "num_frames": 2, "width": 64, "height": 36}
# As Bench2DriveZoo's prepare_B2D.py stores them.
KEYS = {
    "folder", "town_name", "command_far_xy", "command_far", "command_near_xy", "command_near", "frame_idx", "ego_yaw",
    "ego_translation", "ego_vel", "ego_accel", "ego_rotation_rate", "ego_size", "world2ego", "brake", "throttle",
    "steer", "sensors", "gt_ids", "gt_boxes", "gt_names", "num_points", "npc2world",
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("driving") / "world", **SMALL)


def infos(root: Path, split: str) -> list[dict]:
    return pickle.loads((root / "infos" / f"b2d_infos_{split}.pkl").read_bytes())


def test_layout_and_keys(root: Path) -> None:
    frames = infos(root, "train")
    assert [info["frame_idx"] for info in frames] == [0, 5, 0, 5]
    split = json.loads((root / "splits" / "bench2drive_base_train_val_split.json").read_text())
    assert split["train"] == list(dict.fromkeys(info["folder"] for info in frames))
    for info in frames:
        assert set(info) == KEYS
        count = len(info["gt_names"])
        assert info["gt_boxes"].shape == (count, 9) and info["npc2world"].shape == (count, 4, 4) and count > 0
        assert info["folder"].split("/")[1].split("_")[1] == info["town_name"]  # upstream reads the town so
        for name in list(info["sensors"])[:6]:
            assert Image.open(root / "bench2drive" / info["sensors"][name]["data_path"]).size == (64, 36)


def test_poses_agree_with_one_another(root: Path) -> None:
    for info in infos(root, "val"):
        lidar = info["sensors"]["LIDAR_TOP"]
        assert np.allclose(lidar["world2lidar"] @ np.linalg.inv(info["world2ego"]) @ lidar["lidar2ego"], np.eye(4))
        for name in list(info["sensors"])[:6]:
            sensor = info["sensors"][name]
            assert np.allclose(sensor["world2cam"] @ np.linalg.inv(info["world2ego"]) @ sensor["cam2ego"], np.eye(4))
        # An object's own pose says the same as its box: place, heading = -yaw - pi/2, way of its velocity.
        pose = lidar["world2lidar"] @ info["npc2world"]
        boxes = info["gt_boxes"]
        lifted = pose[:, :3, 3] + [0, 0, 0.5] * boxes[:, 5:6]
        assert np.allclose(lifted, boxes[:, :3])
        ahead = np.stack([np.cos(-boxes[:, 6] - np.pi / 2), np.sin(-boxes[:, 6] - np.pi / 2)], 1)
        assert np.allclose(pose[:, :2, 0], ahead)
        vehicle = np.array([name.startswith("vehicle") for name in info["gt_names"]])
        speed = np.hypot(*boxes[vehicle, 7:9].T)
        assert np.allclose((boxes[vehicle, 7:9] * ahead[vehicle]).sum(1), speed)


def test_ego_moves_forward_in_the_lidar_frame(root: Path) -> None:
    first, second = infos(root, "train")[:2]
    step = first["sensors"]["LIDAR_TOP"]["world2lidar"] @ np.linalg.inv(second["sensors"]["LIDAR_TOP"]["world2lidar"])
    assert step[1, 3] == pytest.approx(0.5 * first["ego_vel"][0], rel=0.02)  # y is forward
    assert abs(step[0, 3]) < 0.2


def test_boxes_are_of_what_is_seen(root: Path) -> None:
    for info in infos(root, "train"):
        assert set(np.unique(info["num_points"])) <= {0, -1}
        assert (np.hypot(*info["gt_boxes"][:, :2].T) <= 75).all()


def test_town_maps(root: Path) -> None:
    towns = pickle.loads((root / "infos" / "b2d_map_infos.pkl").read_bytes())
    assert {info["town_name"] for split in ("train", "val") for info in infos(root, split)} == set(towns)
    for town in towns.values():
        assert len(town["lane_points"]) == len(town["lane_types"]) == len(town["lane_sample_points"])
        for points, samples in zip(town["lane_points"], town["lane_sample_points"]):
            assert (
                points.shape[1] == 3
                and np.array_equal(samples[0], points[0])
                and np.array_equal(samples[-1], points[-1])
            )


def test_a_longer_list_begins_with_the_shorter_one(root: Path, tmp_path: Path) -> None:
    longer = write(tmp_path / "world", **{**SMALL, "num_train": 1, "num_val": 2})
    for a, b in zip(infos(root, "val"), infos(longer, "val")):
        assert a["folder"] == b["folder"] and np.array_equal(a["gt_boxes"], b["gt_boxes"])
        path = a["sensors"]["CAM_BACK"]["data_path"]
        assert (root / "bench2drive" / path).read_bytes() == (longer / "bench2drive" / path).read_bytes()


def test_written_once_and_never_over_something_else(root: Path, tmp_path: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    write(root, **SMALL)
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before
    with pytest.raises(ConfigError, match=r"data\.root=.* other arguments"):
        write(root, **{**SMALL, "seed": 1})
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(ConfigError, match=r"data\.root=.* something else"):
        write(tmp_path, **SMALL)
    with pytest.raises(ValueError, match="num_val=0: must be at least 1"):
        write(tmp_path / "x", **{**SMALL, "num_val": 0})


def test_a_stopped_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kd_runner.synthetic.driving.bench2drive_writer.render", stop)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "world", **SMALL)
    assert list(tmp_path.iterdir()) == []

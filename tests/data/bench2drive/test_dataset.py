"""Samples of Bench2Drive: boxes and lines in the LiDAR frame, matrices that fit the images, errors."""

import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import default_collate

from kd_runner.data.bench2drive.camera_pipeline import CameraPipeline
from kd_runner.data.bench2drive.classes import CAMERAS, CLASSES
from kd_runner.data.bench2drive.dataset import Bench2Drive
from kd_runner.data.bench2drive.infos import check_info
from kd_runner.data.order import SeededDataset
from kd_runner.errors import ConfigError
from kd_runner.geometry.projection import project
from kd_runner.synthetic.driving.bench2drive_writer import write

MINI = {"resize": (0.74, 0.9), "crop": (64, 128), "final": (128, 128)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("driving") / "world", num_train=2, num_val=1, num_frames=2)


def changed(root: Path, tmp_path: Path, **values: Any) -> Bench2Drive:
    """The validation set, with changed values in the info of its first frame."""
    (tmp_path / "infos").mkdir()
    (tmp_path / "bench2drive").symlink_to(root / "bench2drive")
    infos = pickle.loads((root / "infos" / "b2d_infos_val.pkl").read_bytes())
    infos[0] |= values
    (tmp_path / "infos" / "b2d_infos_val.pkl").write_bytes(pickle.dumps(infos))
    (tmp_path / "infos" / "b2d_map_infos.pkl").write_bytes((root / "infos" / "b2d_map_infos.pkl").read_bytes())
    return Bench2Drive(tmp_path, "val", CameraPipeline(False, **MINI))


def test_a_sample_says_where_its_boxes_are(root: Path) -> None:
    data = Bench2Drive(root, "train", CameraPipeline(False, **MINI))
    sample, info = data[1], data.infos[1]
    assert sample["images"].shape == (6, 3, 128, 128)
    boxes = sample["gt_boxes"][sample["gt_mask"]].double().numpy()
    seen = 0
    for camera, name in enumerate(CAMERAS):
        sensor = info["sensors"][name]
        old = np.linalg.inv(sensor["cam2ego"]) @ info["sensors"]["LIDAR_TOP"]["lidar2ego"]
        pixel, depth = project(boxes[:, :3], sample["lidar2img"][camera].double().numpy())
        expected = (
            sample["intrinsics"][camera].double().numpy() @ old @ np.append(boxes[:, :3], np.ones((len(boxes), 1)), 1).T
        ).T
        front = depth > 0
        assert np.allclose(pixel[front], expected[front, :2] / expected[front, 2:3], atol=0.05)
        seen += (front & (pixel > 0).all(1) & (pixel < 128).all(1)).sum()
    assert seen > 3
    assert torch.allclose(
        sample["ego_pose"], torch.from_numpy(np.linalg.inv(info["sensors"]["LIDAR_TOP"]["world2lidar"]))
    )
    assert (
        sample["timestamp"].item() == info["frame_idx"] / 10
        and data.token(1) == f"{info['folder']}_{info['frame_idx']}"
    )
    assert [int(data[k]["scene"]) for k in range(4)] == [0, 0, 1, 1]


def test_samples_make_a_batch(root: Path) -> None:
    data = Bench2Drive(root, "train", CameraPipeline(True, **MINI))
    batch = default_collate([data[0], data[2]])
    assert batch["gt_boxes"].shape == (2, 128, 9) and batch["line_points"].shape == (2, 128, 11, 2)
    for kind, what in (("gt", "boxes"), ("line", "points")):
        mask = batch[f"{kind}_mask"]
        assert mask.any(1).all() and torch.equal(mask, batch[f"{kind}_labels"] >= 0)
        assert (batch[f"{kind}_{what}"][~mask] == 0).all()


def test_what_is_left_out(root: Path, tmp_path: Path) -> None:
    """Boxes without points, types that are not detected, boxes out of range; -1 (unknown) stays."""
    boxes = np.tile([5.0, 6.0, 0, 2, 4, 1.5, 4.0, 0, 0], (5, 1))
    boxes[4, 1] = 51.5
    names = np.array(
        ["vehicle.audi.tt", "walker.pedestrian.0099", "vehicle.yamaha.yzf", "traffic.stop", "traffic.stop"]
    )
    points = np.array([-1, 0, 5, 7, 9])
    poses = np.tile(np.eye(4), (5, 1, 1))
    data = changed(
        root, tmp_path, gt_boxes=boxes, gt_names=names, num_points=points, gt_ids=np.arange(5), npc2world=poses
    )
    sample = data[0]
    assert [CLASSES[k] for k in sample["gt_labels"][sample["gt_mask"]]] == ["car", "traffic_sign"]
    expected = [5, 6, 0, 4, 2, 1.5, -4 - np.pi / 2 + 2 * np.pi, 0, 0]  # length before width, the heading in [-pi, pi)
    assert sample["gt_boxes"][0].tolist() == pytest.approx(expected)
    assert data.infos[0]["gt_boxes"][0, 6] == 4.0  # the info itself is left as it was
    assert not sample["gt_empty_mask"].any()
    sample = Bench2Drive(tmp_path, "val", CameraPipeline(False, **MINI), max_boxes=4, empty_boxes=True)[0]
    assert sample["gt_mask"].tolist() == [True, True, False, False]
    assert sample["gt_empty_mask"].tolist() == [False, False, True, False]
    assert CLASSES[sample["gt_labels"][2]] == "pedestrian" and sample["gt_boxes"][2, :2].tolist() == [5, 6]
    few = Bench2Drive(tmp_path, "val", CameraPipeline(False, **MINI), max_boxes=2, empty_boxes=True)[0]
    assert few["gt_mask"].all() and not few["gt_empty_mask"].any()


def test_a_frame_without_boxes(root: Path, tmp_path: Path) -> None:
    none = {"gt_boxes": np.zeros((0, 9)), "gt_names": np.array([], str), "num_points": np.zeros(0, int)}
    assert not changed(root, tmp_path, **none)[0]["gt_mask"].any()


def test_the_nearest_are_kept_where_not_all_fit(root: Path) -> None:
    many, few = (Bench2Drive(root, "val", CameraPipeline(False, **MINI), max_boxes=k)[0] for k in (128, 4))
    distance = many["gt_boxes"][many["gt_mask"]][:, :2].norm(dim=1).sort().values
    assert few["gt_mask"].all() and len(distance) > 4
    assert few["gt_boxes"][:, :2].norm(dim=1).sort().values.tolist() == distance[:4].tolist()


def test_randomness_is_torchs_only(root: Path) -> None:
    """The seed of the key decides; in evaluation nothing is drawn."""
    train, val = (SeededDataset(Bench2Drive(root, "train", CameraPipeline(flag, **MINI))) for flag in (True, False))
    np.random.seed(0)
    first = train[(1, 5)]
    np.random.seed(1)
    assert all(torch.equal(first[k], train[(1, 5)][k]) for k in first)
    assert not torch.equal(first["images"], train[(1, 6)]["images"])
    assert torch.equal(val[(1, 5)]["images"], val[(1, 6)]["images"])


def test_wrong_paths_are_named(root: Path, tmp_path: Path) -> None:
    pipeline = CameraPipeline(False, **MINI)
    assert len(Bench2Drive(root / "bench2drive", "val", pipeline)) == 2  # infos beside it
    with pytest.raises(ValueError, match=r"root: .* holds no bench2drive/v1"):
        Bench2Drive(tmp_path, "val", pipeline)
    with pytest.raises(ValueError, match="Did you mean 'train'"):
        Bench2Drive(root, "trian", pipeline)
    with pytest.raises(ValueError, match="lacks the towns Town99"):
        changed(root, tmp_path, town_name="Town99")


def test_some_cameras_in_a_chosen_order(root: Path) -> None:
    chosen = ["CAM_BACK", "CAM_FRONT"]
    pipeline = CameraPipeline(False, **MINI)
    some, all_ = Bench2Drive(root, "val", pipeline, cameras=chosen)[0], Bench2Drive(root, "val", pipeline)[0]
    for key in ("images", "lidar2img", "intrinsics"):
        assert torch.equal(some[key], all_[key][[3, 0]])
    with pytest.raises(ValueError, match="CAM_FRONT"):
        Bench2Drive(root, "val", pipeline, cameras=["CAM_FRONTT"])


def test_frames_without_labels(root: Path) -> None:
    pipeline = CameraPipeline(False, **MINI)
    whole, rest = Bench2Drive(root, "train", pipeline), Bench2Drive(root, "train", pipeline, first=1, labeled=False)
    assert len(rest) == len(whole) - 1 and rest.token(0) == whole.token(1)
    assert torch.equal(rest[0]["images"], whole[1]["images"])
    assert whole[1]["labeled"] and whole[1]["gt_mask"].any() and whole[1]["line_mask"].any()
    assert not rest[0]["labeled"] and not rest[0]["gt_mask"].any() and not rest[0]["line_mask"].any()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gt_boxes": "x"}, "gt_boxes: an array of numbers is expected"),
        (
            {"gt_boxes": np.zeros((2, 7)), "gt_names": ["car"] * 2, "num_points": [1, 1]},
            r"gt_boxes: the shape \(2, 9\) is",
        ),
        ({"gt_boxes": np.full((1, 9), np.nan), "gt_names": ["car"], "num_points": [1]}, r"not finite in box 0 \(car\)"),
        (
            {"gt_boxes": -np.ones((1, 9)), "gt_names": ["car"], "num_points": [1]},
            r"a size is negative in box 0 \(car\)",
        ),
        ({"num_points": []}, "num_points: .* numbers are expected"),
        ({"sensors": []}, "sensors: a dict is expected, not a list"),
        ({"sensors": {}}, r"the key sensors\.CAM_FRONT is missing"),
        ({"frame_idx": "0"}, "frame_idx: a whole number from 0 is expected"),
    ],
)
def test_damaged_frames_are_named(root: Path, tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"b2d_infos_val\.pkl, frame 0 .*{message}"):
        changed(root, tmp_path, **values)


def test_a_missing_key_and_a_wrong_matrix_are_named(root: Path, tmp_path: Path) -> None:
    info = pickle.loads((root / "infos" / "b2d_infos_val.pkl").read_bytes())[0]
    lidar = info["sensors"]["LIDAR_TOP"] | {"world2lidar": np.eye(3)}
    with pytest.raises(ValueError, match=r"LIDAR_TOP\.world2lidar: the shape \(4, 4\) is expected, got \(3, 3\)"):
        changed(root, tmp_path, sensors=info["sensors"] | {"LIDAR_TOP": lidar})
    del info["gt_names"]
    with pytest.raises(ValueError, match="the key gt_names is missing"):
        check_info(info, CAMERAS)


def test_a_frame_listed_twice_is_refused(root: Path, tmp_path: Path) -> None:
    second = pickle.loads((root / "infos" / "b2d_infos_val.pkl").read_bytes())[1]
    with pytest.raises(ValueError, match=r"is listed twice, as frames 0 and 1"):
        changed(root, tmp_path, folder=second["folder"], frame_idx=second["frame_idx"])


def damaged_image(root: Path, tmp_path: Path, damage: Callable[[Path], Any]) -> Bench2Drive:
    """The validation set, with a second camera image of the first frame that `damage` writes."""
    info = pickle.loads((root / "infos" / "b2d_infos_val.pkl").read_bytes())[0]
    path = tmp_path / "image.png"
    damage(path)
    sensors = info["sensors"] | {"CAM_BACK": info["sensors"]["CAM_BACK"] | {"data_path": str(path)}}
    return changed(root, tmp_path, sensors=sensors)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: None, "is missing"),
        (lambda path: path.write_bytes(b"no image"), "cannot be read as an image"),
        (lambda path: path.write_bytes(png(160, 90)[:200]), "cannot be read as an image"),
        (
            lambda path: Image.fromarray(np.zeros((90, 160), np.uint16)).save(path),
            "an 8-bit image is expected, not mode I;16",
        ),
        (lambda path: path.write_bytes(png(80, 45)), "160 x 90 pixels are expected .* got 80 x 45"),
    ],
)
def test_damaged_images_are_named(root: Path, tmp_path: Path, damage: Callable[[Path], Any], message: str) -> None:
    data = damaged_image(root, tmp_path, damage)
    with pytest.raises(ConfigError, match=rf"image\.png of frame {re.escape(data.token(0))}:? {message}"):
        data[0]


def png(width: int, height: int) -> bytes:
    """A noisy image."""
    content = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()

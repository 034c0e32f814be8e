"""Reading Bench2Drive: plain pickles only, pictures with matrices that fit, boxes and lines in the LiDAR frame."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import default_collate

from kd_runner.data import restricted_pickle
from kd_runner.data.bench2drive.camera_pipeline import CameraPipeline, distort_colors
from kd_runner.data.bench2drive.dataset import CAMERAS, CLASSES, Bench2Drive, TownMap, class_of
from kd_runner.data.order import SeededDataset
from kd_runner.errors import ConfigError
from kd_runner.synthetic.driving.bench2drive_writer import write
from kd_runner.synthetic.driving.cameras import project

MINI = {"resize": (0.74, 0.9), "crop": (64, 128), "final": (128, 128)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("driving") / "world", num_train=2, num_val=1, num_frames=2)


def changed(root: Path, tmp_path: Path, **values: Any) -> Bench2Drive:
    """The validation set, with other values in the info of its first frame."""
    (tmp_path / "infos").mkdir()
    (tmp_path / "bench2drive").symlink_to(root / "bench2drive")
    infos = pickle.loads((root / "infos" / "b2d_infos_val.pkl").read_bytes())
    infos[0] |= values
    (tmp_path / "infos" / "b2d_infos_val.pkl").write_bytes(pickle.dumps(infos))
    (tmp_path / "infos" / "b2d_map_infos.pkl").write_bytes((root / "infos" / "b2d_map_infos.pkl").read_bytes())
    return Bench2Drive(tmp_path, "val", CameraPipeline(False, **MINI))


# Plain pickles


class Hostile:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_hostile_pickle_does_not_run(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps([np.arange(3), Hostile(tmp_path / "harm")], protocol=protocol))
    with pytest.raises(ConfigError, match=r"data\.root: .*bad\.pkl cannot be read as plain data .*mkdir"):
        restricted_pickle.load(tmp_path / "bad.pkl")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    "call", ["builtins\neval", "builtins\ngetattr", "numpy\nload", "numpy\nfromfile", "os\nsystem"]
)
def test_not_all_of_builtins_and_numpy_is_plain(tmp_path: Path, call: str) -> None:
    (tmp_path / "bad.pkl").write_bytes(f"c{call}\n(S'1'\ntR.".encode())
    with pytest.raises(ConfigError, match=call.replace("\n", r"\.")):
        restricted_pickle.load(tmp_path / "bad.pkl")


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_plain_data_of_either_numpy(tmp_path: Path, core: bytes, protocol: int) -> None:
    content = {"a": [np.eye(3), np.float64(0.5), np.str_("x")], "names": np.array(["car", "van"]), "set": {1, 2}}
    found = pickle.dumps(content, protocol=protocol)
    if protocol == 2:  # names end at a line there, so another length does no harm
        found = found.replace(b"numpy._core", core)
    (tmp_path / "good.pkl").write_bytes(found)
    read = restricted_pickle.load(tmp_path / "good.pkl")
    assert np.array_equal(read["a"][0], np.eye(3)) and read["a"][1:] == [0.5, "x"]
    assert read["names"].tolist() == ["car", "van"] and read["set"] == {1, 2}


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.root: there is no .*none\.pkl"):
        restricted_pickle.load(tmp_path / "none.pkl")
    (tmp_path / "cut.pkl").write_bytes(pickle.dumps(np.arange(100))[:50])
    with pytest.raises(ConfigError, match=r"cut\.pkl cannot be read"):
        restricted_pickle.load(tmp_path / "cut.pkl")


# Pictures and their matrices


def test_published_test_pipeline() -> None:
    """0.4, the lower 320 of 360 rows, then twice as high."""
    pictures, matrix = (
        [Image.new("RGB", (1600, 900), (200, 100, 50))] * 2,
        np.array([[1142.5, 0, 800], [0, 1142.5, 450], [0, 0, 1]]),
    )
    images, found = CameraPipeline(False)(pictures, np.stack([matrix] * 2))
    assert images.shape == (2, 3, 640, 640) and found.shape == (2, 4, 4)
    expected = [[457.0, 0, 320.0, 0], [0, 914.0, (180.0 - 40) * 2, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert torch.allclose(found[0], torch.tensor(expected, dtype=torch.float64))
    assert images[0, :, 300, 300].tolist() == pytest.approx(
        [(200 - 123.675) / 58.395, (100 - 116.28) / 57.12, (50 - 103.53) / 57.375]
    )


@pytest.mark.parametrize("seed", range(4))
def test_matrices_follow_the_pixels(seed: int) -> None:
    """A white spot is where the new intrinsics project the point that the old ones project to it."""
    torch.manual_seed(seed)
    pixels = np.zeros((90, 160, 3), np.uint8)
    pixels[60:64, 70:74] = 255
    matrix = np.array([[114.0, 0, 80], [0, 114.0, 45], [0, 0, 1]])
    images, found = CameraPipeline(True, distort=False, **MINI)([Image.fromarray(pixels)], matrix[None])
    bright = images[0].sum(0) - images[0].sum(0).min()
    rows, columns = torch.meshgrid(*[torch.arange(128) + 0.5] * 2, indexing="ij")
    spot = torch.stack([(bright * columns).sum(), (bright * rows).sum()]) / bright.sum()
    ray = np.linalg.inv(matrix) @ [72, 62, 1]
    place = found[0, :3, :3].numpy() @ ray
    assert spot.tolist() == pytest.approx(place[:2] / place[2], abs=0.15)


def test_odd_sizes_are_padded_to_32() -> None:
    pipeline = CameraPipeline(False, crop=(64, 128), final=(50, 100), mean=(0, 0, 0), std=(1, 1, 1))
    images, _ = pipeline([Image.new("RGB", (160, 90), (9, 9, 9))], np.eye(3)[None])
    assert images.shape == (1, 3, 64, 128)
    assert images[..., :50, :100].min() > 8.9 and images[..., 50:, :].max() == images[..., 100:].max() == 0


def test_colors_stay_colors() -> None:
    torch.manual_seed(0)
    image = torch.rand(3, 8, 8) * 255
    distorted = [distort_colors(image) for _ in range(20)]
    assert all(d.min() >= 0 and d.max() <= 255 and d.isfinite().all() for d in distorted)
    assert sum(not torch.allclose(d, image, atol=1e-2) for d in distorted) > 15


# Samples


def test_a_sample_says_where_its_boxes_are(root: Path) -> None:
    data = Bench2Drive(root, "train", CameraPipeline(False, **MINI))
    sample, info = data[1], data.infos[1]
    assert sample["images"].shape == (6, 3, 128, 128)
    boxes = sample["gt_boxes"][sample["gt_mask"]].double().numpy()
    seen = 0
    for camera, name in enumerate(CAMERAS):
        sensor = info["sensors"][name]
        old = np.linalg.inv(sensor["cam2ego"]) @ info["sensors"]["LIDAR_TOP"]["lidar2ego"]
        place, depth = project(boxes[:, :3], sample["lidar2img"][camera].double().numpy())
        expected = (
            sample["intrinsics"][camera].double().numpy() @ old @ np.append(boxes[:, :3], np.ones((len(boxes), 1)), 1).T
        ).T
        front = depth > 0
        assert np.allclose(place[front], expected[front, :2] / expected[front, 2:3], atol=0.05)
        seen += (front & (place > 0).all(1) & (place < 128).all(1)).sum()
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
    """Boxes without points, types that are not detected, places out of range; -1 (unknown) stays."""
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


def test_a_frame_without_boxes(root: Path, tmp_path: Path) -> None:
    none = {"gt_boxes": np.zeros((0, 9)), "gt_names": np.array([], str), "num_points": np.zeros(0, int)}
    assert not changed(root, tmp_path, **none)[0]["gt_mask"].any()


def test_the_nearest_are_kept_where_not_all_fit(root: Path) -> None:
    many, few = (Bench2Drive(root, "val", CameraPipeline(False, **MINI), max_boxes=k)[0] for k in (128, 4))
    distance = many["gt_boxes"][many["gt_mask"]][:, :2].norm(dim=1).sort().values
    assert few["gt_mask"].all() and len(distance) > 4
    assert few["gt_boxes"][:, :2].norm(dim=1).sort().values.tolist() == distance[:4].tolist()


def test_chance_is_torchs_alone(root: Path) -> None:
    """The key's seed decides; without training nothing is drawn."""
    train, val = (SeededDataset(Bench2Drive(root, "train", CameraPipeline(flag, **MINI))) for flag in (True, False))
    np.random.seed(0)
    first = train[(1, 5)]
    np.random.seed(1)
    assert all(torch.equal(first[k], train[(1, 5)][k]) for k in first)
    assert not torch.equal(first["images"], train[(1, 6)]["images"])
    assert torch.equal(val[(1, 5)]["images"], val[(1, 6)]["images"])


@pytest.mark.parametrize(
    ("type_id", "name"),
    [
        ("vehicle.lincoln.mkz_2020", "car"),
        ("/Game/Carla/Static/Car/4Wheeled/ParkedVehicles/TeslaM3/SM_TeslaM3_parked.SM_TeslaM3_parked", "car"),
        ("/Game/Carla/Static/Car/4Wheeled/ParkedVehicles/VolkswagenT2/SM_VolkswagenT2_2021_Parked.SM_X", "van"),
        ("vehicle.carlamotors.firetruck", "truck"),
        ("vehicle.gazelle.omafiets", "bicycle"),
        ("traffic.speed_limit.120", "traffic_sign"),
        ("static.prop.trafficwarning", "traffic_cone"),
        ("walker.pedestrian.0047", "pedestrian"),
        ("static.prop.dirtdebris02", "others"),
        ("van", "van"),  # upstream's loader writes class names back into its infos
    ],
)
def test_carla_types(type_id: str, name: str) -> None:
    assert CLASSES[class_of(type_id)] == name
    assert class_of("vehicle.nobody.knows") == -1


def test_map_lines_near_the_car() -> None:
    """A car at (100, 50) that looks along the world's x axis: what lies ahead has y > 0, to the left x < 0."""
    lidar2world = np.array([[0.0, 1, 0, 100], [-1, 0, 0, 50], [0, 0, 1, 1.8], [0, 0, 0, 1]])
    ahead = np.stack([np.arange(60.0, 300.0), np.full(240, 52.0), np.zeros(240)], 1)
    square = np.array([[110.0, 45, 0], [114, 45, 0], [114, 49, 0], [110, 49, 0]])
    content = {
        "lane_points": [ahead, ahead + 500, ahead, ahead[:1]],
        "lane_types": ["Solid", "Solid", "NONE", "Broken"],
        "lane_sample_points": [ahead[::50], ahead[::50] + 500, ahead[::50], ahead[:1]],
        "trigger_volumes_points": [square, square + np.array([38, 0, 0])],  # the second one reaches out of range
        "trigger_volumes_types": ["TrafficLight", "StopSign"],
        "trigger_volumes_sample_points": [square.mean(0)] * 2,
    }
    points, kinds = TownMap(content).near(np.linalg.inv(lidar2world), 51.2, 11)
    assert kinds.tolist() == [1, 4]
    assert np.allclose(points[0], np.stack([np.full(11, -2.0), np.linspace(-40, 51, 11)], 1))
    assert np.allclose(points[1, [0, -1]], [[5, 10], [5, 10]])  # closed
    assert np.abs(points[1] - [3, 12]).max() <= 2 + 1e-9


def test_wrong_places_are_named(root: Path, tmp_path: Path) -> None:
    pipeline = CameraPipeline(False, **MINI)
    assert len(Bench2Drive(root / "bench2drive", "val", pipeline)) == 2  # infos beside it
    with pytest.raises(ConfigError, match=r"data\.root: .* holds no bench2drive/v1"):
        Bench2Drive(tmp_path, "val", pipeline)
    with pytest.raises(ConfigError, match="Did you mean 'train'"):
        Bench2Drive(root, "trian", pipeline)
    with pytest.raises(ConfigError, match="lacks the towns Town99"):
        changed(root, tmp_path, town_name="Town99")


def test_some_cameras_in_a_chosen_order(root: Path) -> None:
    chosen = ["CAM_BACK", "CAM_FRONT"]
    pipeline = CameraPipeline(False, **MINI)
    some, all_ = Bench2Drive(root, "val", pipeline, cameras=chosen)[0], Bench2Drive(root, "val", pipeline)[0]
    for key in ("images", "lidar2img", "intrinsics"):
        assert torch.equal(some[key], all_[key][[3, 0]])
    with pytest.raises(ConfigError, match="CAM_FRONT"):
        Bench2Drive(root, "val", pipeline, cameras=["CAM_FRONTT"])


def test_frames_without_labels(root: Path) -> None:
    pipeline = CameraPipeline(False, **MINI)
    whole, rest = Bench2Drive(root, "train", pipeline), Bench2Drive(root, "train", pipeline, first=1, labeled=False)
    assert len(rest) == len(whole) - 1 and rest.token(0) == whole.token(1)
    assert torch.equal(rest[0]["images"], whole[1]["images"])
    assert whole[1]["labeled"] and whole[1]["gt_mask"].any() and whole[1]["line_mask"].any()
    assert not rest[0]["labeled"] and not rest[0]["gt_mask"].any() and not rest[0]["line_mask"].any()

"""The driving world as nuScenes tables: whole, consistent, and true to the points."""

import json
from pathlib import Path

import numpy as np
import pytest

from kd_runner.synthetic.driving.nuscenes_writer import TABLES, VERSION, write

SIZE = {"num_train_scenes": 2, "num_val_scenes": 1, "num_keyframes": 3, "channels": 8, "azimuths": 90}
LINKS = {
    "calibrated_sensor": {"sensor_token": "sensor"},
    "instance": {
        "category_token": "category",
        "first_annotation_token": "sample_annotation",
        "last_annotation_token": "sample_annotation",
    },
    "scene": {"log_token": "log", "first_sample_token": "sample", "last_sample_token": "sample"},
    "sample": {"scene_token": "scene", "prev": "sample", "next": "sample"},
    "sample_data": {
        "sample_token": "sample",
        "ego_pose_token": "ego_pose",
        "calibrated_sensor_token": "calibrated_sensor",
        "prev": "sample_data",
        "next": "sample_data",
    },
    "sample_annotation": {
        "sample_token": "sample",
        "instance_token": "instance",
        "visibility_token": "visibility",
        "prev": "sample_annotation",
        "next": "sample_annotation",
    },
}

Tables = dict[str, dict[str, dict]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("world") / "nuscenes", **SIZE)


@pytest.fixture(scope="module")
def tables(root: Path) -> Tables:
    rows_of = {name: json.loads((root / VERSION / f"{name}.json").read_text()) for name in TABLES}
    return {name: {row["token"]: row for row in rows} for name, rows in rows_of.items()}


def test_every_link_leads_somewhere(root: Path, tables: Tables) -> None:
    for name, links in LINKS.items():
        for row in tables[name].values():
            for column, target in links.items():
                assert row[column] in tables[target] or (row[column] == "" and column in ("prev", "next"))
                if row[column] and column == "next":
                    assert tables[name][row[column]]["prev"] == row["token"]
    attributes = {token for row in tables["sample_annotation"].values() for token in row["attribute_tokens"]}
    assert attributes <= set(tables["attribute"])
    (picture,) = tables["map"].values()
    assert set(picture["log_tokens"]) == set(tables["log"])
    assert (root / picture["filename"]).is_file()


def test_counts_of_rows(tables: Tables, root: Path) -> None:
    """3 scenes of 3 key frames, with two sweeps before each."""
    assert [len(tables[name]) for name in ("scene", "sample", "sample_data", "category")] == [3, 9, 27, 23]
    assert sum(row["is_key_frame"] for row in tables["sample_data"].values()) == 9
    assert all((root / row["filename"]).stat().st_size % 20 == 0 for row in tables["sample_data"].values())
    for row in tables["instance"].values():
        track = [a for a in tables["sample_annotation"].values() if a["instance_token"] == row["token"]]
        assert len(track) == row["nbr_annotations"]
        assert any(annotation["num_lidar_pts"] for annotation in track)


def test_every_key_frame_has_sweeps_before_it(tables: Tables) -> None:
    """Two, 0.17 s apart rounded to ticks of 0.1 s, the first key frame of a scene too."""
    data = tables["sample_data"]
    for row in data.values():
        if row["is_key_frame"]:
            before = data[row["prev"]], data[data[row["prev"]]["prev"]]
            assert not any(sweep["is_key_frame"] for sweep in before)
            lags = [(row["timestamp"] - sweep["timestamp"]) / 1e6 for sweep in before]
            assert lags == pytest.approx([0.2, 0.3])
    assert all(row["sample_token"] in tables["sample"] for row in data.values())


def test_points_in_boxes_are_counted(root: Path, tables: Tables) -> None:
    """Once more, with matrices from the tables and the corner-free test of each point."""
    data = {row["sample_token"]: row for row in tables["sample_data"].values() if row["is_key_frame"]}
    counted = 0
    for row in list(tables["sample_annotation"].values())[::5]:
        sweep = data[row["sample_token"]]
        points = np.fromfile(root / sweep["filename"], np.float32).reshape(-1, 5)[:, :3].astype(float)
        mount = tables["calibrated_sensor"][sweep["calibrated_sensor_token"]]
        for pose in (mount, tables["ego_pose"][sweep["ego_pose_token"]]):
            w, _, _, z = pose["rotation"]
            turn = np.array([[w * w - z * z, -2 * w * z, 0], [2 * w * z, w * w - z * z, 0], [0, 0, 1]])
            points = points @ turn.T + pose["translation"]
        w, _, _, z = row["rotation"]
        turn = np.array([[w * w - z * z, -2 * w * z, 0], [2 * w * z, w * w - z * z, 0], [0, 0, 1]])
        width, length, height = row["size"]
        inside = (np.abs((points - row["translation"]) @ turn) <= np.array([length, width, height]) / 2).all(1)
        assert inside.sum() == row["num_lidar_pts"]
        counted += row["num_lidar_pts"]
    assert counted > 100


def test_moving_attributes_belong_to_what_moves(tables: Tables) -> None:
    """What moved more than 0.2 m/s * 0.5 s between two annotations says so in both."""
    names = {token: row["name"] for token, row in tables["attribute"].items()}
    moving = {"vehicle.moving", "cycle.with_rider", "pedestrian.moving"}
    seen = set()
    for row in tables["sample_annotation"].values():
        if row["next"] and row["attribute_tokens"]:
            after = tables["sample_annotation"][row["next"]]
            moved = np.linalg.norm(np.subtract(after["translation"], row["translation"])) > 0.1
            assert moved == (names[row["attribute_tokens"][0]] in moving)
            seen.add(bool(moved))
    assert seen == {False, True}


def test_a_longer_list_begins_with_the_shorter_one(root: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "nuscenes", **{**SIZE, "num_train_scenes": 1})
    files = sorted(path.relative_to(other) for path in other.glob("s*/**/*.bin"))
    assert len(files) == 18
    assert all((other / path).read_bytes() == (root / path).read_bytes() for path in files)


def test_arguments_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sweeps_between=5: must be 0 to 4"):
        write(tmp_path / "a", sweeps_between=5)
    with pytest.raises(ValueError, match="num_keyframes=0: must be at least 1"):
        write(tmp_path / "a", num_keyframes=0)

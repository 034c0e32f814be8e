"""A small world, and tables by hand with poses that tilt."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kd_runner.synthetic.driving.nuscenes_writer import write

MOUNT = ([1.0, 0.2, 1.8], [0.7, 0.02, -0.01, -0.7])
POSES = [([400.0 + 3 * k, 1100.0 - k, 0.1 * k], [0.9, 0.01, 0.02 * k, 0.3 + 0.1 * k]) for k in range(4)]
TIMES = [1_000_000, 1_250_000, 1_500_000, 2_000_000]
"""Of sweeps: key frame, sweep, key frame, key frame."""


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training scenes and one for validation, of 3 key frames with 2 sweeps between."""
    size = {"num_train_scenes": 2, "num_val_scenes": 1, "num_keyframes": 3, "channels": 12, "azimuths": 180}
    return write(tmp_path_factory.mktemp("world") / "nuscenes", **size)


def annotation(name: str, sample: int, translation: list[float], **more: Any) -> dict[str, Any]:
    usual = {"instance_token": "car", "attribute_tokens": ["moving"], "prev": "", "next": "", "num_lidar_pts": 3}
    shape = {"translation": translation, "size": [2.0, 4.0, 1.5], "rotation": [0.8, 0.0, 0.0, 0.6], "num_radar_pts": 0}
    return {"token": name, "sample_token": f"sample{sample}", **usual, **shape, **more}


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """One scene of mini_val: sweeps 0 to 3, of which 1 is not a key frame; points 10 m around, distinct by sweep."""
    keys = [0, 2, 3]
    rows: dict[str, list[dict[str, Any]]] = {
        "category": [{"token": n, "name": n} for n in ("vehicle.car", "animal", "static_object.bicycle_rack")],
        "attribute": [{"token": "moving", "name": "vehicle.moving"}],
        "instance": [
            {"token": "car", "category_token": "vehicle.car"},
            {"token": "dog", "category_token": "animal"},
            {"token": "rack", "category_token": "static_object.bicycle_rack"},
        ],
        "sensor": [{"token": "lidar", "channel": "LIDAR_TOP"}, {"token": "cam", "channel": "CAM_FRONT"}],
        "calibrated_sensor": [
            {"token": name, "sensor_token": name, "translation": MOUNT[0], "rotation": MOUNT[1]}
            for name in ("lidar", "cam")
        ],
        "ego_pose": [{"token": f"pose{k}", "translation": t, "rotation": r} for k, (t, r) in enumerate(POSES)],
        "scene": [{"token": "scene", "name": "scene-0916"}, {"token": "other", "name": "scene-0061"}],
        "sample": [
            {"token": f"sample{row}", "timestamp": TIMES[k], "scene_token": "scene"} for row, k in enumerate(keys)
        ],
        "sample_data": [
            {
                "token": f"sweep{k}",
                "sample_token": f"sample{[0, 1, 1, 2][k]}",
                "ego_pose_token": f"pose{k}",
                "calibrated_sensor_token": "lidar",
                "timestamp": TIMES[k],
                "is_key_frame": k in keys,
                "filename": f"{k}.pcd.bin",
                "prev": f"sweep{k - 1}" if k else "",
                "next": f"sweep{k + 1}" if k < 3 else "",
            }
            for k in range(4)
        ],
        "sample_annotation": [
            annotation("a", 0, [410.0, 1105.0, 1.0], next="b"),
            annotation("b", 1, [411.0, 1105.5, 1.0], prev="a", next="c"),
            annotation("c", 2, [413.0, 1106.0, 1.0], prev="b"),
            annotation("d", 1, [420.0, 1090.0, 1.0], num_lidar_pts=0),
            annotation("e", 1, [400.0, 1090.0, 1.0], num_lidar_pts=0, num_radar_pts=2, attribute_tokens=[]),
            annotation("f", 1, [405.0, 1090.0, 1.0], instance_token="dog"),
            annotation("g", 1, [395.0, 1095.0, 1.0], instance_token="rack", attribute_tokens=[]),
        ],
    }
    folder = tmp_path / "v1.0-mini"
    folder.mkdir()
    for name, content in rows.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    for k in range(4):
        around = [[10.0, k, 1.0, 7.0, 3.0], [0.5, 0.5, -1.0, 8.0, 4.0], [0.5, -6.0, 0.0, 9.0, 5.0]]
        np.array(around, np.float32).tofile(tmp_path / f"{k}.pcd.bin")
    return tmp_path

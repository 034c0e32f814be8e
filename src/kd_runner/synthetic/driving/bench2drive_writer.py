"""The driving world in the on-disk layout of Bench2Drive (base set, infos as Bench2DriveZoo prepares them).

    bench2drive/v1/<clip>/camera/rgb_*/00000.jpg      six folders of pictures
    infos/b2d_infos_{train,val}.pkl                   a list of frames, each a dict
    infos/b2d_map_infos.pkl                           town to lines and volumes
    splits/bench2drive_base_train_val_split.json      clips of the two lists

Not written, for nothing here reads them: anno/, depth, semantic, instance, radar, LiDAR, expert_assessment, HD maps.
"""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from kd_runner.geometry.boxes3d import to_bench2drive
from kd_runner.synthetic.driving.cameras import RIG, lidar2ego
from kd_runner.synthetic.driving.raster import render
from kd_runner.synthetic.driving.road import Array
from kd_runner.synthetic.driving.scene import EGO_SIZE, Scene, make_scene
from kd_runner.synthetic.driving.toy_colors import in_toy_colors
from kd_runner.synthetic.writing import Arguments, sample_random, write_checked

Info = dict[str, Any]
"""What Bench2DriveZoo stores of one frame."""

# Raised whenever the same arguments would give other files.
FORMAT = 1

_SPLITS = {"train": 0, "val": 1}
_TOWNS = {"train": ("Town01", "Town03", "Town05", "Town07"), "val": ("Town02", "Town10")}
_SPACING_M = 1000.0  # between the scenes of a town: none sees another
_MAX_DISTANCE_M, _MAX_RISE_M = 75.0, 10.0  # boxes farther than this are not annotated
_LANE_SAMPLE = 50  # every so many points of a line one is kept for the search of lines near the car


def write(
    root: str | Path,
    *,
    num_train: int = 60,
    num_val: int = 20,
    num_frames: int = 4,
    frame_stride: int = 5,
    width: int = 160,
    height: int = 90,
    min_pixels: int = 6,
    jpeg_quality: int = 92,
    toy_colors: bool = False,
    seed: int = 0,
) -> Path:
    """Write clips below `root` once and return it; a complete data set of the same arguments is used as it is.

    Clip k of a list depends on k, the list and the arguments other than the counts: a longer list begins with the
    shorter one. Train and val share no town.

    Args:
        root: a new or empty folder.
        num_train: clips of the list.
        num_val: likewise.
        num_frames: frames of a clip. The published full targets (2 past and
            6 future positions at 0.5 s) need `num_frames >= 41` at stride 1.
        frame_stride: ticks of 10 Hz from one frame of a clip to the next.
        width: of the pictures; 1600 x 900 as published.
        height: likewise.
        min_pixels: an object that fewer pixels of the six pictures show gets num_points 0 (nothing seen), others -1
            (unknown), as Bench2Drive has it. An object that no pixel shows is not annotated at all.
        jpeg_quality: 20 as published, which leaves nothing of small pictures.
        toy_colors: paint every class in a color of its own (`toy_colors.in_toy_colors`).
        seed: seed of all clips.

    Returns:
        `root`.

    Raises:
        ValueError: an argument is out of range.
        ConfigError: `root` holds anything else.
    """
    arguments = {
        "format": FORMAT,
        "num_train": num_train,
        "num_val": num_val,
        "num_frames": num_frames,
        "frame_stride": frame_stride,
        "width": width,
        "height": height,
        "min_pixels": min_pixels,
        "jpeg_quality": jpeg_quality,
        "toy_colors": toy_colors,
        "seed": seed,
    }
    lowest = {"num_train": 1, "num_val": 1, "num_frames": 1, "frame_stride": 1, "width": 32, "height": 18}
    return write_checked(root, arguments, lowest, _fill)


def _fill(folder: Path, arguments: Arguments) -> None:
    (folder / "infos").mkdir()
    (folder / "splits").mkdir()
    maps: dict[str, dict[str, list[Any]]] = {}
    lists: dict[str, list[str]] = {}
    frames = [i * arguments["frame_stride"] for i in range(arguments["num_frames"])]
    for split, code in _SPLITS.items():
        infos, lists[split] = [], []
        towns = _TOWNS[split]
        for k in range(arguments[f"num_{split}"]):
            random = sample_random(arguments["seed"], code, k)
            origin = (_SPACING_M * (k // len(towns)), 0.0)
            scene = make_scene(random=random, route=k, town=towns[k % len(towns)], origin=origin, frames=frames)
            scene = in_toy_colors(scene) if arguments["toy_colors"] else scene
            infos += _write_clip(folder / "bench2drive", scene, arguments, random)
            lists[split].append(f"v1/{scene.name}")
            _add_map(maps.setdefault(scene.town, _empty_map()), scene)
        _dump(infos, folder / "infos" / f"b2d_infos_{split}.pkl")
    _dump(maps, folder / "infos" / "b2d_map_infos.pkl")
    (folder / "splits" / "bench2drive_base_train_val_split.json").write_text(json.dumps(lists, indent=1) + "\n")


def _write_clip(root: Path, scene: Scene, arguments: Arguments, random: np.random.Generator) -> list[Info]:
    """Pictures of a clip, and its infos; a frame without boxes has none, as upstream."""
    infos = []
    for camera in RIG:
        (root / "v1" / scene.name / "camera" / camera.folder).mkdir(parents=True)
    for frame, number in enumerate(scene.frames):
        pixels = np.zeros(len(scene.names), int)
        for camera in RIG:
            size = {"width": arguments["width"], "height": arguments["height"]}
            picture = render(scene, frame, camera, **size, random=random)
            path = root / "v1" / scene.name / "camera" / camera.folder / f"{number:05d}.jpg"
            Image.fromarray(picture.image).save(path, quality=arguments["jpeg_quality"], subsampling=0)
            pixels += np.bincount(picture.ids[picture.ids >= 0], minlength=len(pixels))
        info = frame_info(scene, frame, pixels, arguments["width"], arguments["height"], arguments["min_pixels"])
        if len(info["gt_names"]):
            infos.append(info)
    return infos


def frame_info(scene: Scene, frame: int, pixels: Array, width: int, height: int, min_pixels: int) -> Info:
    """One entry of the info pickle, with Bench2DriveZoo's keys and conventions.

    Args:
        scene: the clip.
        frame: its number in the clip.
        pixels: how many pixels of the six pictures show each object (N,).
        width: of the pictures.
        height: of the pictures.
        min_pixels: objects with fewer pixels get num_points 0, others -1.

    Returns:
        The entry.
    """
    ego2world = scene.ego2world[frame]
    world2ego = np.linalg.inv(ego2world)
    lidar2world = ego2world @ lidar2ego()
    world2lidar = np.linalg.inv(lidar2world)
    folder, number = f"v1/{scene.name}", int(scene.frames[frame])
    sensors: dict[str, dict[str, Any]] = {}
    for camera in RIG:
        sensors[camera.name] = {
            "cam2ego": camera.cam2ego(),
            "intrinsic": camera.intrinsic(width, height),
            "world2cam": np.linalg.inv(ego2world @ camera.cam2ego()),
            "data_path": f"{folder}/camera/{camera.folder}/{number:05d}.jpg",
        }
    sensors["LIDAR_TOP"] = {"lidar2ego": lidar2ego(), "world2lidar": world2lidar}
    boxes, keep = gt_boxes(scene, frame, world2lidar), pixels > 0
    keep &= (np.hypot(boxes[:, 0], boxes[:, 1]) <= _MAX_DISTANCE_M) & (np.abs(boxes[:, 2]) <= _MAX_RISE_M)
    speed, ahead = float(scene.ego_speed[frame]), lidar2world[:2, 3] + 20.0 * ego2world[:2, 0]
    return {
        "folder": folder,
        "town_name": scene.town,
        "frame_idx": number,
        "ego_yaw": float(np.arctan2(ego2world[1, 0], ego2world[0, 0])),
        "ego_translation": np.array([*ego2world[:2, 3], 0.0]),
        "ego_vel": np.array([speed, 0.0, 0.0]),
        "ego_accel": scene.ego_accel[frame],
        "ego_rotation_rate": np.array([0.0, 0.0, scene.ego_yaw_rate[frame]]),
        "ego_size": np.array([EGO_SIZE[1], EGO_SIZE[0], EGO_SIZE[2]]),
        "world2ego": world2ego,
        "command_near": 4,  # follow the lane
        "command_far": 4,
        "command_near_xy": ahead,
        "command_far_xy": ahead,
        "brake": False,
        "throttle": 0.3,
        "steer": 0.0,
        "sensors": sensors,
        "gt_ids": scene.ids[keep],
        "gt_boxes": boxes[keep],
        "gt_names": np.array(scene.type_ids)[keep],
        "num_points": np.where(pixels[keep] < min_pixels, 0, -1),
        "npc2world": _npc2world(scene, frame)[keep],
    }


def gt_boxes(scene: Scene, frame: int, world2lidar: Array) -> Array:
    """Boxes in the LiDAR frame and in Bench2Drive's convention. The velocity is the object's own over ground.

    Args:
        scene: the clip.
        frame: its number in the clip.
        world2lidar: (4, 4).

    Returns:
        (N, 9).
    """
    objects = scene.objects
    centers = objects.centers[frame] @ world2lidar[:3, :3].T + world2lidar[:3, 3]
    heading = objects.yaws[frame] + np.arctan2(world2lidar[1, 0], world2lidar[0, 0])
    velocities = scene.velocities[frame] @ world2lidar[:2, :2].T
    boxes = np.concatenate([centers, objects.sizes, heading[:, None], velocities], 1)
    return to_bench2drive(torch.from_numpy(boxes)).numpy()


def _npc2world(scene: Scene, frame: int) -> Array:
    """Poses (N, 4, 4) of the objects, whose origin is on their lower side, as an actor's in CARLA."""
    objects = scene.objects
    poses = np.tile(np.eye(4), (len(objects.sizes), 1, 1))
    c, v = np.cos(objects.yaws[frame]), np.sin(objects.yaws[frame])
    poses[:, 0, 0], poses[:, 0, 1], poses[:, 1, 0], poses[:, 1, 1] = c, -v, v, c
    poses[:, :3, 3] = objects.centers[frame] - [0, 0, 0.5] * objects.sizes[:, 2:]
    return poses


def _empty_map() -> dict[str, list[Any]]:
    names = ("lane_points", "lane_types", "lane_sample_points")
    volumes = ("trigger_volumes_points", "trigger_volumes_types", "trigger_volumes_sample_points")
    return {name: [] for name in (*names, *volumes)}


def _add_map(town: dict[str, list[Any]], scene: Scene) -> None:
    for road in scene.roads:
        for kind, points in road.map_lines():
            chosen = sorted({*range(0, len(points), _LANE_SAMPLE), len(points) - 1})
            town["lane_points"].append(points)
            town["lane_types"].append(kind)
            town["lane_sample_points"].append(points[chosen])
        for kind, points in road.map_volumes():
            town["trigger_volumes_points"].append(points)
            town["trigger_volumes_types"].append(kind)
            town["trigger_volumes_sample_points"].append(points.mean(0))


def _dump(content: Any, path: Path) -> None:
    with path.open("wb") as file:
        pickle.dump(content, file, protocol=4)

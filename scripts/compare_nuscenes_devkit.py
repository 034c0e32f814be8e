"""Our nuScenes reader and metric beside the official ones, on the same data and detections.

    python scripts/compare_nuscenes_devkit.py [--cache FOLDER]

Writes the driving world in nuScenes' layout and makes it harder than it is: car and LiDAR tilted, all ten classes,
bicycle racks, objects seen once. Detections are its objects with noise. The devkit (1.2.0, about 560 MB) is installed
into an environment of its own below the cache folder, once. Fails where any figure differs by more than 1e-4.
"""

import argparse
import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

DEVKIT = "nuscenes-devkit==1.2.0"
VERSION, SPLIT = "v1.0-mini", "world_val"
NUM_SWEEPS = 3
TOLERANCE = 1e-4
ERRORS = {"ate": "trans_err", "ase": "scale_err", "aoe": "orient_err", "ave": "vel_err", "aae": "attr_err"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "kd_runner" / "nuscenes_devkit")
    parser.add_argument("--official", nargs=2, type=Path, metavar=("ROOT", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.official:  # in the devkit's environment
        official(*arguments.official)
        return 0
    cache = arguments.cache
    work = cache / "work"
    shutil.rmtree(work, ignore_errors=True)
    python = environment(cache / "env")
    computed = measure(work)
    command = [python, __file__, "--official", work, work / "official.json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=cache)
    official_values = json.loads((work / "official.json").read_text())
    for name, value in official_values.items():
        print(f"{name:28} devkit {value:.6f}  kd_runner {computed[name]:.6f}")
    largest = max(abs(official_values[name] - computed[name]) for name in official_values)
    print(f"{len(official_values)} figures, largest difference {largest:.1e}")
    farthest = reading(work)
    print(f"points with sweeps, largest difference {farthest:.1e}")
    return int(not max(largest, farthest) <= TOLERANCE)


def environment(folder: Path) -> Path:
    """The Python of an environment with the devkit, made where it is not there."""
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", DEVKIT], check=True)
        (folder / "complete").touch()
    return python


def official(root: Path, out: Path) -> None:
    """Evaluate root/result.json with the devkit."""
    import numpy as np
    from nuscenes import NuScenes
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval
    from nuscenes.utils.data_classes import LidarPointCloud

    nusc, config = NuScenes(VERSION, str(root), verbose=False), config_factory("detection_cvpr_2019")
    evaluation = DetectionEval(nusc, config, str(root / "result.json"), SPLIT, str(root / "plots"), verbose=False)
    result = evaluation.evaluate()[0].serialize()
    values = {"nds": result["nd_score"], "map": result["mean_ap"]}
    values |= {f"m{short}": result["tp_errors"][long] for short, long in ERRORS.items()}
    values |= {f"ap/{name}": value for name, value in result["mean_dist_aps"].items()}
    for short, long in ERRORS.items():
        values |= {f"{short}/{name}": errors[long] for name, errors in result["label_tp_errors"].items()}
    out.write_text(json.dumps({name: value for name, value in values.items() if value == value}))
    channels = ("LIDAR_TOP", "LIDAR_TOP")
    clouds = {
        sample["token"]: LidarPointCloud.from_file_multisweep(nusc, sample, *channels, nsweeps=NUM_SWEEPS + 1)
        for sample in nusc.sample
    }
    np.savez(root / "points.npz", **{token: np.concatenate([c.points, lags]).T for token, (c, lags) in clouds.items()})


def reading(root: Path) -> float:
    """Largest difference between the points read here (x, y, z, intensity, lag) and the devkit's.

    The devkit drops those near the sensor from the key frame, too. Infinite where the numbers of points differ.
    """
    import numpy as np

    from kd_runner.data.nuscenes.dataset import NuScenesLidar

    dataset, largest = NuScenesLidar(root, VERSION, SPLIT, num_sweeps=NUM_SWEEPS), 0.0
    with np.load(root / "points.npz") as official_points:
        for index, frame in enumerate(dataset.frames):
            if frame.history:  # without, the rows are padded
                points = dataset.load(index).points.numpy()
                points = points[(points[:, 4] > 0) | (np.abs(points[:, :2]) >= 1).any(1)]
                expected = official_points[frame.token]
                same = expected.shape == points.shape
                largest = max(largest, float(np.abs(points - expected).max()) if same else float("inf"))
    return largest


def measure(root: Path) -> dict[str, float]:
    """Write data and detections below `root`, and measure them with our metric."""
    import torch
    from torch.utils.data import DataLoader

    from kd_runner.data.nuscenes.dataset import NuScenesLidar
    from kd_runner.data.order import SeededDataset
    from kd_runner.export.nuscenes_submission import NuScenesSubmission
    from kd_runner.metrics.nuscenes_benchmark import NuScenesBenchmark
    from kd_runner.synthetic.driving.nuscenes_writer import write

    write(root, num_train_scenes=1, num_val_scenes=12, num_keyframes=4, sweeps_between=2)
    harden(root / VERSION)
    dataset = NuScenesLidar(root, VERSION, SPLIT, num_sweeps=0, max_points=20_000)
    metric = NuScenesBenchmark()
    submission = NuScenesSubmission([dataset.token(i) for i in range(len(dataset))])
    generator = torch.Generator().manual_seed(0)
    for batch in DataLoader(SeededDataset(dataset), batch_size=8):
        predictions = detections(batch, generator)
        truth = {name: batch[name] for name in ("gt_boxes", "gt_labels", "gt_mask", "gt_velocity_mask")}
        truth |= {name: batch[name] for name in ("gt_attributes", "lidar2local", "racks", "index")}
        metric.update(**predictions, **truth)
        submission.add(**predictions, **{name: batch[name] for name in ("lidar2local", "lidar2global", "index")})
    submission.write(root / "result.json")
    return {name: value.item() for name, value in metric.compute().items()}


def detections(batch: dict[str, Any], generator: Any) -> dict[str, Any]:
    """Each object twice with noise, some of another class, some lost, some invented, 45 at random."""
    import torch

    true = batch["gt_boxes"].repeat(1, 2, 1)
    labels, mask = batch["gt_labels"].repeat(1, 2), batch["gt_mask"].repeat(1, 2)
    noise = torch.randn(true.shape, generator=generator)
    scale = torch.tensor([0.5, 0.5, 0.2, 0.1, 0.1, 0.1, 0.4, 0.5, 0.5])
    scale = scale * (1 + 2 * (torch.arange(true.shape[1]) >= true.shape[1] // 2))[None, :, None]
    boxes = true + noise * scale
    boxes[..., 3:6] = true[..., 3:6] * (0.1 * noise[..., 3:6]).exp()
    draw = torch.rand(labels.shape, generator=generator)
    anything = torch.randint(0, 10, labels.shape, generator=generator)
    labels = torch.where(draw < 0.1, anything, labels)
    labels = torch.where(mask & (draw < 0.85), labels, -1)
    # Of what is padding in truth, some become detections anywhere.
    invented = ~mask & (draw < 0.1)
    boxes[invented] = torch.randn(int(invented.sum()), 9, generator=generator) * 15
    boxes[..., 3:6] = torch.where(invented[..., None], boxes[..., 3:6].abs() + 0.3, boxes[..., 3:6])
    labels = torch.where(invented, anything, labels)
    closeness = -torch.linalg.vector_norm(noise[..., :2] * scale[..., :2], dim=-1)
    scores = torch.sigmoid(closeness + torch.randn(labels.shape, generator=generator))
    return {"boxes": boxes, "scores": scores, "labels": labels}


def harden(folder: Path) -> None:
    """Change the tables: tilts of a degree or two, trailers and construction vehicles, racks, short tracks."""
    import numpy as np

    random = np.random.default_rng(0)
    tables = {name: json.loads((folder / f"{name}.json").read_text()) for name in
              ("category", "instance", "sample_annotation", "ego_pose", "calibrated_sensor")}  # fmt: skip
    for name in ("ego_pose", "calibrated_sensor"):
        for row in tables[name]:
            row["rotation"] = _tilted(row["rotation"], random.normal(0, 0.015, 2))
    category = {row["name"]: row["token"] for row in tables["category"]}
    for row in tables["instance"]:
        if row["category_token"] == category["vehicle.truck"]:
            names = ("vehicle.truck", "vehicle.trailer", "vehicle.construction")
            row["category_token"] = category[names[int(random.integers(3))]]
    kinds = {row["token"]: row["category_token"] for row in tables["instance"]}
    racks = []
    for number, row in enumerate(tables["sample_annotation"]):
        two_wheels = kinds[row["instance_token"]] in (category["vehicle.bicycle"], category["vehicle.motorcycle"])
        if two_wheels and random.random() < 0.15:
            links = {"token": f"rack{number}", "instance_token": f"rack{number}", "prev": "", "next": ""}
            racks.append({**row, **links, "size": [3.0, 3.0, 3.0], "attribute_tokens": []})
            first = {"nbr_annotations": 1, "first_annotation_token": f"rack{number}"}
            rack = {"token": f"rack{number}", "category_token": category["static_object.bicycle_rack"], **first}
            tables["instance"].append({**rack, "last_annotation_token": f"rack{number}"})
        elif random.random() < 0.05:
            row["prev"] = row["next"] = ""  # its velocity is unknown
    tables["sample_annotation"] += racks
    for name, rows in tables.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))


def _tilted(quaternion: list[float], angles: Any) -> list[float]:
    """A quaternion (w, x, y, z) after small turns about x and y."""
    w, x, y, z = quaternion
    a, b = (float(angle) / 2 for angle in angles)
    return [w - x * a - y * b, x + w * a - z * b, y + w * b + z * a, z + x * b - y * a]


if __name__ == "__main__":
    sys.exit(main())

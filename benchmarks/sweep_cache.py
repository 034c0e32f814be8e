"""What the teacher cache saves in a sweep: nine points (temperature x alpha) of voc_kd mini, without it and with it.

    .venv/bin/python benchmarks/sweep_cache.py --json sweep.json                          # 2 x 9 points of 700 steps
    .venv/bin/python benchmarks/sweep_cache.py --steps 20 --temperatures 1 4 --alphas 0.5    # to see that it works

Both sweeps are the command that a user types, one point after the other, each in a fresh folder; the data are written
before the clock runs. The cached one shows every sample in `--views` fixed random views, which is what makes keeping
possible with random transforms; the other one draws anew every time. So their metrics are of two augmentations.
"samples asked for" is how many samples the teacher was shown while training; with the cache it holds the four an epoch
that are asked for again, to see whether what is stored still holds.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def kd_runner(*words: str) -> float:
    """Wall seconds of one command."""
    environment = {**os.environ, "GOMP_SPINCOUNT": "0", "OMP_WAIT_POLICY": "PASSIVE"}
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "kd_runner", *words], check=True, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def sweep(folder: Path, words: list[str]) -> dict[str, Any]:
    """Wall seconds, those of training, samples that the teacher was asked for, every point's result."""
    seconds = kd_runner(*words, "export=none", "callbacks=[checkpoints]", f"hydra.sweep.dir={folder}", "-m")
    points = [json.loads(p.read_text()) for p in sorted(folder.glob("*/metrics.json"))]
    asked = sum(_asked(point) for point in points)
    return {"seconds": seconds, "training": sum(p["seconds"] for p in points), "asked": asked, "points": points}


def _asked(point: dict[str, Any]) -> int:
    counts = point.get("teacher_cache", {"computed": 16 * point["steps"], "checked": 0})
    return counts["computed"] + counts["checked"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, help="of each point (default: the experiment's own 700)")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1, 2, 4])
    parser.add_argument("--alphas", type=float, nargs="+", default=[0.5, 0.7, 0.9])
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--json", type=Path, help="write the figures of every point")
    args = parser.parse_args()
    grid = {"kd.temperature": args.temperatures, "kd.alpha": args.alphas}
    varied = [f"{key}={','.join(map(str, values))}" for key, values in grid.items()]
    with tempfile.TemporaryDirectory() as root:
        words = [f"cache={root}/cache", "experiment=voc_kd"]
        words += ["trainer.max_epochs=1", f"data.steps_per_epoch={args.steps}"] if args.steps else []
        kd_runner(*words, "task=check")  # writes the data
        cached = ["kd.teacher_cache.enabled=true", f"kd.teacher_cache.views={args.views}"]
        result = {
            "without": sweep(Path(root) / "without", [*words, *varied, "kd.teacher_cache.enabled=false"]),
            "with": sweep(Path(root) / "with", [*words, *varied, *cached]),
        }
        disk = sum(p.stat().st_blocks * 512 for p in Path(root, "cache", "teacher_outputs").rglob("*.npy"))
    first = result["with"]["points"][0]
    print(f"{len(result['with']['points'])} points of {first['steps']} steps; {args.views} views\n")
    print("| teacher cache | wall, s | in training, s | samples asked for | mIoU, mean of the points |")
    print("|---|---:|---:|---:|---:|")
    for name, sweep_result in result.items():
        score = sum(p["score"] for p in sweep_result["points"]) / len(sweep_result["points"])
        seconds, training, asked = (sweep_result[key] for key in ("seconds", "training", "asked"))
        print(f"| {name} | {seconds:.0f} | {training:.0f} | {asked:,} | {score:.3f} |")
    ratios = [f"{key} {result['with'][key] / result['without'][key]:.3f}" for key in ("seconds", "training", "asked")]
    print(f"\nWith it over without: {', '.join(ratios)}. On disk: {disk / 1e9:.2f} GB.")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

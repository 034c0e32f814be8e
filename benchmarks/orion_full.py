"""One training step of `experiment=orion_kd scale=full`: EVA-ViT-L at 640 x 640, pruned, distilled, under full heads.

    .venv/bin/python benchmarks/orion_full.py --cameras 1

Writes, below --folder, a few frames at 1600 x 900 and a random teacher in the public layout (1.3 GB), then runs
`python -m kd_runner` for one step as a process of its own, and prints its time and its peak of resident memory. Heads
are chosen by magnitude: scores that need gradients pass the whole net a few times more.
"""

import argparse
from pathlib import Path

import one_step
import torch

from kd_runner.data.bench2drive.classes import CAMERAS
from kd_runner.models.orion.detector import Orion
from kd_runner.models.orion.eva_vit import EvaViT
from kd_runner.synthetic.driving import bench2drive_writer


def main() -> None:
    arguments = parser().parse_args()
    folder = Path(arguments.folder)
    bench2drive_writer.write(folder / "data", num_train=2, num_val=1, num_frames=1, width=1600, height=900)
    weights = folder / "Orion.pth"
    if not weights.exists():
        torch.manual_seed(0)
        torch.save({"state_dict": Orion(EvaViT()).state_dict()}, weights)
    words = [
        "experiment=orion_kd", "scale=full", f"data.root={folder / 'data'}", f"teacher.checkpoint={weights}",
        f"data.cameras=[{','.join(CAMERAS[: arguments.cameras])}]", "data.batch_size=1", "data.val_batch_size=1",
        f"pruning={arguments.pruning}", "pruning/score=magnitude", "+trainer.max_steps=1",
        "+trainer.limit_val_batches=1", *arguments.words,
    ]  # fmt: skip
    print(f"{arguments.cameras} cameras: {one_step.run(folder, words)}")


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--cameras", type=int, default=1, choices=range(1, 7))
    words.add_argument("--pruning", default="heads_50")
    words.add_argument("--folder", default="/tmp/orion_full")
    words.add_argument("words", nargs="*", help="further words for kd_runner")
    return words


if __name__ == "__main__":
    main()

"""One training step of `experiment=hierarchical_unet_kd scale=full`: EfficientNet-B3 to B0 at 640 x 640.

    .venv/bin/python benchmarks/unet_full.py

Writes, below --folder, a few drawn scenes of that size and a random teacher (108 MB), then runs `python -m kd_runner`
for one step as a process of its own, and prints its time and its peak of resident memory.
"""

import argparse
from pathlib import Path

import one_step
import torch
from safetensors.torch import save_file

from kd_runner.models.hierarchical_unet.system import HierarchicalUNet
from kd_runner.synthetic import mini_coco


def main() -> None:
    arguments = parser().parse_args()
    folder = Path(arguments.folder)
    data = mini_coco.write(folder / "data", num_train=2, num_val=2, num_unlabeled=0, size=640)
    weights = folder / "teacher.safetensors"
    if not weights.exists():
        torch.manual_seed(0)
        save_file(HierarchicalUNet("timm-efficientnet-b3", mask_size=(160, 120)).state_dict(), weights)
    words = [
        "experiment=hierarchical_unet_kd", "scale=full", f"data.root={data}", f"teacher.checkpoint={weights}",
        "student.pretrained=null", "data.steps_per_epoch=1", "trainer.max_epochs=1",
    ]  # fmt: skip
    for split in ("train", "val"):
        words += [f"data.{split}.images={split}", f"data.{split}.annotations=annotations/instances_{split}.json"]
    print(one_step.run(folder, [*words, *arguments.words]))


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--folder", default="/tmp/unet_full")
    words.add_argument("words", nargs="*", help="further words for kd_runner")
    return words


if __name__ == "__main__":
    main()

"""One training step of the full-size nets on one sweep of nuScenes' size, timed stage by stage.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/bevfusion_full.py --voxels 60000

Points are a made-up spinning LiDAR's: ground, and walls here and there, until so many voxels are occupied. Prints
seconds of each stage, of a whole step (forward, loss, backward, AdamW), and the peak of resident memory. They are CPU
seconds: with one thread, those of an idle machine.
"""

import argparse
import itertools
import resource
import time

import torch
from torch import Tensor

from kd_runner.losses.transfusion import TransFusionLoss
from kd_runner.models.bevfusion import BEVFusionLidar

NETS = {
    "teacher": {},
    "student": {"second_channels": (64, 128), "fpn_channels": (128, 128)},
    "student, half encoder": {
        "second_channels": (64, 128),
        "fpn_channels": (128, 128),
        "encoder_channels": (8, 16, 32, 64),
    },
}


def cloud(voxels: int, seed: int = 0) -> Tensor:
    """Points (1, P, 5) that occupy about so many voxels of 0.075 x 0.075 x 0.2 m."""
    noise = torch.Generator().manual_seed(seed)
    count = round(1.06 * voxels)
    angle = torch.rand(count, generator=noise) * 2 * torch.pi
    distance = 2 + 50 * torch.rand(count, generator=noise) ** 1.5
    wall = torch.sin(9 * angle) > 0.6
    distance = torch.where(wall, 10 + 30 * torch.sin(2 * angle).abs() + 0.1 * distance, distance)
    height = torch.where(wall, 3 * torch.rand(count, generator=noise) - 1.8, torch.tensor(-1.8))
    height = height + 0.03 * torch.randn(count, generator=noise)
    rest = torch.rand(count, 2, generator=noise) * torch.tensor([255.0, 0.45])
    return torch.cat([torch.stack([distance * angle.cos(), distance * angle.sin(), height], 1), rest], 1)[None]


def objects(count: int = 30) -> dict[str, Tensor]:
    noise = torch.Generator().manual_seed(1)
    boxes = torch.zeros(1, count, 9)
    boxes[..., :2] = 80 * torch.rand(1, count, 2, generator=noise) - 40
    boxes[..., 3:6] = torch.tensor([4.5, 1.9, 1.6])
    labels = torch.randint(10, (1, count), generator=noise)
    return {"gt_boxes": boxes, "gt_labels": labels, "gt_mask": torch.ones(1, count, dtype=torch.bool)}


def step(net: BEVFusionLidar, points: Tensor) -> dict[str, float]:
    """CPU seconds of each stage."""
    loss, optimizer = TransFusionLoss(), torch.optim.AdamW(net.parameters(), 1e-4)
    truth, marks = objects(), [time.process_time()]

    def mark() -> None:
        marks.append(time.process_time())

    voxels = net.pts_voxel_layer(points, torch.tensor([points.shape[1]]))
    mark()
    bev = net.pts_middle_encoder(voxels, 1)
    mark()
    feature = net.pts_neck(net.pts_backbone(bev))[0]
    mark()
    out = net.bbox_head(feature)
    mark()
    value = loss(out["heatmap"], out["codes"], out["cls_logits"], **truth)
    mark()
    value.backward()
    mark()
    optimizer.step()
    mark()
    names = ("voxels", "sparse encoder", "SECOND and pyramid", "head", "loss", "backward", "AdamW")
    seconds = dict(zip(names, (b - a for a, b in itertools.pairwise(marks))))
    return {"occupied voxels": len(voxels.features), **seconds, "whole step": marks[-1] - marks[0]}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--voxels", type=int, default=60_000)
    words.add_argument("--net", choices=list(NETS), default="teacher")
    arguments = words.parse_args()
    torch.manual_seed(0)
    net = BEVFusionLidar(**NETS[arguments.net])
    parameters = sum(p.numel() for p in net.parameters())
    print(f"{arguments.net}: {parameters:,} parameters, {torch.get_num_threads()} threads")
    for name, value in step(net, cloud(arguments.voxels)).items():
        print(f"{name:>20}: {value:,.2f}")
    print(f"{'peak GiB':>20}: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f}")


if __name__ == "__main__":
    main()

"""Folders as runs leave them, without the running."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from kd_runner.runtime.files import write_json, write_text

LABELS = ("background", "person", "bicycle")
Leave = Callable[..., Path]


def config(seed: int, **changes: Any) -> dict[str, Any]:
    """Settings, with `a__b=value` for `a.b`."""
    cfg = OmegaConf.create(
        {
            "task": {"_target_": "kd_runner.tasks.train.train"},
            "kd": {"enabled": True, "temperature": 4.0, "alpha": None},
            "teacher": {"net": {"width": 20}},
            "student": {"net": {"width_mult": 0.5}},
            "data": {"train": {"crop": 96}, "val": {"size": 96}, "unlabeled": None},
            "loss": {
                "ce": {"inputs": {"logits": "student.logits"}},
                "kl": {"inputs": {"teacher": "teacher.logits"}, "fn": {"seed": seed}},
            },  # follows the run's
            "seed": seed,
            "monitor": "miou",
        }
    )
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value, merge=False)
    return OmegaConf.to_container(cfg)  # type: ignore[return-value]


def metrics(score: float) -> dict[str, float]:
    return {"miou": score, "pixel_accuracy": (1 + score) / 2} | {
        f"iou/{n}": score * (1 - i / 9) for i, n in enumerate(LABELS)
    }


def write_config(folder: Path, cfg: dict[str, Any], experiment: str) -> None:
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(cfg)))
    choices = {"hydra": {"runtime": {"choices": {"experiment": experiment}}}}
    write_text(folder / ".hydra" / "hydra.yaml", OmegaConf.to_yaml(OmegaConf.create(choices)))


@pytest.fixture
def leave() -> Leave:
    return leave_run


def leave_run(
    folder: Path,
    score: float,
    seed: int = 0,
    experiment: str = "voc_kd",
    scale: str = "mini",
    curve: bool = False,
    **changes: Any,
) -> Path:
    """A run that ended."""
    write_config(folder, config(seed, **changes), experiment)
    result = {"scale": scale, "seed": seed, "monitor": "miou", "score": score, "metrics": metrics(score), "steps": 60,
              "seconds": 12.3, "parameters": 712019, "macs": 26_000_000, "weights_bytes": 2_900_000}  # fmt: skip
    write_json(folder / "metrics.json", result)
    if curve:
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(folder)) as writer:
            for step in range(10, 61, 10):
                writer.add_scalar("val/miou", score * (1 - 0.9 ** (step / 3)), step)
    return folder


def leave_comparison(
    folder: Path, arms: dict[str, list[float]], teacher: float = 0.9, curve: bool = True, **options: Any
) -> Path:
    """A comparison that ended, with a folder for every arm and seed."""
    seeds = list(range(len(next(iter(arms.values())))))
    for arm, scores in arms.items():
        for seed, score in zip(seeds, scores):
            leave_run(
                folder / f"seed{seed}_{arm}", score, seed, curve=curve, kd__enabled=arm != "undistilled", **options
            )
    costs = {"teacher": {"parameters": 1153741, "macs": 178_000_000, "torch_ms": 16.0, "onnxruntime_ms": 4.9},
             "student": {"parameters": 712019, "macs": 26_000_000, "torch_ms": 7.4, "onnxruntime_ms": 2.9}}  # fmt: skip
    write_config(folder, config(0), options.get("experiment", "voc_kd"))
    summary = {"scale": options.get("scale", "mini"), "monitor": "miou", "seeds": seeds, "teacher": metrics(teacher),
               "arms": {arm: [metrics(score) for score in scores] for arm, scores in arms.items()},
               "steps": dict.fromkeys(arms, 60), "seconds": dict.fromkeys(arms, 12.0), "costs": costs}  # fmt: skip
    write_json(folder / "metrics.json", {**summary, "score": 0.5})
    return folder


def demonstration(root: Path) -> list[Path]:
    """Much of everything: what a page should look right with. `python -m tests.report.conftest FOLDER` writes it."""
    draw = random.Random(0)
    arms = {"undistilled": 0.29, "distilled": 0.49, "distilled_same_labels": 0.38}
    leave_comparison(root / "compare", {arm: [s + draw.gauss(0, 0.03) for _ in range(3)] for arm, s in arms.items()})
    for temperature in (1.0, 2.0, 8.0):
        for alpha in (0.3, 0.9):
            leave_run(root / f"sweep/t{temperature}a{alpha}", 0.4 + draw.gauss(0, 0.05), kd__temperature=temperature,
                      kd__alpha=alpha, curve=True)  # fmt: skip
    leave_comparison(root / "unet", {"undistilled": [0.61, 0.62], "distilled": [0.66, 0.65]},
                     experiment="hierarchical_unet_kd", scale="full")  # fmt: skip
    write_config(root / "stopped", config(0), "voc_kd")
    write_json(root / "failed" / "status.json", {"status": "failed", "error": "teacher.checkpoint: no file t.pth"})
    return [root, root / "nowhere"]


if __name__ == "__main__":
    import sys

    demonstration(Path(sys.argv[1]))

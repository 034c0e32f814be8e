"""Whole runs with the teacher's outputs on disk."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kd_runner.data.order import SeededDataset
from kd_runner.data.views import FixedAugmentations
from kd_runner.distillation.teacher_cache.callback import check_fixed
from kd_runner.errors import ConfigError

FAST = ["callbacks=[checkpoints]", "export=none", "logger=none"]
CACHED = ["kd.teacher_cache.enabled=true", "cache=cache"]
# A crop as large as the picture, at its own scale: the same every time.
FIXED = [f"data.train.transform.{word}" for word in ("scale=[1.0,1.0]", "brightness=0.0", "contrast=0.0")]


def run(here: Any, folder: Path, *words: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The student and what metrics.json says of the cache."""
    here(*FAST, f"hydra.run.dir={folder}", *words)
    return load_file(folder / "student.safetensors"), json.loads((folder / "metrics.json").read_text())


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def test_the_student_is_the_one_of_the_uncached_run(here, tmp_path: Path) -> None:

    exact = [*CACHED, "kd.teacher_cache.map_dtype=float32"]
    plain, uncached = run(here, tmp_path / "plain", *FIXED)
    first, counts = run(here, tmp_path / "first", *FIXED, *exact)
    again, recounts = run(here, tmp_path / "again", *FIXED, *exact)
    assert distance(plain, first) < 1e-5 and distance(first, again) == 0.0
    assert "teacher_cache" not in uncached and counts["teacher_cache"]["computed"] > 0
    assert recounts["teacher_cache"]["computed"] == 0 and recounts["teacher_cache"]["read"] == 6 * 6
    half, _ = run(here, tmp_path / "half", *FIXED, *CACHED)
    assert 0 < distance(plain, half) < 1e-2


def test_random_transforms_are_refused_or_kept_as_views(here, tmp_path: Path, capfd) -> None:
    with pytest.raises(SystemExit):
        run(here, tmp_path / "refused", *CACHED)
    message = capfd.readouterr().out
    assert "'image' of training sample 0 looks different" in message and "kd.teacher_cache.views" in message
    views = [*CACHED, "kd.teacher_cache.views=2"]
    _, first = run(here, tmp_path / "first", *views, "trainer.max_epochs=8")
    assert 0 < first["teacher_cache"]["computed"] <= 2 * (12 + 10)
    # Another seed is shown the same views in another order.
    _, other = run(here, tmp_path / "other", *views, "trainer.max_epochs=8", "seed=1")
    both = first["teacher_cache"]["computed"] + other["teacher_cache"]["computed"]
    assert both <= 2 * (12 + 10) and other["teacher_cache"]["read"] > other["teacher_cache"]["computed"]


class Noisy(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    def __init__(self, **more: torch.Tensor) -> None:
        self.more = more

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"image": torch.rand(3), "steady": torch.tensor(index), **self.more}


def test_what_the_teacher_reads_must_depend_on_sample_and_view_alone() -> None:
    check_fixed(SeededDataset(Noisy()), ["steady"], None)  # the noise is not for the teacher
    check_fixed(SeededDataset(FixedAugmentations(Noisy(), 3)), ["image"], 3)
    with pytest.raises(ConfigError, match="'image' of training sample 0 looks different"):
        check_fixed(SeededDataset(Noisy()), ["image"], None)
    with pytest.raises(ConfigError, match="gives itself the index 7"):
        check_fixed(SeededDataset(Noisy(index=torch.tensor(7))), ["steady"], None)


def test_the_points_of_a_sweep_ask_the_teacher_once(here, tmp_path: Path) -> None:
    here(*FAST, *FIXED, *CACHED, "trainer.max_epochs=4", "-m", "kd.temperature=1,2,4", "hydra.sweep.dir=sweep")
    result = [json.loads(p.read_text())["teacher_cache"] for p in sorted(tmp_path.glob("sweep/*/metrics.json"))]
    assert len(result) == 3 and len({point["folder"] for point in result}) == 1
    assert sorted(point["computed"] for point in result) == [0, 0, 12 + 10]


def test_a_run_that_was_stopped_goes_on_to_the_same_student(here, tmp_path: Path) -> None:
    (tmp_path / "stopping.py").write_text(
        "from pathlib import Path\nfrom lightning.pytorch import Callback\n"
        "class Stop(Callback):\n"
        "    def on_train_batch_end(self, trainer, *_):\n"
        "        if trainer.global_step == 4 and Path('stop').exists(): raise RuntimeError('stopped')\n"
    )
    words = [*FIXED, *CACHED, "+callbacks.stop._target_=stopping.Stop"]
    whole, _ = run(here, tmp_path / "whole", *words)
    (tmp_path / "stop").touch()
    with pytest.raises(SystemExit):
        run(here, tmp_path / "broken", *words, "cache=other")
    (tmp_path / "stop").unlink()
    resumed, result = run(here, tmp_path / "broken", *words, "cache=other")
    assert distance(whole, resumed) == 0.0 and 0 < result["teacher_cache"]["computed"] < 22

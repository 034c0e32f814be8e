"""Two processes on the CPU do what one does."""

import json
from pathlib import Path

import torch

from tests.conftest import Cli

DDP = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
# Seven validation samples: four for one process, three for the other.


def test_metrics_of_unequal_shards_equal_the_single_process(here, cli: Cli, tmp_path: Path) -> None:
    """The same weights, measured by one process and by two."""
    weights = here("export=none", "callbacks=[checkpoints]", "trainer.max_epochs=1") / "student.safetensors"
    scores = []
    evaluate = ["task=evaluate", f"student.checkpoint={weights}"]
    here(*evaluate, "hydra.run.dir=one")
    done = cli(*evaluate, *DDP, "hydra.run.dir=two")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("one", "two"):
        scores.append(json.loads((tmp_path / name / "metrics.json").read_text())["metrics"])
    assert scores[0] == scores[1]  # counts are added up, so not even rounding differs
    assert scores[0]["student"]["miou"] > 0


def test_ranks_hold_equal_weights_and_a_sweep_runs_inside(cli: Cli, tmp_path: Path) -> None:
    """Each rank writes its weights when training ends; both points of a sweep train in two processes."""
    (tmp_path / "ranks.py").write_text(
        "import torch\nfrom lightning.pytorch import Callback\n"
        "class Ranks(Callback):\n"
        "    def on_train_end(self, trainer, module):\n"
        "        torch.save(module.state_dict(), f'{trainer.default_root_dir}/rank{trainer.global_rank}.pt')\n"
    )
    words = [
        "+callbacks.ranks._target_=ranks.Ranks",
        "export=none",
        "trainer.max_epochs=1",
        "logger=none",
        "-m",
        "kd.temperature=2,4",
    ]
    done = cli(*DDP, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    points = sorted((tmp_path / "outputs" / "voc_kd").glob("sweep_kd.temperature/*/metrics.json"))
    assert len(points) == 2
    for point in points:
        one, two = (torch.load(point.parent / f"rank{rank}.pt") for rank in (0, 1))
        assert one.keys() == two.keys() and any(key.startswith("losses.") for key in one)
        # Running statistics are each process's own; parameters are shared.
        trained = [key for key in one if "running_" not in key]
        assert all(torch.equal(one[key], two[key]) for key in trained)


def test_a_batch_that_cannot_be_split_is_refused(cli: Cli) -> None:
    done = cli(*DDP, "data.batch_size=3")
    assert done.returncode == 1
    assert "data.batch_size=3 cannot be split evenly between 2 processes" in done.stdout

"""The control that trains for as long as another arm took."""

from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from kd_runner.errors import ConfigError
from kd_runner.runtime.files import write_json
from kd_runner.tasks.equal_seconds import planned, sources, stretch

OFF = {"kd.enabled": False}
LONG = {**OFF, "task.seconds_of": "distilled"}


def config(**changes: object) -> DictConfig:
    cfg = OmegaConf.create(
        {
            "data": {"steps_per_epoch": 50},
            "trainer": {"max_epochs": 4, "max_steps": -1},
            "scheduler": {"warmup_steps": 30},
            "task": {"seconds_of": "distilled"},
        }
    )
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value)
    return cfg


def leave(folder: Path, seconds: float, steps: int, total_steps: int = 200) -> Path:
    """A run that has got so far."""
    cost = {"clock": "processor", "seconds": seconds, "steps": steps, "total_steps": total_steps}
    write_json(folder / "status.json", {"status": "running", "training_cost": cost})
    return folder


def test_an_arm_names_the_one_whose_seconds_it_gets_and_has_a_twin() -> None:
    arms = {"undistilled": OFF, "equal_seconds": LONG, "distilled": {}}
    assert sources(arms) == {"equal_seconds": ("distilled", "undistilled")}
    with pytest.raises(ConfigError, match=r"no such arm.*Did you mean 'distilled'"):
        sources({**arms, "equal_seconds": {**OFF, "task.seconds_of": "distiled"}})
    with pytest.raises(ConfigError, match="no arm with the same settings"):
        sources({"equal_seconds": LONG, "distilled": {}})


def test_steps_are_those_that_fit_into_the_projected_seconds(tmp_path: Path) -> None:
    """20 s after 50 of 200 steps: 80 s in all. 8 s in 80 steps: 0.1 s a step. So 800 steps, 4 epochs of 200."""
    longer, twin = leave(tmp_path / "distilled", 20.0, 39), leave(tmp_path / "undistilled", 8.0, 80)
    assert planned(config(), tmp_path / "long", longer, twin) is None  # less than a fifth
    leave(longer, 20.0, 50)
    plan = planned(config(), tmp_path / "long", longer, twin)
    assert plan is not None
    assert (plan.data.steps_per_epoch, plan.trainer.max_epochs, plan.scheduler.warmup_steps) == (200, 4, 120)


def test_a_run_that_was_started_keeps_its_plan(tmp_path: Path) -> None:
    (tmp_path / "long").mkdir()
    OmegaConf.save(config(data__steps_per_epoch=77), tmp_path / "long" / "config.yaml")
    longer, twin = leave(tmp_path / "distilled", 20.0, 50), leave(tmp_path / "undistilled", 8.0, 80)
    plan = planned(config(), tmp_path / "long", longer, twin)
    assert plan is not None and plan.data.steps_per_epoch == 77


def test_a_limit_of_steps_is_moved_instead() -> None:
    cfg = config(trainer__max_steps=120)
    stretch(cfg, total_steps=120, steps=300.0)
    assert (cfg.trainer.max_steps, cfg.trainer.max_epochs, cfg.data.steps_per_epoch) == (300, 10, 50)
    cfg = config(data__steps_per_epoch=None)  # one pass over the labels: the number of steps was not in the settings
    stretch(cfg, total_steps=200, steps=90.0)
    assert cfg.data.steps_per_epoch == 22

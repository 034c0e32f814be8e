"""Every yaml composes, and everything that it names is there and takes what it is given."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from kd_runner.cli.main import CONF
from kd_runner.config import validate
from kd_runner.runtime.run_folder import register_resolvers

register_resolvers()
EXPERIMENTS = sorted(p.stem for p in (CONF / "experiment").glob("*.yaml") if p.stem != "none")
GROUPS = (
    "model",
    "data",
    "loss",
    "metric",
    "optimizer",
    "scheduler",
    "trainer",
    "callbacks",
    "logger",
    "export",
)


def composed(*words: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(words))


@pytest.mark.parametrize("scale", ["mini", "full"])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiment(experiment: str, scale: str) -> None:
    words = [f"experiment={experiment}", f"scale={scale}"]
    validate.check(composed(*words, *(["data.root=/data", "teacher.checkpoint=t.pth"] if scale == "full" else [])))


def whole(file: Path) -> DictConfig:
    """A file on top of those of its group that it builds on."""
    content = OmegaConf.load(file)
    parents = content.pop("defaults", []) if isinstance(content, DictConfig) else []
    return OmegaConf.merge(*(whole(file.with_name(f"{parent}.yaml")) for parent in parents), content)


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_of_a_group(group: str) -> None:
    for file in sorted((CONF / group).glob("*.yaml")):
        content = OmegaConf.to_container(whole(file), resolve=False)
        for key, node in validate.targets(content, group):
            validate.check_call("trainer" if group == "trainer" else key, node)


def test_one_word_names_yaml_and_key() -> None:
    """`conf/loss/roi_kl.yaml` defines the terms `roi_kl` and `roi_kl_...`, so that the file is found from the log."""
    for group in ("loss", "metric"):
        for file in (CONF / group).glob("*.yaml"):
            names = [str(name) for name in OmegaConf.load(file)]
            assert names and all(f"{name}_".startswith(f"{file.stem}_") for name in names)


def test_run_and_size_files_name_known_experiments() -> None:
    for file in [*(CONF / "size").glob("*.yaml"), *(CONF / "recipe").glob("*.yaml")]:
        assert any(Path(file.stem).name.startswith(f"{experiment}_") for experiment in EXPERIMENTS), file

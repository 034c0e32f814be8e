"""Every yaml composes, and everything that it names is there and takes what it is given."""

import pytest
from omegaconf import OmegaConf

from kd_runner.config import calls, entries, validate
from kd_runner.config.compose import compose
from kd_runner.config.location import CONF

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


@pytest.mark.parametrize("scale", ["mini", "full"])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiment(experiment: str, scale: str) -> None:
    words = [f"experiment={experiment}", f"scale={scale}"]
    real_data = ["data.root=/data", "teacher.checkpoint=t.pth", "student.pretrained=null"]
    validate.check(entries.clean(compose([*words, *(real_data if scale == "full" else [])])))


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_of_a_group(group: str) -> None:
    for file in sorted((CONF / group).glob("*.yaml")):
        content = OmegaConf.load(file)
        if "defaults" in content:
            content = compose(["experiment=none", f"{group}={file.stem}"])
            content = {role: content[role] for role in ("teacher", "student")} if group == "model" else content[group]
        for key, node in calls.targets(OmegaConf.to_container(OmegaConf.create(content)), group):
            calls.check_call("trainer" if group == "trainer" else key, node)


def test_one_word_names_yaml_and_key() -> None:
    """`conf/loss/roi_kl.yaml` defines the terms `roi_kl` and `roi_kl_...`, so that the file is found from the log."""
    for group in ("loss", "metric"):
        for file in (CONF / group).glob("*.yaml"):
            names = [str(name) for name in OmegaConf.load(file)]
            assert names and all(f"{name}_".startswith(f"{file.stem}_") for name in names)


def test_variants_name_known_experiments_scales_and_tasks() -> None:
    scales = {f.stem for f in (CONF / "scale").glob("*.yaml")}
    tasks = {f.stem for f in (CONF / "task").glob("*.yaml")}
    for file in (CONF / "variant").glob("*/*.yaml"):
        scale, _, task = file.stem.partition("_")
        assert file.parent.name in EXPERIMENTS and scale in scales and task in {"", *tasks}, file

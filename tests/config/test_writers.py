"""A value has at most two writers: the default, and the experiment or its variant."""

from collections import defaultdict

import pytest
from hydra import version
from hydra._internal.defaults_list import create_defaults_list
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from kd_runner.config.compose import register
from kd_runner.config.location import CONF
from kd_runner.runtime.flatten import flatten

EXPERIMENTS = sorted(p.name for p in (CONF / "variant").iterdir())


def writers(experiment: str, scale: str, task: str) -> dict[str, list[str]]:
    """Key -> the files that write it, in their order."""
    loader = GlobalHydra.instance().config_loader()
    parser = OverridesParser.create(loader)
    words = [f"experiment={experiment}", f"scale={scale}", f"task={task}"]
    files = create_defaults_list(loader.repository, "config", parser.parse_overrides(words), True, False).defaults
    written = defaultdict(list)
    for file in files:
        if file.config_path is None or file.config_path == "schema" or file.config_path.startswith("hydra"):
            continue
        content = OmegaConf.to_container(loader.repository.load_config(file.config_path).config)
        for key in flatten(content):
            full = key if file.package in ("", None, "_global_") else f"{file.package}.{key}"
            if not full.startswith(("hydra", "defaults")):
                written[full].append(file.config_path)
    return written


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_at_most_two_writers(experiment: str) -> None:
    register()
    version.setbase("1.3")
    GlobalHydra.instance().clear()
    Hydra.create_main_hydra2("writers", create_config_search_path(str(CONF)))
    try:
        for file in (CONF / "variant" / experiment).glob("*.yaml"):
            scale, _, task = file.stem.partition("_")
            for key, files in writers(experiment, scale, task or "train").items():
                defaults = [name for name in files if not name.startswith(("experiment/", "variant/"))]
                of_experiment = [name for name in files if name.startswith("experiment/")]
                of_variants = [name for name in files if name.startswith("variant/")]
                # The variant of a task counts instead of that of the scale.
                assert len(defaults) <= 2 and len(of_experiment) + bool(of_variants) <= 1, (key, files)
    finally:
        GlobalHydra.instance().clear()

"""The configuration as the command line makes it."""

from collections.abc import Sequence
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from kd_runner.config import schema
from kd_runner.runtime.run_names import register_resolvers

PACKAGE = Path(__file__).parents[1]
CONF = next(p for p in (PACKAGE / "conf", PACKAGE.parents[1] / "conf") if p.is_dir())  # in a wheel; in a checkout


def register() -> None:
    """Makes known to Hydra what the yaml files refer to: the schema, and the functions of interpolations."""
    schema.register()
    register_resolvers()


def compose(overrides: Sequence[str] = (), config_dirs: Sequence[str] = ()) -> DictConfig:
    """Composes the configuration.

    Args:
        overrides: words of the command line, e.g. `["experiment=voc_kd", "kd.temperature=2"]`.
        config_dirs: folders of own yaml files, as `--config-dir`.
    """
    register()
    GlobalHydra.instance().clear()
    folders = [f"'file://{Path(folder).resolve()}'" for folder in config_dirs]
    search_path = [f"hydra.searchpath=[{','.join(folders)}]"] if folders else []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra_compose("config", overrides=[*search_path, *overrides])

"""The configuration as the command line makes it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from kd_runner.config import entries, keys, schema
from kd_runner.config.location import CONF
from kd_runner.runtime.resolvers import register_resolvers


def register() -> None:
    """Makes known to Hydra what the yaml files refer to: the schema, and the functions of interpolations."""
    schema.register()
    register_resolvers()


def compose(overrides: Sequence[str] = (), config_dirs: Sequence[str] = ()) -> DictConfig:
    """Compose the configuration.

    Args:
        overrides: words of the command line, e.g. `["experiment=voc_kd", "kd.temperature=2"]`.
        config_dirs: folders of own yaml files, as `--config-dir`.

    Returns:
        The configuration, not checked.
    """
    with _hydra(config_dirs) as search_path:
        return hydra_compose("config", overrides=[*search_path, *overrides])


def compose_checked(overrides: Sequence[str] = (), config_dirs: Sequence[str] = ()) -> DictConfig:
    """`compose`, and every key of it must be known, as on the command line.

    Args:
        overrides: words of the command line.
        config_dirs: folders of own yaml files.

    Returns:
        The configuration.

    Raises:
        ConfigError: a key that nothing reads.
    """
    with _hydra(config_dirs) as search_path:
        cfg = hydra_compose("config", overrides=[*search_path, *overrides], return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        with open_dict(cfg):
            del cfg["hydra"]
        try:
            keys.check(entries.clean(cfg.copy()))
            if OmegaConf.select(cfg, "export.experiment") is not None:
                cfg.export.experiment = cfg.export.experiment  # resolved while Hydra knows the choices
        finally:
            HydraConfig.instance().cfg = None
    return cfg


@contextmanager
def _hydra(config_dirs: Sequence[str]) -> Iterator[list[str]]:
    """Hydra's own state for one composition; gives the words that name the folders of own yaml files."""
    register()
    GlobalHydra.instance().clear()
    folders = [f"'file://{Path(folder).resolve()}'" for folder in config_dirs]
    search_path = [f"hydra.searchpath=[{','.join(folders)}]"] if folders else []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield search_path

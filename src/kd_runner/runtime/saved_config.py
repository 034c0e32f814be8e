"""Reading the configuration file of a run."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kd_runner.errors import ConfigError


def read_config(file: Path) -> Any:
    """The configuration that a run has written.

    Args:
        file: `config.yaml` of a run's folder.

    Returns:
        The configuration.

    Raises:
        ConfigError: the file is no configuration.
    """
    try:
        content = OmegaConf.load(file)
    except Exception as error:  # yaml and OmegaConf raise many kinds
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(f"{file} is broken: no configuration ({reason})") from error
    if not content or not isinstance(content, DictConfig):
        raise ConfigError(f"{file} is broken: it holds no keys")
    return content

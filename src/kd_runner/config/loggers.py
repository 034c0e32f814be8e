"""The logger of a run."""

import inspect
from typing import Any

from omegaconf import DictConfig

from kd_runner.config.instantiation import instantiate_checked
from kd_runner.errors import named
from kd_runner.runtime.run_folder import RunFolder


def logger(cfg: DictConfig, run: RunFolder) -> Any:
    """The logger, writing into the folder of a run where it takes a folder.

    Args:
        cfg: the composed configuration.
        run: folder of the run.

    Returns:
        The logger; None without one.
    """
    if not cfg.get("logger"):
        return None
    create = instantiate_checked(cfg.logger, "logger", _partial_=True)
    own = inspect.signature(create).parameters
    takes_folder = "save_dir" in own and "save_dir" not in cfg.logger
    with named("logger"):
        return create(save_dir=str(run.path)) if takes_folder else create()

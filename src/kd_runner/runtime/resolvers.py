"""Functions that the yaml files call."""

from pathlib import Path

from omegaconf import OmegaConf

from kd_runner.runtime import run_names


def register_resolvers() -> None:
    """Makes them known to OmegaConf."""
    assets = Path(__file__).parents[1] / "assets"
    OmegaConf.register_new_resolver("asset", lambda name: str(assets / name), replace=True)
    OmegaConf.register_new_resolver("scale_lr", scale_lr, replace=True)
    OmegaConf.register_new_resolver("experiment_name", run_names.experiment_name, replace=True)
    OmegaConf.register_new_resolver("run_name", run_names.run_name, replace=True)
    OmegaConf.register_new_resolver("sweep_name", run_names.sweep_name, replace=True)
    OmegaConf.register_new_resolver("point_name", run_names.point_name, replace=True)


def scale_lr(rate: float, published_batch: int, batch: int) -> float:
    """The linear scaling rule, as `${scale_lr:1e-3,32,${data.batch_size}}` in a yaml file.

    Args:
        rate: the published learning rate.
        published_batch: samples of one optimizer step, over all processes, for which it was published.
        batch: samples of one optimizer step of this run.

    Returns:
        rate * batch / published_batch.

    Source:
        Goyal et al., "Accurate, Large Minibatch SGD", 2017, section 2.1.
    """
    return float(rate) * batch / published_batch

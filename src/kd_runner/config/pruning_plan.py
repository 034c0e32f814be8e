"""The plan of `pruning`, with the engine that times a budget of milliseconds."""

from omegaconf import DictConfig

from kd_runner.config.instantiation import instantiate_checked
from kd_runner.data.module import DataModule
from kd_runner.distillation.features import FeatureExtractor
from kd_runner.errors import ConfigError
from kd_runner.pruning.plan import Pruning


def pruning_plan(cfg: DictConfig, student: FeatureExtractor, data: DataModule) -> Pruning:
    """What `pruning` says.

    Args:
        cfg: the composed configuration.
        student: whose inputs and outputs the timed nets have.
        data: gives the sample that they are timed with.

    Returns:
        The plan.

    Raises:
        ConfigError: it cannot be made, or onnxruntime should time a part of the student alone.
    """
    plan = instantiate_checked(cfg.pruning, "pruning")
    if plan.fit is not None and plan.fit.timed and plan.fit.engine == "onnxruntime":
        from kd_runner.export.onnx_times import milliseconds  # onnxruntime is heavy

        if plan.module:
            raise ConfigError(
                f"pruning.module={plan.module}: onnxruntime times the whole student; pruning.budget.engine=torch times "
                "a part"
            )
        plan.milliseconds = milliseconds(student, data.example(1))
    return plan

"""kd_runner: knowledge distillation with Hydra and Lightning.

Example:
    >>> import kd_runner
    >>> cfg = kd_runner.compose(["experiment=voc_kd", "kd.temperature=2"])
    >>> result = kd_runner.run(cfg)
    >>> net = kd_runner.load_student(result.student)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kd_runner.cli.api import RunResult, compose, run
    from kd_runner.distillation.features import FeatureExtractor
    from kd_runner.distillation.loss_terms import LossTerm
    from kd_runner.distillation.module import Distiller
    from kd_runner.distillation.student_file import load_student
    from kd_runner.errors import ConfigError
    from kd_runner.pruning.budget import Budget
    from kd_runner.pruning.prune import prune

__all__ = [
    "Budget",
    "ConfigError",
    "Distiller",
    "FeatureExtractor",
    "LossTerm",
    "RunResult",
    "compose",
    "load_student",
    "prune",
    "run",
]

# Imported on first use: `import kd_runner` and `--help` load no torch.
_MODULES = {
    "Budget": "kd_runner.pruning.budget",
    "ConfigError": "kd_runner.errors",
    "Distiller": "kd_runner.distillation.module",
    "FeatureExtractor": "kd_runner.distillation.features",
    "LossTerm": "kd_runner.distillation.loss_terms",
    "RunResult": "kd_runner.cli.api",
    "compose": "kd_runner.cli.api",
    "load_student": "kd_runner.distillation.student_file",
    "prune": "kd_runner.pruning.prune",
    "run": "kd_runner.cli.api",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

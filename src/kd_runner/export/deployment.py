"""What a deployer must know of an ONNX file, as text in the file's metadata."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig

from kd_runner.distillation.module import Distiller
from kd_runner.distillation.teacher_cache import identity


def metadata(
    module: Distiller, data: Any, class_names: Sequence[str], scores: Mapping[str, float], part: str | None
) -> dict[str, str]:
    """Text by name; lists and mappings are JSON.

    - `kd_runner.part`: module whose input is the file's input, where the file is not the whole net; else empty.
    - `kd_runner.class_names`: JSON list in the order of the channels.
    - `kd_runner.normalization`: JSON with mean, std, channel_order and value_range of the input images, where the data
      set states them (`normalization`).
    - `kd_runner.experiment`: name of the experiment.
    - `kd_runner.scores`: JSON of the metric that chose the weights, and its value.
    - `kd_runner.student_sha256`, `kd_runner.teacher_sha256`: digests of the weights.
    """
    samples = data.val
    while not hasattr(samples, "normalization") and hasattr(samples, "samples"):
        samples = samples.samples
    text = {
        "kd_runner.part": part or "",
        "kd_runner.class_names": json.dumps(list(class_names)),
        "kd_runner.scores": json.dumps(dict(scores)),
        "kd_runner.student_sha256": identity.weights(module.net),
    }
    if getattr(samples, "normalization", None) is not None:
        text["kd_runner.normalization"] = json.dumps(samples.normalization)
    if HydraConfig.initialized():
        text["kd_runner.experiment"] = str(HydraConfig.get().runtime.choices.get("experiment", ""))
    if module.teacher is not None:
        text["kd_runner.teacher_sha256"] = identity.weights(module.teacher.net)
    return text

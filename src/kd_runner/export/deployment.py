"""What a deployer must know of an ONNX file, as text in the file's metadata."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from kd_runner.distillation.module import Distiller
from kd_runner.distillation.teacher_cache import identity


def metadata(
    module: Distiller,
    data: Any,
    class_names: Sequence[str],
    experiment: str,
    scores: Mapping[str, float],
    teacher_sha256: str | None,
    part: str | None,
) -> dict[str, str]:
    """Metadata of an exported net; lists and mappings are JSON.

    - `kd_runner.part`: module whose input is the file's input, where the file is not the whole net; else empty.
    - `kd_runner.class_names`: JSON list in the order of the channels.
    - `kd_runner.normalization`: JSON with mean, std, channel_order and value_range of the input images, as the data set
      states them (`normalization`); `null` where the input is no image.
    - `kd_runner.experiment`: name of the experiment; empty where none is known.
    - `kd_runner.scores`: JSON of the metric that chose the weights, and its value.
    - `kd_runner.student_sha256`: digest of the weights.
    - `kd_runner.teacher_sha256`: digest of the teacher's weights; empty where no teacher taught.

    Args:
        module: holds the net, and the teacher if it is known.
        data: the data module.
        class_names: of the data set.
        experiment: name of the experiment.
        scores: metric to its value.
        teacher_sha256: digest of the teacher; None for that of the module, whose teacher may be folded or cast.
        part: path of the exported module; None for the whole net.

    Returns:
        Text by name.
    """
    samples = data.val
    while not hasattr(samples, "normalization") and hasattr(samples, "samples"):
        samples = samples.samples
    normalization = None if part is not None else getattr(samples, "normalization", None)
    teacher = module.teacher
    return {
        "kd_runner.part": part or "",
        "kd_runner.class_names": json.dumps(list(class_names)),
        "kd_runner.normalization": json.dumps(normalization),
        "kd_runner.experiment": experiment,
        "kd_runner.scores": json.dumps(dict(scores)),
        "kd_runner.student_sha256": identity.weights(module.net),
        "kd_runner.teacher_sha256": teacher_sha256 or ("" if teacher is None else identity.weights(teacher.net)),
    }


def set_scores(file: Path, scores: Mapping[str, float]) -> None:
    """Write scores that were measured after the export into the metadata of a file.

    Args:
        file: the ONNX file, replaced.
        scores: metric to its value.
    """
    model = onnx.load(file)
    kept = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, {**kept, "kd_runner.scores": json.dumps(dict(scores))})
    beside = file.with_name(f".{file.name}.part")
    onnx.save(model, beside)
    beside.replace(file)

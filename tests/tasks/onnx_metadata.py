"""What an exported file says of itself."""

import json
from pathlib import Path
from typing import Any

import onnx


def onnx_metadata(file: Path) -> dict[str, Any]:
    """Metadata of an ONNX file by name, without the prefix; JSON is read."""
    model = onnx.load(file, load_external_data=False)
    entries = {entry.key.removeprefix("kd_runner."): entry.value for entry in model.metadata_props}
    read = {"class_names", "normalization", "scores"}
    return {name: json.loads(value) if name in read else value for name, value in entries.items()}


def check_metadata(folder: Path, experiment: str, num_classes: int) -> dict[str, Any]:
    """What is the same in all systems: class names, experiment, the score of the run, the teacher."""
    said, result = onnx_metadata(folder / "model.onnx"), json.loads((folder / "metrics.json").read_text())
    assert said["experiment"] == experiment and len(said["class_names"]) == num_classes
    assert said["scores"] == {result["monitor"]: result["score"]}
    assert len(said["student_sha256"]) == len(said["teacher_sha256"]) == 64
    assert said["teacher_sha256"] == result["teacher_sha256"] != said["student_sha256"]
    return said

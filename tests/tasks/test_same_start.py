"""Arms of a comparison begin with the same weights, whatever the order of the entries in their files."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kd_runner.errors import ConfigError
from kd_runner.tasks.compare import check_same_start


def folder(root: Path, name: str, metadata: dict[str, str], value: float = 1.0) -> Path:
    (root / name).mkdir()
    weights = {"scale": torch.tensor(value), "weight": torch.ones(2, 3, dtype=torch.float16)}
    save_file(weights, root / name / "student_untrained.safetensors", metadata)
    return root / name


def test_metadata_do_not_count_and_values_do(tmp_path: Path) -> None:
    first = folder(tmp_path, "a", {"one": "1", "two": "2"})
    check_same_start([first, folder(tmp_path, "b", {"two": "2", "three": "3"})])
    with pytest.raises(ConfigError, match="a, c started from different weights"):
        check_same_start([first, folder(tmp_path, "c", {}, value=2.0)])

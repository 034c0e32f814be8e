"""A teacher that is a folder of arrays: outputs that another program wrote once, for every training sample.

The folder holds `recording.json` and one `.npy` an output (memory-mapped, row i is sample i):

    {
      "outputs": {"logits": {"shape": [11, 96, 96], "dtype": "float16"}},
      "keys": ["2007_000032", ...],
      "normalization": {"mean": [...], "std": [...]},
      "source": "mask2former of mmsegmentation 1.2, 2026-11-28"
    }

`shape` is that of one sample. `keys` names the samples in the order of the rows, or is null where row i is sample i.
`normalization` and `source` are for people. An output may have a `form`, see `recorded_forms`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kd_runner.distillation.recorded_forms import FORMS, arrays_of
from kd_runner.errors import ConfigError, nearest

FILE = "recording.json"
_KNOWN = {"outputs", "keys", "normalization", "source"}


class RecordedTeacher(nn.Module):
    """A net without weights whose outputs are read from a folder.

    In the configuration it stands where a net stands: `teacher.net: {_target_: ..., folder: F}`,
    `teacher.inputs: {index: index, key: key}`, `teacher.features: {logits: ":logits"}`.

    Args:
        folder: of the recording.
        any_view: the training transforms may be random: the recording holds outputs for the plain image, and they count
            for every view of it. False refuses random transforms (`check_fixed`).

    Attributes:
        any_view: the argument.
        record: content of `recording.json`.

    Raises:
        ConfigError: file, array or entry is missing, or an array is not what the JSON says.
    """

    def __init__(self, folder: str | Path, any_view: bool = False):
        super().__init__()
        self.folder, self.any_view = Path(folder).expanduser(), any_view
        self.record = _read(self.folder)
        keys = self.record.get("keys")
        self._rows: dict[str, int] | None = None
        if keys is not None:
            self._rows = {str(key): row for row, key in enumerate(keys)}
            if len(self._rows) != len(keys):
                twice = next(key for i, key in enumerate(keys) if key in keys[:i])
                raise ConfigError(f"{self.folder / FILE}: keys names {twice!r} twice")
        self._arrays = {name: self._open(name, entry) for name, entry in self.record["outputs"].items()}

    def forward(self, index: Tensor | None = None, key: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Outputs (B, ...) by name.

        Args:
            index: (B,) number of each sample, the row of a recording without keys; outputs are on its device.
            key: name of each sample, which finds the row of a recording with keys.

        Returns:
            Output to tensor.

        Raises:
            ConfigError: a sample was not recorded, or the recording needs the other argument.
        """
        rows = self._numbers(index, key)
        device = torch.device("cpu") if index is None else index.device
        outputs = {}
        for name, arrays in self._arrays.items():
            entry = self.record["outputs"][name]
            values = FORMS[entry.get("form", "dense")]({part: array[rows] for part, array in arrays.items()}, entry)
            outputs[name] = torch.from_numpy(values).to(device)
        return outputs

    def _numbers(self, index: Tensor | None, key: Sequence[str] | None) -> list[int]:
        if self._rows is None:
            if index is None:
                raise ConfigError(f"teacher.inputs: {self.folder} names no samples; give {{index: index}}")
            count = min(len(array) for arrays in self._arrays.values() for array in arrays.values())
            if int(index.max()) >= count:
                raise ConfigError(f"teacher: {self.folder} has {count} samples, none of index {int(index.max())}")
            return index.tolist()
        if key is None:
            raise ConfigError(f"teacher.inputs: {self.folder} names its samples; give {{key: key}}")
        for one in key:
            if one not in self._rows:
                raise ConfigError(f"teacher: sample {one!r} is not in {self.folder}.{nearest(one, self._rows)}")
        return [self._rows[one] for one in key]

    def _open(self, name: str, entry: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The arrays of an output, by part: one, or for sparse forms several."""
        form = entry.get("form", "dense")
        if form not in FORMS:
            raise ConfigError(f"{self.folder / FILE}: outputs.{name}.form={form}: no such form.{nearest(form, FORMS)}")
        arrays, rows = {}, None if self._rows is None else len(self._rows)
        for part, (file, shape, dtype) in arrays_of(name, entry).items():
            path = self.folder / file
            if not path.is_file():
                raise ConfigError(f"{self.folder / FILE} names the output {name!r}, and there is no {path}")
            try:
                array = np.load(path, mmap_mode="r", allow_pickle=False)
            except ValueError as error:
                raise ConfigError(f"{path} is no array ({error})") from error
            if array.shape[1:] != shape or array.dtype != dtype:
                raise ConfigError(
                    f"{path} holds {array.shape[1:]} of {array.dtype} for a sample, {FILE} says {shape} of {dtype}"
                )
            if rows is not None and len(array) != rows:
                raise ConfigError(f"{path} has {len(array)} rows for {rows} keys")
            arrays[part] = array
        return arrays


def check_views(teacher: nn.Module, samples: Any) -> None:
    """Recorded outputs belong to one view of a sample: the training transforms must not be random.

    Args:
        teacher: any net; only a `RecordedTeacher` without `any_view` is checked.
        samples: training samples, drawn by (index, seed).

    Raises:
        ConfigError: a sample looks different at every draw.
    """
    if not isinstance(teacher, RecordedTeacher) or teacher.any_view:
        return
    for index in sorted({0, len(samples) // 2, len(samples) - 1}):
        first, second = samples[index, 1], samples[index, 2]
        for name, value in first.items():
            if isinstance(value, Tensor) and not (value.shape == second[name].shape and value.equal(second[name])):
                raise ConfigError(
                    f"teacher.net: {name!r} of training sample {index} looks different at every draw, and the "
                    "recording holds one view of it: take the random transforms away, or set "
                    "+teacher.net.any_view=true where the recorded outputs count for every view"
                )


def _read(folder: Path) -> dict[str, Any]:
    file = folder / FILE
    if not file.is_file():
        raise ConfigError(f"teacher.net.folder: there is no {file}")
    try:
        record = json.loads(file.read_text())
    except ValueError as error:
        raise ConfigError(f"{file} is no JSON: {error}") from error
    if not isinstance(record, dict) or not isinstance(record.get("outputs"), dict) or not record["outputs"]:
        raise ConfigError(f"{file}: needs 'outputs', a mapping of names to shape and dtype")
    for key in sorted(set(record) - _KNOWN):
        raise ConfigError(f"{file}: no such entry {key!r}.{nearest(key, _KNOWN)}")
    for name, entry in record["outputs"].items():
        for need in ("shape", "dtype"):
            if not isinstance(entry, dict) or need not in entry:
                raise ConfigError(f"{file}: outputs.{name} has no {need!r}")
    return record

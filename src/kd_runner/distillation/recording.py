"""Write recordings for `RecordedTeacher`: from arrays, or from what a run's teacher cache holds. Uses no torch."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kd_runner.distillation.recorded_forms import int8, top_k
from kd_runner.errors import ConfigError
from kd_runner.runtime.files import write_json


def write(
    folder: str | Path,
    outputs: Mapping[str, NDArray],
    keys: Sequence[str] | None = None,
    forms: Mapping[str, str] | None = None,
    k: int = 2,
    normalization: Mapping[str, Any] | None = None,
    source: str = "",
) -> None:
    """Write a folder that `RecordedTeacher` reads.

    Args:
        folder: is made where it does not exist.
        outputs: name to values (N, ...) of N samples.
        keys: names of the samples; None where row i is the sample of index i.
        forms: name to `dense` (default; float16 for floats), `top_k` or `int8`.
        k: of `top_k`.
        normalization: of the images that the teacher saw, for people.
        source: who made it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    entries: dict[str, dict[str, Any]] = {}
    for name, values in outputs.items():
        form = (forms or {}).get(name, "dense")
        entries[name] = {"shape": list(values.shape[1:]), "dtype": "float16", "form": form}
        if form == "top_k":
            values, indices = top_k(values, k)
            np.save(folder / f"{name}_indices.npy", indices)
            entries[name]["k"] = k
        elif form == "int8":
            values, scale = int8(values)
            np.save(folder / f"{name}_scale.npy", scale)
            entries[name]["dtype"] = "int8"
        elif values.dtype.kind == "f":
            values = values.astype(np.float16)
        else:
            entries[name]["dtype"] = str(values.dtype)
        np.save(folder / f"{name}.npy", values)
    record = {"outputs": entries, "keys": None if keys is None else list(keys), "source": source}
    write_json(folder / "recording.json", record | ({"normalization": dict(normalization)} if normalization else {}))


def from_cache(cache: str | Path, folder: str | Path, forms: Mapping[str, str] | None = None, k: int = 2) -> None:
    """Turn a folder of the teacher cache (`kd.teacher_cache`, without views) into a recording.

    Args:
        cache: its folder, which the run's log names.
        folder: of the recording.
        forms: as of `write`.
        k: as of `write`.

    Raises:
        ConfigError: no such folder, rows that no run has asked for, or outputs that are not one a sample.
    """
    cache = Path(cache)
    if not (cache / "meta.json").is_file():
        raise ConfigError(f"{cache} holds no meta.json: it is no folder of the teacher cache")
    metadata = json.loads((cache / "meta.json").read_text())
    missing = np.flatnonzero(np.load(cache / "checksums.npy", mmap_mode="r") == 0)
    if len(missing):
        raise ConfigError(f"{cache}: {len(missing)} samples are not recorded, the first of them {int(missing[0])}")
    outputs = {}
    for name, entry in metadata["outputs"].items():
        rows = np.load(cache / f"{name}.npy", mmap_mode="r")
        if entry["shape"][0] != 1:
            raise ConfigError(f"{cache}: {name} has {entry['shape'][0]} rows a sample; one can be read back")
        outputs[name] = rows[:, 0].transpose(*np.argsort(entry["order"]))
    write(folder, outputs, forms=forms, k=k, source=f"teacher cache {cache.name}")

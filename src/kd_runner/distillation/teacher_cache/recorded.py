"""Teacher outputs on disk: computed once per sample, read with the same call as `features.FeatureExtractor`."""

import fcntl
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from kd_runner.distillation.features import FeatureExtractor
from kd_runner.distillation.teacher_cache.identity import differences, digest
from kd_runner.distillation.teacher_cache.rows import Layout, Rows, create, damaged
from kd_runner.errors import ConfigError
from kd_runner.runtime.files import read_mapping, storage_error, write_json

# Largest difference of a recomputed output, as a fraction of the sample's largest value: fp16, TF32, other batches.
_TOLERANCE = 1e-2
# Raised whenever the same outputs would be stored in another way.
_FORMAT = 2


class RecordedTeacher:
    """Computes the teacher's outputs of samples that are not on disk yet, and stores them.

    Folder: `root_folder/<digest of identity>/`, one memory-mapped array per output with a row per sample and view
    (`rows.Rows`), and `meta.json`. Several processes may fill and read it at once. What is returned is what is stored,
    whether it has just been computed or not, so that the first run sees the same numbers as any later one.

    Args:
        teacher: frozen net with features.
        names: the features that are read.
        root_folder: folder of all recorded teachers.
        identity: everything that the outputs depend on; another one is another folder.
        state: what must not have changed since the folder was made, e.g. the data files.
        num_samples: samples of the training set; rows are numbered `index * views + view` by the batch's entries.
        views: `teacher_cache.views.FixedAugmentations`; None where every sample always looks the same.
        map_dtype: `float16` or `float32`, of outputs with three or more dimensions. Smaller ones are kept in fp32,
            other than floating ones as they are.
    """

    def __init__(
        self,
        teacher: FeatureExtractor,
        names: Iterable[str],
        root_folder: Path,
        identity: Mapping[str, Any],
        state: Mapping[str, Any],
        num_samples: int,
        views: int | None = None,
        map_dtype: str = "float16",
    ):
        self.teacher, self.names, self.map_dtype = teacher, sorted(names), map_dtype
        self.views, self.num_rows = views, num_samples * (views or 1)
        content = {"format": _FORMAT, "names": self.names, "map_dtype": map_dtype, "rows": self.num_rows, **identity}
        self.identity: dict[str, Any] = json.loads(json.dumps(content, default=str))
        self.state = dict(state)
        self.folder = root_folder / digest(self.identity)
        self.computed, self.checked, self.read = 0, 0, 0
        self._rows: Rows | None = None
        self.check_again()

    def check_again(self) -> None:
        """Compare the next four stored samples with what the teacher returns now."""
        self._to_check = 4

    def __call__(self, batch: Mapping[str, Any], names: Iterable[str]) -> dict[str, Tensor]:
        """The named outputs of a training batch, with the shapes, types and device that the teacher would give them.

        Raises:
            ConfigError: the folder is stale, a stored sample is not what the teacher returns now, fp16 is too narrow,
                the disk too small, or no dimension of an output is that of the samples.
        """
        rows = batch["index"].cpu().numpy()
        if self.views is not None:
            rows = rows * self.views + batch["view"].cpu().numpy()
        stored = self._rows or self._open(batch)
        missing = stored.missing(rows)
        if missing.any():
            self._compute(stored, batch, rows, missing)
        if self._to_check and not missing.all():
            self._check(stored, batch, rows, np.flatnonzero(~missing)[: self._to_check])
        self.read += len(rows) - int(missing.sum())
        stored_values = stored.read(rows)
        device = batch["index"].device
        outputs = {}
        for name in names:
            output = self._outputs[name]
            value = torch.from_numpy(stored_values[name]).flatten(0, 1).to(device, getattr(torch, output["dtype"]))
            outputs[name] = value.permute(*np.argsort(output["order"]).tolist())
        return outputs

    def _compute(self, stored: Rows, batch: Mapping[str, Any], rows: np.ndarray, which: np.ndarray) -> None:
        outputs = self._compute_rows(batch, np.flatnonzero(which))
        for i, row in enumerate(rows[which]):
            stored.write(row, {name: value[i] for name, value in outputs.items()})
        self.computed += len(rows[which])

    def _compute_rows(self, batch: Mapping[str, Any], which: np.ndarray) -> dict[str, np.ndarray]:
        """The teacher's outputs for some samples of a batch as they are to be stored, (samples, per sample, ...)."""
        outputs = self._run_teacher(batch, torch.from_numpy(which).to(batch["index"].device))
        return {name: self._to_store(name, value, len(which)) for name, value in outputs.items()}

    def _run_teacher(self, batch: Mapping[str, Any], chosen: Tensor | slice) -> dict[str, Tensor]:
        """The teacher's outputs, as they are, for some samples of a batch."""
        part = {key: batch[key] for key in self.teacher.inputs.values()}
        return self.teacher(
            tree_map(lambda value: value[chosen] if isinstance(value, Tensor) else value, part), self.names
        )

    def _to_store(self, name: str, value: Tensor, samples: int) -> np.ndarray:
        dtype, shape = self._layout[name]
        value = value.permute(*self._outputs[name]["order"])
        if value.shape != (samples * shape[0], *shape[1:]):
            raise ConfigError(
                f"kd.teacher_cache: teacher.{name} is {tuple(value.shape)} for {samples} samples, {shape} for one: "
                "only outputs with a dimension of the samples, of one size each, can be kept"
            )
        largest = float(value.abs().amax()) if dtype == "float16" else 0.0
        if not largest <= float(np.finfo(np.float16).max):
            raise ConfigError(
                f"kd.teacher_cache.map_dtype: teacher.{name} reaches {largest:.3g}, beyond float16; use float32"
            )
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
        return value.numpy().astype(dtype).reshape(samples, *shape)

    def _check(self, stored: Rows, batch: Mapping[str, Any], rows: np.ndarray, which: np.ndarray) -> None:
        """Compute stored samples again: they must be what the teacher returns now."""
        self._to_check -= len(which)
        self.checked += len(which)
        before = stored.read(rows[which])
        for name, now in self._compute_rows(batch, which).items():
            if now.dtype.kind != "f":
                # Labels of two tied classes may swap: a few of many values are rounding, more are another teacher.
                changed = (before[name] != now).mean(tuple(range(1, now.ndim)))
                if (changed > _TOLERANCE).any():
                    self._stale(name, batch["index"][which[int(changed.argmax())]], changed.max())
                continue
            then = before[name].astype(np.float64)
            axes = tuple(range(1, then.ndim))
            off = np.abs(then - now).max(axes) / np.maximum(np.abs(then).max(axes), 1e-6)
            if not (off <= _TOLERANCE).all():
                self._stale(name, batch["index"][which[int(off.argmax())]], off.max())

    def _stale(self, name: str, sample: Tensor, fraction: float) -> NoReturn:
        raise ConfigError(
            f"kd.teacher_cache: the teacher's {name} of sample {int(sample)} is off by {fraction:.1%} from what is "
            f"stored in {self.folder}: teacher or data changed in a way that no setting shows, or the net is not "
            "deterministic. Delete that folder, or set kd.teacher_cache.enabled=false"
        )

    def _open(self, batch: Mapping[str, Any]) -> Rows:
        """Open the folder; make it first where there is none."""
        meta = self.folder / "meta.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / ".lock").open("w")
        except OSError as error:
            raise storage_error(self.folder, error) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of several processes one makes it
            if not meta.is_file():
                self._create(batch, meta)
            read_mapping(meta)  # names a file that is broken
            metadata = json.loads(meta.read_text())  # null is a setting here, not a nan
        if missing := [key for key in ("identity", "state", "outputs") if not isinstance(metadata.get(key), dict)]:
            raise damaged(meta, f"it has no {missing[0]!r}")
        now = {"identity": self.identity, "state": self.state}
        if changed := differences({key: metadata[key] for key in now}, now):
            raise ConfigError(
                f"kd.teacher_cache: {self.folder} was made for something else ({'; '.join(changed[:3])}). Delete it"
            )
        self._outputs = metadata["outputs"]
        if sorted(self._outputs) != self.names:
            raise damaged(meta, f"it has the outputs {', '.join(self._outputs)} for {', '.join(self.names)}")
        self._rows = Rows(self.folder, self._layout)
        return self._rows

    @property
    def _layout(self) -> Layout:
        return {name: (output["stored"], tuple(output["shape"])) for name, output in self._outputs.items()}

    def _create(self, batch: Mapping[str, Any], meta: Path) -> None:
        one, two = (self._run_teacher(batch, slice(number)) for number in (1, 2))
        self._outputs = {}
        for name, value in one.items():
            if value.ndim == 0:
                raise ConfigError(f"kd.teacher_cache: teacher.{name} is a scalar; only outputs per sample can be kept")
            plain = str(value.dtype).removeprefix("torch.")
            stored = plain if not value.is_floating_point() else self.map_dtype if value.ndim > 2 else "float32"
            # As it lies in memory (channels last, say): sums then add up in the same order, to the same bits.
            # The samples come first: that dimension grows with them (decoders put their layers before).
            samples = next((axis for axis in range(value.ndim) if value.shape[axis] != two[name].shape[axis]), 0)
            others = [axis for axis in range(value.ndim) if axis != samples]
            order = [samples, *sorted(others, key=[-stride for stride in value.stride()].__getitem__)]
            shape = [value.shape[axis] for axis in order]
            self._outputs[name] = {"shape": shape, "order": order, "stored": stored, "dtype": plain}
        row = sum(np.dtype(dtype).itemsize * int(np.prod(shape)) for dtype, shape in self._layout.values())
        free = shutil.disk_usage(self.folder).free
        if row * self.num_rows > free:
            raise ConfigError(
                f"kd.teacher_cache: {self.num_rows:,} samples and views of {row / 1e6:.2f} MB make "
                f"{row * self.num_rows / 1e9:.1f} GB; {free / 1e9:.1f} GB are free in {self.folder}. Name another "
                "disk with cache=..., or take fewer kd.teacher_cache.views"
            )
        create(self.folder, self.num_rows, self._layout)
        write_json(meta, {"identity": self.identity, "state": self.state, "outputs": self._outputs})

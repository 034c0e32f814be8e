"""A trained net as a checked ONNX file."""

import copy
import logging
import sysconfig
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kd_runner.distillation.features import FeatureExtractor
from kd_runner.distillation.module import Distiller
from kd_runner.errors import ConfigError, nearest
from kd_runner.runtime.files import storage_error

log = logging.getLogger(__name__)


class ExportONNX:
    """Writes `model.onnx` and checks it against torch on validation samples; with `int8`, `model_int8.onnx` too.

    Args:
        tolerance: largest difference to torch, as a fraction of the largest output.
        agreement: least fraction of positions with the same largest channel.
        samples: validation samples that are checked, alone and in batches of two.
        outputs: features on the net's output that the file gives; None for all of them.
        part: path of the one module that is exported, where the rest has no ONNX form; the file's metadata says so.
        dynamic: axes of the file's inputs that may change: the batch first, boxes of an image, height and width.
        leave_out: arguments of the net that the file does without, the net having defaults for them.
        ranked: output that others are ranked by, best first, to those: rows with scores as close as the engines' own
            differences may stand in either order.
        int8: quantize as well, and measure both files on the validation set.
        calibration_samples: training samples for the ranges of INT8 activations.
        int8_tolerance: largest drop of the monitored metric from fp32 to INT8; 0.01 is one point.
        monitor: name of that metric; with `int8` it must be given.
        class_names: of the data set, for the file's metadata.
        experiment: name of the experiment, likewise.

    Raises:
        ConfigError: the file differs by more.
    """

    def __init__(
        self,
        tolerance: float,
        agreement: float,
        samples: int,
        outputs: Sequence[str] | None = None,
        part: str | None = None,
        dynamic: Sequence[str] = ("batch", "height", "width"),
        leave_out: Sequence[str] = (),
        ranked: Mapping[str, Sequence[str]] | None = None,
        int8: bool = False,
        calibration_samples: int = 64,
        int8_tolerance: float = 0.01,
        monitor: str | None = None,
        class_names: Sequence[str] = (),
        experiment: str = "",
    ):
        if int8 and part is not None:
            raise ValueError("INT8 is for whole nets: export.part must be null")
        self.tolerance, self.agreement, self.samples = tolerance, agreement, samples
        self.outputs, self.part, self.dynamic, self.leave_out = outputs, part, dynamic, leave_out
        if int8 and monitor is None:
            raise ValueError("INT8 is accepted by a metric: monitor must be its name")
        self.int8_tolerance, self.monitor = int8_tolerance, monitor
        self.ranked = ranked or {}
        self.int8, self.calibration_samples = int8, calibration_samples
        self.class_names, self.experiment = list(class_names), experiment
        self.result: dict[str, Any] = {}

    def export(
        self,
        module: Distiller,
        data: Any,
        folder: Path,
        scores: Mapping[str, float] | None = None,
        teacher_sha256: str | None = None,
    ) -> dict[str, Any]:
        """Export the module's student.

        Args:
            module: holds the student.
            data: the data module.
            folder: where to write.
            scores: metric to its value, for the file's metadata.
            teacher_sha256: digest of the teacher, likewise; None for that of the module.

        Returns:
            The sizes and differences of the files.

        Raises:
            ConfigError: the file differs from torch by more than the tolerance.
        """
        with explained(module.net):
            return self._export(module, data, folder, scores or {}, teacher_sha256)

    def _export(
        self, module: Distiller, data: Any, folder: Path, scores: Mapping[str, float], teacher_sha256: str | None
    ) -> dict[str, Any]:
        from kd_runner.export import deployment, onnx  # onnxruntime is heavy, and a run without export needs none

        net, batches = self._exported(module.student, self._batches(data))
        for name in (name for score, rows in self.ranked.items() for name in (score, *rows)):
            if name not in net.features:
                raise ConfigError(f"export.ranked: the file gives no {name!r}.{nearest(name, net.features)}")
        # A file that is not checked yet, or was refused, does not have the name of a checked one.
        draft, file = folder / ".model.draft.onnx", folder / "model.onnx"
        file.unlink(missing_ok=True)
        try:
            metadata = deployment.metadata(
                module, data, self.class_names, self.experiment, scores, teacher_sha256, self.part
            )
            axes = onnx.export(net, batches[-1], draft, metadata, self.dynamic)
            result = onnx.compare(net, draft, self._checked(batches, net.inputs, axes), self.ranked)
            self._accept(result, file)
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)
        self.result = {"onnx": {"file": file.name, "bytes": file.stat().st_size, "dynamic": axes, **result}}
        log.info(
            "%s: %.1f MB, dynamic %s, max error %.1e (%.1e of the largest output), same class %s",
            file, file.stat().st_size / 1e6, ", ".join(axes) or "nothing", result["max_error"],
            result["relative_error"],
            "not compared" if result["agreement"] is None else f"{result['agreement']:.3%}",
        )  # fmt: skip
        if self.int8:
            self._quantize(module, net, data, folder)
        return self.result

    @staticmethod
    def _checked(
        batches: list[dict[str, Tensor]], inputs: Mapping[str, str], axes: Sequence[str]
    ) -> list[dict[str, Tensor]]:
        """The batches by which the file is compared: of other sizes too, where its axes allow."""
        if "batch" not in axes:
            first = next(iter(inputs.values()))
            batches = [batch for batch in batches if len(batch[first]) == len(batches[-1][first])]
        if "boxes" in axes:
            batches = [*batches, _fewer(batches[-1], inputs)]
        if "height" in axes:
            batches = [*batches, _larger(batches[-1], inputs)]
        return batches

    def _accept(self, result: Mapping[str, Any], file: Path) -> None:
        agreement = 1.0 if result["agreement"] is None else result["agreement"]
        if result["relative_error"] > self.tolerance or agreement < self.agreement:
            raise ConfigError(
                f"export.tolerance: {file} differs from torch by {result['relative_error']:.1e} of the largest output "
                f"(tolerance {self.tolerance}), same class at {agreement:.4%} (agreement {self.agreement}); not kept"
            )

    def arguments(self, net: FeatureExtractor, data: Any) -> dict[str, Tensor]:
        """What the net's file is called with for one sample.

        Args:
            net: the teacher or the student.
            data: the data module.

        Returns:
            Argument to tensor.
        """
        net, (batch,) = self._exported(net, [next(self._batches(data))])
        return {argument: batch[name] for argument, name in net.inputs.items()}

    def _exported(
        self, net: FeatureExtractor, batches: Iterable[dict[str, Tensor]]
    ) -> tuple[FeatureExtractor, list[dict[str, Tensor]]]:
        """What of the net goes into the file, a copy on the CPU, and its inputs for each batch."""
        from kd_runner.export import onnx

        net, batches = copy.copy(net), list(batches)
        net.net = copy.deepcopy(net.net).cpu().eval()
        self._check(net.inputs, onnx.AXES)
        net.inputs = {argument: name for argument, name in net.inputs.items() if argument not in self.leave_out}
        if self.part is not None:
            pieces = [onnx.part(net, self.part, batch) for batch in batches]
            net, batches = pieces[0][0], [batch for _, batch in pieces]
        if self.outputs is not None:
            net = onnx.only(net, self.outputs)
        return net, batches

    def _quantize(self, module: Distiller, net: Any, data: Any, folder: Path) -> None:
        from kd_runner.export import int8

        draft, file = folder / ".model_int8.draft.onnx", folder / "model_int8.onnx"
        file.unlink(missing_ok=True)
        try:
            int8.quantize(folder / "model.onnx", draft, data.calibration(self.calibration_samples), net.inputs)
            fp32 = self._measure(module, data, folder / "model.onnx", net.inputs)
            quantized = self._measure(module, data, draft, net.inputs)
            monitor = str(self.monitor)
            if monitor not in fp32:
                raise ConfigError(f"export.monitor: no metric {monitor!r}.{nearest(monitor, fp32)}")
            try:
                int8.check_metric(monitor, fp32[monitor], quantized[monitor], self.int8_tolerance)
            except ValueError as error:
                raise ConfigError(f"export.int8_tolerance: {error}. {folder / 'model.onnx'} is kept") from error
            draft.replace(file)
        finally:
            draft.unlink(missing_ok=True)
        self.result["int8"] = {
            "file": file.name,
            "bytes": file.stat().st_size,
            "metrics": {"fp32": fp32, "int8": quantized},
        }
        for name, value in quantized.items():
            if "/" not in name:
                log.info("%s: %s %.4f, fp32 %.4f", file, name, value, fp32[name])

    @staticmethod
    def _measure(module: Distiller, data: Any, file: Path, inputs: Mapping[str, str]) -> dict[str, float]:
        """The module's metrics, the ONNX file in the student's place."""
        from kd_runner.export import onnx

        runner = onnx.session(file)
        names = [output.name for output in runner.get_outputs()]
        metrics: Any = copy.deepcopy(module.metrics).cpu()
        for batch in data.plain_val_loader():
            feeds = {argument: batch[name].numpy() for argument, name in inputs.items()}
            outputs = dict(zip(names, map(torch.from_numpy, runner.run(names, feeds))))
            module.update_metrics(metrics, {"batch": batch, "student": outputs})
        return {name: float(value) for name, value in module.compute_metrics(metrics).items()}

    def _check(self, inputs: Mapping[str, str], axes: Sequence[str]) -> None:
        if list(self.dynamic[:1]) not in ([], ["batch"]) or not set(self.dynamic) <= set(axes):
            raise ConfigError(f"export.dynamic: {list(self.dynamic)}: the batch first, all of {list(axes)}")
        for argument in self.leave_out:
            if argument not in inputs:
                raise ConfigError(f"export.leave_out: the net has no {argument!r}.{nearest(argument, inputs)}")

    def _batches(self, data: Any) -> Iterator[dict[str, Tensor]]:
        samples = [data.val[index] for index in range(min(self.samples, len(data.val)))]
        yield data.collate(samples[:1])
        for first in range(0, len(samples) - 1, 2):
            yield data.collate(samples[first : first + 2])


@contextmanager
def explained(net: nn.Module) -> Iterator[None]:
    """What the exporter or onnxruntime cannot do with a net, as one line.

    Args:
        net: what is exported.

    Yields:
        Nothing.

    Raises:
        ConfigError: with the line of the net at which tracing stopped.
    """
    try:
        yield
    except ConfigError:
        raise
    except OSError as error:
        raise storage_error(Path("."), error) from error
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None or (cause.__context__ is not None and not cause.__suppress_context__):
            cause = cause.__cause__ or cause.__context__ or cause
        packages = sysconfig.get_path("purelib")
        frames = traceback.extract_tb(cause.__traceback__)
        own = [f for f in frames if not f.filename.startswith((packages, "<")) and f.filename != __file__]
        own = [f for f in own if not f.filename.startswith(str(Path(__file__).parent))]
        line = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
        text = " ".join(next((line for line in str(cause).splitlines() if line.strip()), "").split())[:300]
        raise ConfigError(
            f"export: {type(net).__name__} has no ONNX form as it is{line}: {type(cause).__name__}: {text}. The "
            "trained weights are kept. Mend the line and go on with resume=, name a part of the net with export.part, "
            "or take export=none"
        ) from error


def _larger(batch: Mapping[str, Tensor], inputs: Mapping[str, str]) -> dict[str, Tensor]:
    """The same images on a larger, non-square canvas."""
    images = {name: batch[name] for name in inputs.values() if batch[name].ndim == 4}
    return {**batch, **{name: torch.nn.functional.pad(image, (0, 64, 0, 32)) for name, image in images.items()}}


def _fewer(batch: Mapping[str, Tensor], inputs: Mapping[str, str]) -> dict[str, Tensor]:
    """The same images with one box each."""
    return {**batch, **{name: batch[name][:, :1] for name in inputs.values() if batch[name].ndim == 3}}

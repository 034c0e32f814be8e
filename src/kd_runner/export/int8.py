"""INT8 static quantization by onnxruntime."""

import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor


class _Samples(CalibrationDataReader):
    def __init__(self, batches: Iterable[Mapping[str, Tensor]], inputs: Mapping[str, str]):
        self._feeds: Iterator[dict[str, np.ndarray]] = (
            {argument: batch[name].numpy() for argument, name in inputs.items()} for batch in batches
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def check_metric(name: str, fp32: float, int8: float, tolerance: float) -> None:
    """Compare the metric of the INT8 file with that of the fp32 file.

    Args:
        name: the metric, larger is better.
        fp32: its value for the fp32 file.
        int8: its value for the INT8 file.
        tolerance: largest drop that is accepted, in the metric's own unit (0.01 is one point).

    Raises:
        ValueError: the drop is larger, or one of the values is not finite.
    """
    if not (math.isfinite(fp32) and math.isfinite(int8)):
        raise ValueError(f"{name} is {int8} with INT8 weights and {fp32} with fp32 weights: nothing to compare")
    if fp32 - int8 > tolerance:
        raise ValueError(
            f"INT8 loses {100 * (fp32 - int8):.2f} points of {name} ({int8:.4f}, fp32 {fp32:.4f}); the tolerance is "
            f"{100 * tolerance:g} points"
        )


def quantize(source: Path, target: Path, batches: Iterable[Mapping[str, Tensor]], inputs: Mapping[str, str]) -> None:
    """Write `target`, an INT8 version of the ONNX file `source`: weights per channel, activations from calibration.

    Seven-bit weights (`reduce_range`): processors without VNNI add pairs of products in 16 bits, which eight overflow.

    Args:
        source: the ONNX file.
        target: the INT8 file.
        batches: calibration data: training samples, as training sees them.
        inputs: argument of the net to batch key.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        beside = target.with_name(f".{target.name}.part")
        quantize_static(
            str(prepared),
            str(beside),
            _Samples(batches, inputs),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
        )
        beside.replace(target)

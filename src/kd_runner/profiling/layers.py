"""Latency of single convolutions and linear layers at any width, measured once and kept."""

import hashlib
import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from kd_runner.runtime.files import read_json, write_json

ENGINES = ("torch", "onnxruntime")


class LayerTimes:
    """Lookup table of milliseconds.

    Args:
        engine: `torch` or `onnxruntime`, on the CPU with as many threads as torch uses.
        folder: where the table is kept, in a file named after machine, engine, its version and threads; None keeps it
            in memory.
        repeats: measured calls of a layer, the fastest of which counts: it was disturbed least.
    """

    def __init__(self, engine: str, folder: Path | None = None, repeats: int = 7):
        self.engine, self.repeats = engine, repeats
        machine = [platform.node(), platform.processor(), engine, _version(engine), torch.get_num_threads()]
        name = hashlib.sha256(json.dumps(machine).encode()).hexdigest()[:16]
        self.file = None if folder is None else folder / f"layer_times_{name}.json"
        self.times: dict[str, float] = read_json(self.file) if self.file is not None and self.file.is_file() else {}

    def milliseconds(self, layer: nn.Module, weight: Sequence[int], spatial: Sequence[int]) -> float:
        """Time of one call.

        Args:
            layer: convolution or linear layer whose kernel, stride, padding and dilation are taken.
            weight: shape of its weight at the width in question.
            spatial: shape of its input without the channels: batch, then height and width, or tokens.

        Returns:
            Milliseconds, from the table where it has them.
        """
        settings = [getattr(layer, name, None) for name in ("stride", "padding", "dilation", "output_padding")]
        depthwise = isinstance(layer, _ConvNd) and layer.groups > 1
        key = json.dumps([type(layer).__name__, list(weight), list(spatial), settings, depthwise])
        if key not in self.times:
            call = _torch(layer, weight, spatial) if self.engine == "torch" else _onnx(layer, weight, spatial)
            self.times[key] = _fastest(call, self.repeats)
        return self.times[key]

    def save(self) -> None:
        """Write the table, if it has a file."""
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.file, self.times)


def _version(engine: str) -> str:
    if engine == "torch":
        return torch.__version__
    import onnxruntime

    return str(onnxruntime.__version__)


def _fastest(call: Callable[[], Any], repeats: int) -> float:
    call()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return 1000 * min(times)


def _at_width(layer: nn.Module, weight: Sequence[int]) -> nn.Module:
    """A new layer of the same kind with a weight of this shape."""
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return nn.Linear(weight[1], weight[0], bias)
    if not isinstance(layer, _ConvNd):
        raise TypeError(f"no convolution and no linear layer: {type(layer).__name__}")
    same: dict[str, Any] = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation, "bias": bias}
    cls: Any = next(base for base in type(layer).__mro__ if base.__module__ == "torch.nn.modules.conv")
    if layer.groups > 1:
        return cls(weight[0], weight[0], layer.kernel_size, groups=weight[0], **same)
    if isinstance(layer, _ConvTransposeNd):
        return cls(weight[0], weight[1], layer.kernel_size, output_padding=layer.output_padding, **same)
    return cls(weight[1], weight[0], layer.kernel_size, **same)


def _input(layer: nn.Module, spatial: Sequence[int]) -> torch.Tensor:
    if isinstance(layer, nn.Linear):
        return torch.randn(*spatial, layer.in_features)
    channels: Any = layer.in_channels
    return torch.randn([spatial[0], channels, *spatial[1:]])


def _torch(layer: nn.Module, weight: Sequence[int], spatial: Sequence[int]) -> Callable[[], Any]:
    module: nn.Module = _at_width(layer, weight).eval()
    x = _input(module, spatial)

    def call() -> Any:
        with torch.inference_mode():
            return module(x)

    return call


def _onnx(layer: nn.Module, weight: Sequence[int], spatial: Sequence[int]) -> Callable[[], Any]:
    """The same as a file of one node."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    module: Any = _at_width(layer, weight)
    x = _input(module, spatial)
    values: Any = module.weight.detach().numpy()
    attributes: dict[str, Any] = {}
    if isinstance(module, _ConvNd):
        kind = "ConvTranspose" if isinstance(module, _ConvTransposeNd) else "Conv"
        attributes = {"strides": module.stride, "dilations": module.dilation, "group": module.groups}
        if isinstance(module.padding, str):
            attributes["auto_pad"] = "SAME_UPPER" if module.padding == "same" else "VALID"
        else:
            attributes["pads"] = [*module.padding, *module.padding]
    else:
        kind, values = "MatMul", values.T.copy()
    node = helper.make_node(kind, ["x", "w"], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x.shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {"x": x.numpy()}
    return lambda: session.run(None, feeds)

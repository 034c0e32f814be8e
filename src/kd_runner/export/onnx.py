"""A net as an ONNX file, and the proof that the file computes what torch does."""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from kd_runner.taps import TappedNet

log = logging.getLogger(__name__)
# What these tell at INFO is for their own developers.
for _name in ("onnx_ir", "onnxscript"):
    logging.getLogger(_name).setLevel(logging.WARNING)

Dynamic = dict[str, dict[int, Any]]


class Outputs(nn.Module):
    """The net with its tapped outputs in a tuple, the order that of `names`: what an ONNX file gives."""

    def __init__(self, tapped: TappedNet):
        super().__init__()
        self.net, self._tapped = tapped.net, tapped
        self.names = [name for name, path in tapped.taps.items() if path.startswith(":")]

    def forward(self, **inputs: Tensor) -> tuple[Tensor, ...]:
        found = self._tapped.outputs(self.net(**inputs), self.names)
        return tuple(found[name] for name in self.names)


def session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """onnxruntime on the CPU; `threads` 0 lets it choose."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def export(tapped: TappedNet, batch: Mapping[str, Tensor], path: Path) -> list[str]:
    """Write `path`: inputs named as the net's arguments, outputs as the taps on its output (`:...`).

    Batch is dynamic, and so are height and width of images (B, C, H, W), where the net allows.

    Returns:
        names of the dynamic axes, of (batch, height, width).
    """
    net = Outputs(tapped).eval()
    arguments = {argument: batch[name].detach().cpu() for argument, name in tapped.inputs.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    for axes in (["batch", "height", "width"], ["batch"], []):
        try:
            program = _program(net, arguments, axes)
        except torch.onnx.OnnxExporterError as error:
            if not axes:
                raise
            log.debug("no export with dynamic %s: %s", axes, error)
            continue
        beside = path.with_name(f".{path.name}.part")
        program.save(beside, external_data=False)
        beside.replace(path)
        return axes
    raise AssertionError


def _program(net: Outputs, arguments: dict[str, Tensor], axes: list[str]) -> Any:
    shapes = {name: _dynamic(tensor, axes) for name, tensor in arguments.items()}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return torch.onnx.export(
            net,
            kwargs=arguments,
            dynamo=True,
            dynamic_shapes={"inputs": shapes} if axes else None,
            input_names=list(arguments),
            output_names=net.names,
            verbose=False,
        )


def _dynamic(tensor: Tensor, axes: list[str]) -> dict[int, Any]:
    wanted = axes if tensor.ndim == 4 else axes[:1]
    return dict.fromkeys((0, 2, 3)[: len(wanted)], torch.export.Dim.DYNAMIC)


@torch.no_grad()
def compare(tapped: TappedNet, path: Path, batches: Iterable[Mapping[str, Tensor]]) -> dict[str, float]:
    """The file against torch, element by element.

    Returns:
        `max_error`, the largest absolute difference; `relative_error`, that over the largest absolute value;
        `agreement`, the share of places where the largest channel is the same, the least of all outputs.
    """
    net, runner = Outputs(tapped).eval(), session(path)
    largest, scale, same, places = 0.0, 0.0, 0, 0
    for batch in batches:
        arguments = {argument: batch[name].cpu() for argument, name in tapped.inputs.items()}
        expected = net(**arguments)
        got = runner.run(net.names, {name: tensor.numpy() for name, tensor in arguments.items()})
        for ours, theirs in zip(expected, got, strict=True):
            reference = ours.numpy()
            largest = max(largest, float(np.abs(reference - theirs).max()))
            scale = max(scale, float(np.abs(reference).max()))
            if reference.ndim > 1:
                agree = reference.argmax(1) == theirs.argmax(1)
                same, places = same + int(agree.sum()), places + agree.size
    return {
        "max_error": largest,
        "relative_error": largest / max(scale, 1e-12),
        "agreement": same / places if places else 1.0,
    }


def call(path: Path, arguments: Mapping[str, Tensor]) -> Callable[[], Any]:
    """One run of the file, for timing: as many threads as torch uses."""
    runner = session(path, threads=torch.get_num_threads())
    feeds = {name: value.numpy() for name, value in arguments.items()}
    return lambda: runner.run(None, feeds)

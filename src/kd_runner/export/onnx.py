"""Export a net to ONNX, and compare the file with torch."""

import contextlib
import inspect
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime
import torch
from torch import Tensor, nn

from kd_runner.distillation.features import FeatureExtractor
from kd_runner.errors import ConfigError, find_module, nearest
from kd_runner.export.ranked import paired

log = logging.getLogger(__name__)
# Their messages at INFO are for their own developers.
for _name in ("onnx_ir", "onnxscript"):
    logging.getLogger(_name).setLevel(logging.ERROR)

# Axes that may be dynamic, by the dimensions of an input: images (B, C, H, W), and (B, N, ...) of N boxes an image.
_AXES = {4: {"batch": 0, "height": 2, "width": 3}, 3: {"batch": 0, "boxes": 1}}
AXES = ("batch", "boxes", "height", "width")


class Outputs(nn.Module):
    """A net with its output features as a tuple in the order of `names`: the outputs of the ONNX file.

    Args:
        features: the net and its features.
    """

    def __init__(self, features: FeatureExtractor):
        super().__init__()
        self.net, self._features = features.net, features
        self.names = [name for name, path in features.features.items() if path.startswith(":")]

    def forward(self, **inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the net.

        Args:
            **inputs: its arguments.

        Returns:
            The features.
        """
        outputs = self._features.outputs(self.net(**self._features.prepared(inputs)), self.names, inputs)
        return tuple(outputs[name] for name in self.names)


def only(features: FeatureExtractor, names: Sequence[str]) -> FeatureExtractor:
    """The same net, with only these of its outputs as features.

    Args:
        features: the net and its features.
        names: features on the net's own output.

    Returns:
        The net with those.

    Raises:
        ConfigError: a name is no feature on the net's own output.
    """
    outputs = [name for name, path in features.features.items() if path.startswith(":")]
    for name in names:
        if name not in outputs:
            raise ConfigError(
                f"export.outputs: {features.role}.features has no output {name!r}.{nearest(name, outputs)}"
            )
    chosen = {name: features.features[name] for name in names}
    transforms = {name: value for name, value in features.transforms.items() if name in chosen}
    inputs = features.input_transforms
    return FeatureExtractor(features.net, features.inputs, chosen, features.role, None, transforms, inputs)


@torch.no_grad()
def part(
    features: FeatureExtractor, path: str, batch: Mapping[str, Tensor]
) -> tuple[FeatureExtractor, dict[str, Tensor]]:
    """A module inside the net, as a net that returns a mapping of tensors, and the batch of its inputs.

    The net need not have registered it: an attribute that is a module will do.

    Args:
        features: the whole net.
        path: of the module.
        batch: name to stacked tensor.

    Returns:
        The module with its outputs as features, and its inputs by name.

    Raises:
        ConfigError: the net has no such module.
    """
    module = getattr(features.net, path, None)
    if not isinstance(module, nn.Module):
        module = find_module(features.net, path, "export.part: the student")
    inputs: dict[str, Any] = {}
    outputs: list[str] = []

    def record(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        inputs.update(inspect.signature(module.forward).bind(*args, **named).arguments)
        outputs.extend(output)

    hook = module.register_forward_hook(record, with_kwargs=True)
    try:
        features(batch, [])
    finally:
        hook.remove()
    paths = {name: f":{name}" for name in outputs}
    return FeatureExtractor(module, {name: name for name in inputs}, paths, features.role), inputs


def session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """Open a file in onnxruntime on the CPU.

    Args:
        path: the file.
        threads: number of threads; 0 lets onnxruntime choose.

    Returns:
        The session.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def export(
    features: FeatureExtractor,
    batch: Mapping[str, Tensor],
    path: Path,
    metadata: Mapping[str, str] | None = None,
    dynamic: Sequence[str] = ("batch", "height", "width"),
) -> list[str]:
    """Write an ONNX file: inputs named as the net's arguments, outputs as the features on its output (`:...`).

    Args:
        features: the net and its features.
        batch: an example, name to stacked tensor.
        path: the file.
        metadata: goes into the file.
        dynamic: axes that may have any size (of `AXES`, the batch first), where the net allows; they carry these names.

    Returns:
        Names of the dynamic axes.
    """
    net = Outputs(features).eval()
    arguments = {argument: batch[name].detach().cpu() for argument, name in features.inputs.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    for axes in dict.fromkeys((tuple(dynamic), tuple(dynamic[:1]), ())):
        try:
            program = _program(net, arguments, axes)
        except torch.onnx.OnnxExporterError as error:
            if not axes:
                raise
            log.debug("no export with dynamic %s: %s", axes, error)
            continue
        _name_axes(program.model, axes)
        program.model.metadata_props.update(metadata or {})
        beside = path.with_name(f".{path.name}.part")
        program.save(beside, external_data=False)
        beside.replace(path)
        return list(axes)
    raise ValueError("no axes to try")


def _program(net: Outputs, arguments: dict[str, Tensor], axes: Sequence[str]) -> Any:
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


def _dynamic(tensor: Tensor, axes: Sequence[str]) -> dict[int, Any]:
    dimensions = _AXES.get(tensor.ndim, {"batch": 0})
    return {dimension: torch.export.Dim.DYNAMIC for axis, dimension in dimensions.items() if axis in axes}


def _name_axes(model: onnx_ir.Model, axes: Sequence[str]) -> None:
    """Give the exporter's symbols (`s71`) the names of the axes, also in sizes computed from them."""
    names: dict[str, str] = {}
    for value in model.graph.inputs:
        if value.shape is None:
            continue
        dimensions = _AXES.get(len(value.shape), {"batch": 0})
        for axis, dimension in dimensions.items():
            size = value.shape[dimension]
            if axis in axes and isinstance(size, onnx_ir.SymbolicDim):
                # Of two inputs with such an axis, of different sizes, the second's is named after the input too.
                symbol = str(size.value)
                names.setdefault(symbol, f"{value.name}_{axis}" if axis in names.values() else axis)

    def renamed(size: int | onnx_ir.SymbolicDim) -> int | onnx_ir.SymbolicDim:
        if not isinstance(size, onnx_ir.SymbolicDim) or size.value is None:
            return size
        return onnx_ir.SymbolicDim(re.sub(r"[A-Za-z_]\w*", lambda word: names.get(word[0], word[0]), size.value))

    outputs = [value for node in model.graph.all_nodes() for value in node.outputs]
    for value in {id(value): value for value in (*model.graph.inputs, *model.graph.outputs, *outputs)}.values():
        if value.shape is not None:
            value.shape = onnx_ir.Shape([renamed(size) for size in value.shape])


@torch.no_grad()
def compare(
    features: FeatureExtractor,
    path: Path,
    batches: Iterable[Mapping[str, Tensor]],
    ranked: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Compare the file with torch, element by element.

    Args:
        features: the net and its features.
        path: the file.
        batches: what both are run on.
        ranked: score to the outputs whose rows stand in its order, see `ranked.paired`.

    Returns:
        `max_error`, the largest absolute difference; `relative_error`, of the output where it is worst, the largest
        difference over the largest absolute value; `agreement`, the fraction of equal classes: the largest channel of
        (B, C) and (B, C, H, W), equal whole numbers; None where no output is of that kind.

    Raises:
        ConfigError: an output of torch or of the file is not finite.
    """
    net, runner = Outputs(features).eval(), session(path)
    errors, scales = dict.fromkeys(net.names, 0.0), dict.fromkeys(net.names, 1e-12)
    equal, count = 0, 0
    # Rows in the order of a score are no classes.
    by_rank = {name for score, rows in (ranked or {}).items() for name in (score, *rows)}
    for batch in batches:
        arguments = {argument: batch[name].cpu() for argument, name in features.inputs.items()}
        expected = dict(zip(net.names, (output.numpy() for output in net(**arguments)), strict=True))
        values = runner.run(net.names, {name: tensor.numpy() for name, tensor in arguments.items()})
        got = paired(expected, dict(zip(net.names, values, strict=True)), ranked or {})
        for name, reference in expected.items():
            output = got[name]
            if reference.dtype.kind != "f":
                equal, count = equal + int((reference == output).sum()), count + reference.size
                continue
            for engine, value in (("torch", reference), ("the file", output)):
                if not np.isfinite(value).all():
                    raise ConfigError(f"export: output {name!r} of {engine} is not finite: {path}")
            errors[name] = max(errors[name], float(np.abs(reference - output).max(initial=0)))
            scales[name] = max(scales[name], float(np.abs(reference).max(initial=0)))
            if reference.ndim == 4 or (reference.ndim == 2 and name not in by_rank):
                agree = reference.argmax(1) == output.argmax(1)
                equal, count = equal + int(agree.sum()), count + agree.size
    return {
        "max_error": max(errors.values()),
        "relative_error": max(errors[name] / scales[name] for name in errors),
        "agreement": equal / count if count else None,
    }


def call(path: Path, arguments: Mapping[str, Tensor]) -> Callable[[], Any]:
    """A function that runs the file once, for timing, with as many threads as torch uses.

    Args:
        path: the file.
        arguments: its inputs.

    Returns:
        The function.
    """
    runner = session(path, threads=torch.get_num_threads())
    feeds = {name: value.numpy() for name, value in arguments.items()}
    return lambda: runner.run(None, feeds)

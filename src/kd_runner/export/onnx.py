"""A net as an ONNX file, and the proof that the file computes what torch does."""

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from kd_runner.distillation.features import FeatureExtractor
from kd_runner.errors import ConfigError, nearest
from kd_runner.export.ranked import paired

log = logging.getLogger(__name__)
# What these tell at INFO is for their own developers.
for _name in ("onnx_ir", "onnxscript"):
    logging.getLogger(_name).setLevel(logging.ERROR)

# Axes that may be dynamic, by the dimensions of an input: images (B, C, H, W), and (B, N, ...) of N boxes an image.
_PLACES = {4: {"batch": 0, "height": 2, "width": 3}, 3: {"batch": 0, "boxes": 1}}
AXES = ("batch", "boxes", "height", "width")


class Outputs(nn.Module):
    """The net with its tapped outputs in a tuple, the order that of `names`: what an ONNX file gives."""

    def __init__(self, tapped: FeatureExtractor):
        super().__init__()
        self.net, self._tapped = tapped.net, tapped
        self.names = [name for name, path in tapped.features.items() if path.startswith(":")]

    def forward(self, **inputs: Tensor) -> tuple[Tensor, ...]:
        found = self._tapped.outputs(self.net(**inputs), self.names)
        return tuple(found[name] for name in self.names)


def only(tapped: FeatureExtractor, names: Sequence[str]) -> FeatureExtractor:
    """The same net, with only these of its outputs tapped.

    Raises:
        ConfigError: a name is no feature on the net's own output.
    """
    own = [name for name, path in tapped.features.items() if path.startswith(":")]
    for name in names:
        if name not in own:
            raise ConfigError(f"export.outputs: {tapped.role}.features has no output {name!r}.{nearest(name, own)}")
    return FeatureExtractor(tapped.net, tapped.inputs, {name: tapped.features[name] for name in names}, tapped.role)


@torch.no_grad()
def part(
    tapped: FeatureExtractor, path: str, batch: Mapping[str, Tensor]
) -> tuple[FeatureExtractor, dict[str, Tensor]]:
    """A module inside the net as a net of its own, which gives a mapping of tensors, and a batch of what it is given.

    The net need not have registered it: an attribute that is a module will do.

    Raises:
        ConfigError: the net has no such module.
    """
    modules = dict(tapped.net.named_modules())
    module = modules.get(path, getattr(tapped.net, path, None))
    if not isinstance(module, nn.Module):
        raise ConfigError(f"export.part: the student has no {path!r}.{nearest(path, modules)}")
    found: dict[str, Any] = {}

    def record(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        found.update(inspect.signature(module.forward).bind(*args, **named).arguments)
        found["output"] = output

    hook = module.register_forward_hook(record, with_kwargs=True)
    tapped(batch, [])
    hook.remove()
    features = {name: f":{name}" for name in found.pop("output")}
    return FeatureExtractor(module, {name: name for name in found}, features, tapped.role), found


def session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """onnxruntime on the CPU; `threads` 0 lets it choose."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def export(
    tapped: FeatureExtractor,
    batch: Mapping[str, Tensor],
    path: Path,
    note: Mapping[str, str] | None = None,
    dynamic: Sequence[str] = ("batch", "height", "width"),
) -> list[str]:
    """Write `path`: inputs named as the net's arguments, outputs as the features on its output (`:...`).

    The axes of `dynamic` (of `AXES`, the batch first) are, where the net allows. `note` goes into the file's metadata.

    Returns:
        names of the dynamic axes.
    """
    net = Outputs(tapped).eval()
    arguments = {argument: batch[name].detach().cpu() for argument, name in tapped.inputs.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    for axes in dict.fromkeys((tuple(dynamic), tuple(dynamic[:1]), ())):
        try:
            program = _program(net, arguments, axes)
        except torch.onnx.OnnxExporterError as error:
            if not axes:
                raise
            log.debug("no export with dynamic %s: %s", axes, error)
            continue
        program.model.metadata_props.update(note or {})
        beside = path.with_name(f".{path.name}.part")
        program.save(beside, external_data=False)
        beside.replace(path)
        return list(axes)
    raise AssertionError


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
    places = _PLACES.get(tensor.ndim, {"batch": 0})
    return {place: torch.export.Dim.DYNAMIC for axis, place in places.items() if axis in axes}


@torch.no_grad()
def compare(
    tapped: FeatureExtractor,
    path: Path,
    batches: Iterable[Mapping[str, Tensor]],
    ranked: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, float]:
    """The file against torch, element by element; rows that stand in the order of a score as `ranked.paired` says.

    Returns:
        `max_error`, the largest absolute difference; `relative_error`, of the output where it is worst, the largest
        difference over the largest absolute value; `agreement`, of places with the same class: the largest channel of
        a map (B, C, H, W), the same whole number.
    """
    net, runner = Outputs(tapped).eval(), session(path)
    errors, scales = dict.fromkeys(net.names, 0.0), dict.fromkeys(net.names, 1e-12)
    same, places = 0, 0
    for batch in batches:
        arguments = {argument: batch[name].cpu() for argument, name in tapped.inputs.items()}
        expected = dict(zip(net.names, (output.numpy() for output in net(**arguments)), strict=True))
        values = runner.run(net.names, {name: tensor.numpy() for name, tensor in arguments.items()})
        got = paired(expected, dict(zip(net.names, values, strict=True)), ranked or {})
        for name, reference in expected.items():
            theirs = got[name]
            if reference.dtype.kind == "f":
                errors[name] = max(errors[name], float(np.abs(reference - theirs).max(initial=0)))
                scales[name] = max(scales[name], float(np.abs(reference).max(initial=0)))
            if reference.dtype.kind != "f" or reference.ndim == 4:
                agree = reference == theirs if reference.dtype.kind != "f" else reference.argmax(1) == theirs.argmax(1)
                same, places = same + int(agree.sum()), places + agree.size
    return {
        "max_error": max(errors.values()),
        "relative_error": max(errors[name] / scales[name] for name in errors),
        "agreement": same / places if places else 1.0,
    }


def call(path: Path, arguments: Mapping[str, Tensor]) -> Callable[[], Any]:
    """One run of the file, for timing: as many threads as torch uses."""
    runner = session(path, threads=torch.get_num_threads())
    feeds = {name: value.numpy() for name, value in arguments.items()}
    return lambda: runner.run(None, feeds)

"""Milliseconds of nets in onnxruntime, without a checked file of each."""

import copy
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from kd_runner.distillation.features import FeatureExtractor
from kd_runner.export import onnx
from kd_runner.profiling import costs


def milliseconds(
    features: FeatureExtractor, batch: Mapping[str, Tensor]
) -> Callable[[Mapping[str, nn.Module]], dict[str, float]]:
    """A function that times nets in turns, with one sample and as many threads as torch uses.

    Args:
        features: inputs and outputs of the nets.
        batch: the sample.

    Returns:
        From name to net, to name to milliseconds.
    """
    batch = {key: batch[key][:1] for key in features.inputs.values()}
    arguments = features.one_sample(batch)

    calls: WeakKeyDictionary[nn.Module, Callable[[], Any]] = WeakKeyDictionary()  # the whole net is timed every time

    def measure(nets: Mapping[str, nn.Module]) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            for name, net in nets.items():
                if net not in calls:
                    one = copy.copy(features)
                    one.net, file = copy.deepcopy(net).cpu().eval(), Path(folder) / f"{name}.onnx"
                    onnx.export(one, batch, file, dynamic=())
                    calls[net] = onnx.call(file, arguments)
        return costs.latency({name: calls[net] for name, net in nets.items()}, statistic=min)

    return measure

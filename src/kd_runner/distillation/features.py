"""Named inputs and features of a net, without a change to the net.

A feature is `module.path` or `module.path:item.item`. The part behind the colon selects from a tuple or list (a number)
or from a mapping (a key). An empty module path is the net itself: `:out` is entry `out` of its output, `:` is the
output as it is. A path to a buffer gives the buffer, as it is after the pass.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kd_runner.distillation.student_file import save_student
from kd_runner.errors import ConfigError, find_module, nearest
from kd_runner.pruning.pruned import Pruned


class FeatureExtractor:
    """Calls a net with a batch and returns features by name, recorded with forward hooks.

    It is no `nn.Module`: the net stays a plain one, and its state dict has no prefix.

    Args:
        net: any module.
        inputs: argument name of `net.forward` to batch key.
        features: feature name to feature path (`module.path:item`).
        role: `student` or `teacher`; starts every message.
        train_inputs: further arguments, given in training mode only, e.g. the labels for denoising queries.
        transforms: feature name to a function of (feature, size (H, W) of the images), see `net_transforms`.
        input_transforms: argument name to a function of the batch's tensor, see `net_transforms`.

    Attributes:
        frozen: modules that stay in eval mode while the net trains (`student.share_modules`).
        pruned: what was removed from the net, or None.
        net_config: the resolved configuration that builds the net, `{"_target_": ..., ...}`, or None.

    Raises:
        ConfigError: a feature names no module of the net.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> features = FeatureExtractor(net, inputs={"input": "x"}, features={"hidden": "0", "logits": ":"})
        >>> {name: tuple(value.shape) for name, value in features({"x": torch.ones(3, 4)}).items()}
        {'hidden': (3, 8), 'logits': (3, 2)}
    """

    def __init__(
        self,
        net: nn.Module,
        inputs: Mapping[str, str],
        features: Mapping[str, str],
        role: str = "student",
        train_inputs: Mapping[str, str] | None = None,
        transforms: Mapping[str, Callable[[Tensor, tuple[int, int] | None], Tensor]] | None = None,
        input_transforms: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    ):
        self.net, self.inputs, self.features, self.role = net, dict(inputs), dict(features), role
        self.train_inputs = dict(train_inputs or {})
        self.transforms, self.input_transforms = dict(transforms or {}), dict(input_transforms or {})
        for group, known in (("feature_transforms", self.features), ("input_transforms", self.inputs)):
            for name in self.transforms if group == "feature_transforms" else self.input_transforms:
                if name not in known:
                    raise ConfigError(f"{role}.{group}.{name}: no such name.{nearest(name, known)}")
        self.frozen: list[nn.Module] = []
        self.pruned: Pruned | None = None
        self.net_config: dict[str, Any] | None = None
        self._buffers = {name for name, _ in net.named_buffers(remove_duplicate=False)}
        _check_arguments(net, self.inputs, self.train_inputs, role)
        for name, path in self.features.items():
            module = path.partition(":")[0]
            if module not in self._buffers:
                find_module(net, module, f"{role}.features.{name}: the net")

    def __call__(self, batch: Mapping[str, Any], names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Run the net once and return features by name. A module that runs twice gives its last output.

        Args:
            batch: tensors by key.
            names: the features; None for all of them.

        Raises:
            ConfigError: an unknown name, an input that the batch lacks, a module that was not called, an output that
                is no tensor, that a later module changed in place, or that was made without gradients while training.
        """
        names = list(self.features if names is None else names)
        recorded: dict[str, tuple[Tensor, int]] = {}
        hooks = []
        training = self.net.training and torch.is_grad_enabled()
        arguments = self._arguments(batch)
        try:
            for name in names:
                path, _, items = self._path(name).partition(":")
                if path and path not in self._buffers:
                    module = self.net.get_submodule(path)
                    hooks.append(module.register_forward_hook(self._recorder(recorded, name, items, training)))
            output = self.net(**self.prepared(arguments))
        except ConfigError:
            raise
        except ValueError as error:  # a net refuses its inputs in its own words
            raise ConfigError(f"{self.role}.net: {error}") from error
        finally:
            for hook in hooks:
                hook.remove()
        for name, (value, version) in recorded.items():
            if _version(value) != version:
                raise ConfigError(
                    f"{self._where(name)}: a later module changes this output in place, so it is not what "
                    "the module returned; set inplace=False there, or read the output of that later module"
                )
        features = {name: value for name, (value, _) in recorded.items()} | self._outputs(output, names)
        for name in names:
            if self.features[name] in self._buffers:
                features[name] = self.net.get_buffer(self.features[name])
            if name not in features:
                raise ConfigError(self._not_called(name, self._path(name), batch))
        return self._transformed(features, arguments)

    def save(self, path: Path) -> None:
        """Write the net as `.safetensors` that `kd_runner.load_student` rebuilds.

        Args:
            path: the file.
        """
        save_student(self.net, path, self.net_config, None if self.pruned is None else self.pruned.header)

    def one_sample(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Arguments of the net for the first sample of a batch, on the CPU.

        Args:
            batch: name to stacked tensor.

        Returns:
            Argument of `forward` to tensor.
        """
        return self.prepared({argument: batch[name][:1].cpu() for argument, name in self.inputs.items()})

    def outputs(self, output: Any, names: Iterable[str], arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        """Features on the net's own output (`:...`).

        Args:
            output: what the net returned.
            names: of features; those elsewhere in the net are left out.
            arguments: of the net, as the batch gives them.

        Returns:
            Name to tensor.
        """
        return self._transformed(self._outputs(output, names), arguments)

    def prepared(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What the net is called with (`input_transforms`).

        Args:
            arguments: of the net, as the batch gives them.

        Returns:
            Argument of `forward` to value.
        """
        transforms = self.input_transforms
        return {name: transforms[name](value) if name in transforms else value for name, value in arguments.items()}

    def _outputs(self, output: Any, names: Iterable[str]) -> dict[str, Tensor]:
        paths = {name: self.features[name] for name in names}
        return {name: self._item(name, output, path[1:]) for name, path in paths.items() if path.startswith(":")}

    def _transformed(self, features: dict[str, Tensor], arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        if not self.transforms:
            return features
        images = (value for value in arguments.values() if isinstance(value, Tensor) and value.ndim == 4)
        size: Any = next((tuple(image.shape[-2:]) for image in images), None)
        for name in features.keys() & self.transforms.keys():
            try:
                features[name] = self.transforms[name](features[name], size)
            except ValueError as error:
                raise ConfigError(f"{self.role}.feature_transforms.{name}: {error}") from error
        return features

    def _path(self, name: str) -> str:
        if name not in self.features:
            raise ConfigError(
                f"{self.role}.features has no {name!r}, which a loss or metric reads.{nearest(name, self.features)}"
            )
        return self.features[name]

    def _where(self, name: str) -> str:
        return f"{self.role}.features.{name} ({self.features[name]})"

    def _arguments(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        inputs = {**self.inputs, **self.train_inputs} if self.net.training else self.inputs
        for argument, name in inputs.items():
            if name not in batch:
                group = "inputs" if argument in self.inputs else "train_inputs"
                raise ConfigError(f"{self.role}.{group}.{argument}: the batch has no {name!r}.{nearest(name, batch)}")
        return {argument: batch[name] for argument, name in inputs.items()}

    def _recorder(self, recorded: dict[str, tuple[Tensor, int]], name: str, items: str, training: bool):
        def record(module: nn.Module, args: Any, output: Any) -> None:
            value = self._item(name, output, items)
            if training and not torch.is_grad_enabled() and value.is_floating_point() and _trains(module):
                raise ConfigError(
                    f"{self._where(name)}: it is computed without gradients, so a loss on it would train nothing; with "
                    "torch.utils.checkpoint give use_reentrant=False"
                )
            recorded[name] = value, _version(value)

        return record

    def _item(self, name: str, value: Any, items: str) -> Tensor:
        where = self._where(name)
        for item in filter(None, items.split(".")):
            if isinstance(value, Mapping):
                entries = {str(entry): entry for entry in value}
                if item not in entries:
                    raise ConfigError(f"{where}: no entry {item!r}.{nearest(item, entries)}")
                value = value[entries[item]]
            elif isinstance(value, tuple | list):
                if not item.lstrip("-").isdigit() or not -len(value) <= int(item) < len(value):
                    raise ConfigError(f"{where}: a {type(value).__name__} of {len(value)} has no item {item!r}.")
                value = value[int(item)]
            else:
                raise ConfigError(f"{where}: a {type(value).__name__} has no item {item!r}.")
        if isinstance(value, Mapping):
            raise ConfigError(
                f"{where}: the module returns a mapping; choose one with ':{next(iter(value), '')}'. "
                f"It has {', '.join(map(str, value))}."
            )
        if isinstance(value, tuple | list):
            raise ConfigError(
                f"{where}: the module returns a {type(value).__name__} of {len(value)}; choose one with ':0'."
            )
        if not isinstance(value, Tensor):
            raise ConfigError(f"{where}: a {type(value).__name__}, not a tensor.")
        return value

    def _not_called(self, name: str, path: str, batch: Mapping[str, Any]) -> str:
        """The message for a module that did not run: what ran instead."""
        called: list[str] = []
        hooks = [
            module.register_forward_hook(lambda *_, name=name: called.append(name))
            for name, module in self.net.named_modules()
            if name
        ]
        try:
            with torch.no_grad():
                self.net(**self.prepared(self._arguments(batch)))
        finally:
            for hook in hooks:
                hook.remove()
        module = path.partition(":")[0]
        inside = [name for name in called if name.startswith(module + ".")]
        hint = f" It is a container; {inside[-1]!r} inside it did run." if inside else nearest(module, called)
        return f"{self.role}.features.{name}: module {module!r} exists but is never called in the forward pass.{hint}"


def _check_arguments(net: nn.Module, inputs: Mapping[str, str], train_inputs: Mapping[str, str], role: str) -> None:
    """Check the names of the arguments of `forward`.

    Raises:
        ConfigError: `forward` takes no such argument, or needs one that is not given.
    """
    try:
        parameters = inspect.signature(net.forward).parameters
    except (TypeError, ValueError):  # a compiled module
        return
    kinds = {parameter.kind for parameter in parameters.values()}
    own = f"{type(net).__name__}.forward"
    for group, arguments in (("inputs", inputs), ("train_inputs", train_inputs)):
        for name in arguments:
            if name not in parameters and inspect.Parameter.VAR_KEYWORD not in kinds:
                raise ConfigError(f"{role}.{group}.{name}: {own} takes no {name!r}.{nearest(name, parameters)}")
    for name, parameter in parameters.items():
        optional = parameter.default is not inspect.Parameter.empty
        if name in inputs or optional or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        raise ConfigError(f"{role}.inputs.{name}: {own} needs it; give the batch's key for it")


def _version(value: Tensor) -> int:
    """How often a tensor was changed in place; tensors of inference mode do not count it."""
    return 0 if value.is_inference() else value._version


def _trains(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return not parameters or any(parameter.requires_grad for parameter in parameters)

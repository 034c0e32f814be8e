"""Call a net with named inputs and get features by name, without touching the net.

A feature is `module.path` or `module.path:item.item`. The part behind the colon picks from a tuple or list (a number)
or from a mapping (a key). An empty module path is the net itself: `:out` is entry `out` of its output, `:` is the
output as it is. A path to a buffer gives the buffer, as it is after the pass.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kd_runner.errors import ConfigError, nearest
from kd_runner.pruning.pruned import Pruned


class FeatureExtractor:
    """A net with named inputs and features.

    It is no module: the net stays a plain one, and its state dict has no prefix.

    Args:
        net: any module.
        inputs: argument name of `net.forward` to batch key.
        features: feature name to feature path.
        key: configuration key for messages, `student` or `teacher`.
        train_inputs: further arguments, given in training mode only: what a net draws denoising queries from.

    Attributes:
        frozen: modules that stay in eval mode while the net trains (`student.share_modules`).
        pruned: what was cut out of the net, or None.

    Raises:
        ConfigError: a feature names no module of the net.
    """

    def __init__(
        self,
        net: nn.Module,
        inputs: Mapping[str, str],
        features: Mapping[str, str],
        key: str,
        train_inputs: Mapping[str, str] | None = None,
    ):
        self.net, self.inputs, self.features, self.key = net, dict(inputs), dict(features), key
        self.train_inputs = dict(train_inputs or {})
        self.frozen: list[nn.Module] = []
        self.pruned: Pruned | None = None
        modules = dict(net.named_modules(remove_duplicate=False))
        self._buffers = {name for name, _ in net.named_buffers(remove_duplicate=False)}
        for name, path in self.features.items():
            module = path.partition(":")[0]
            if module not in modules and module not in self._buffers:
                raise ConfigError(f"{key}.features.{name}: no module {module!r}.{nearest(module, modules)}")

    def __call__(self, batch: Mapping[str, Any], names: Iterable[str]) -> dict[str, Tensor]:
        """Run the net once and return the named features. A module that runs twice gives its last output.

        Raises:
            ConfigError: an unknown name, an input that the batch lacks, a feature that did not fire or gave no tensor.
        """
        found: dict[str, Tensor] = {}
        hooks = []
        names = list(names)
        try:
            for name in names:
                module, _, items = self._path(name).partition(":")
                if module and module not in self._buffers:
                    hook = self._recorder(found, name, items)
                    hooks.append(self.net.get_submodule(module).register_forward_hook(hook))
            output = self.net(**self._arguments(batch))
        finally:
            for hook in hooks:
                hook.remove()
        found |= self.outputs(output, names)
        found |= {
            name: self.net.get_buffer(self.features[name]) for name in names if self.features[name] in self._buffers
        }
        for name in names:
            if name not in found:
                raise ConfigError(self._silent(name, self._path(name), batch))
        return found

    def one_sample(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Arguments of `net.forward` for the first sample of a batch, on the CPU."""
        return {argument: batch[name][:1].cpu() for argument, name in self.inputs.items()}

    def outputs(self, output: Any, names: Iterable[str]) -> dict[str, Tensor]:
        """Those of the names that are features on the net's own output (`:...`)."""
        own = {name: self.features[name] for name in names}
        return {name: self._item(name, output, path[1:]) for name, path in own.items() if path.startswith(":")}

    def _path(self, name: str) -> str:
        if name not in self.features:
            raise ConfigError(
                f"{self.key}.features has no {name!r}, which a loss or metric reads.{nearest(name, self.features)}"
            )
        return self.features[name]

    def _arguments(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        wanted = {**self.inputs, **self.train_inputs} if self.net.training else self.inputs
        for argument, name in wanted.items():
            if name not in batch:
                where = "inputs" if argument in self.inputs else "train_inputs"
                raise ConfigError(f"{self.key}.{where}.{argument}: the batch has no {name!r}.{nearest(name, batch)}")
        return {argument: batch[name] for argument, name in wanted.items()}

    def _recorder(self, found: dict[str, Tensor], name: str, items: str):
        def record(module: nn.Module, args: Any, output: Any) -> None:
            found[name] = self._item(name, output, items)

        return record

    def _item(self, name: str, value: Any, items: str) -> Tensor:
        where = f"{self.key}.features.{name} ({self.features[name]})"
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
                raise ConfigError(f"{where}: nothing to pick {item!r} from in a {type(value).__name__}.")
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

    def _silent(self, name: str, path: str, batch: Mapping[str, Any]) -> str:
        fired: list[str] = []
        hooks = [
            module.register_forward_hook(lambda *_, at=at: fired.append(at))
            for at, module in self.net.named_modules()
            if at
        ]
        try:
            with torch.no_grad():
                self.net(**self._arguments(batch))
        finally:
            for hook in hooks:
                hook.remove()
        module = path.partition(":")[0]
        inside = [at for at in fired if at.startswith(module + ".")]
        hint = f" It is a container; {inside[-1]!r} inside it did run." if inside else nearest(module, fired)
        return f"{self.key}.features.{name}: module {module!r} exists but is never called in the forward pass.{hint}"

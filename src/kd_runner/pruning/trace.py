"""Find the coupled channels of any net by tracing it.

Source: Fang et al. 2023, DepGraph: Towards Any Structural Pruning, arXiv 2301.12900; its library `torch-pruning`
follows autograd's graph through residual sums, concatenations, flattening and depthwise convolutions.
"""

import copy
import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from kd_runner.errors import nearest
from kd_runner.pruning.channels import input_axis, to_runs
from kd_runner.pruning.layout import Layout
from kd_runner.pruning.masks import masked
from kd_runner.pruning.surgery import cut

log = logging.getLogger(__name__)

MAX_RUNS = 16  # a member that takes more to describe is shuffled
TOLERANCE = 1e-4  # of the largest output: what the order of summation may change


class Traced:
    """Finds the channels that convolutions and linear layers of a net may lose.

    What the net returns keeps its width, and so do layers with frozen weights, and what is coupled with anything but a
    convolution (ungrouped or depthwise), linear layer, batch norm, LayerNorm or PReLU. Every other group is cut in a
    copy of the net, which must then do what the net does with these channels masked; otherwise it keeps its width too.

    Args:
        layers: paths of the modules that may lose output channels, with all that is in them; `*` stands within one path
            segment. Layers that read those channels follow wherever they are.
        keep: paths of modules that keep their width.
    """

    def __init__(self, layers: Sequence[str] = ("*",), keep: Sequence[str] = ()):
        self.layers, self.keep = list(layers), list(keep)

    def layout(
        self,
        net: nn.Module,
        args: Sequence[Tensor] = (),
        named: Mapping[str, Tensor] | None = None,
        features: Iterable[str] = (),
    ) -> Layout:
        """The layout of a net.

        Args:
            net: the net; it is copied.
            args: positional arguments that it is called with.
            named: named ones.
            features: feature paths (`module:item`) within the net that keep their width.

        Returns:
            The layout, of channels alone.

        Raises:
            ValueError: a path that the net lacks, a net that cannot be traced, or one without such channels.
        """
        named = dict(named or {})
        modules = dict(net.named_modules())
        for key, patterns in (("layers", self.layers), ("keep", self.keep)):
            for pattern in patterns:
                if not any(_inside(name, [pattern]) for name in modules if name):
                    raise ValueError(f"layout.{key}: {pattern!r} matches no module.{nearest(pattern, modules)}")
        traced = copy.deepcopy(net).cpu().eval()
        for tensor in traced.parameters():
            tensor.requires_grad_(tensor.is_floating_point())
        graph, outputs = _graph(traced, args, named, features)
        groups = self._groups(net, graph, {id(module): name for name, module in traced.named_modules()}, outputs)
        exact = _exact(net, groups, args, named)
        if not exact:
            raise ValueError(f"layout: no channels of {type(net).__name__} can be cut (layers={self.layers})")
        log.info("channels: %d of %d groups can be cut", len(exact), len(groups))
        return Layout(channels=exact)

    def _groups(self, net: nn.Module, graph: Any, names: Mapping[int, str], outputs: nn.ModuleList) -> dict[str, Any]:
        groups: dict[str, Any] = {}
        taken: set[tuple[str, int, int]] = set()
        for items in graph.get_all_groups(root_module_types=[_ConvNd, nn.Linear]):
            root = names[id(items[0].dep.target.module)]
            members = self._members(net, graph, items, names, outputs)
            if members is None:
                continue
            entries = {(m["tensor"], m["axis"], position) for m, pairs in members for position, _ in pairs}
            if entries & taken:  # two groups that move the same weights cannot be chosen apart
                continue
            taken |= entries
            of = len(items[0].idxs)
            groups[root] = {"of": of, "members": [{**m, "runs": to_runs(pairs)} for m, pairs in members]}
        return {
            name: group for name, group in groups.items() if all(len(m["runs"]) <= MAX_RUNS for m in group["members"])
        }

    def _members(
        self, net: nn.Module, graph: Any, items: Any, names: Mapping[int, str], outputs: nn.ModuleList
    ) -> list[tuple[dict[str, Any], set[tuple[int, int]]]] | None:
        """The members of a group with their (position, channel) pairs; None where the group has to stay whole."""
        members: dict[tuple[str, int], tuple[dict[str, Any], set[tuple[int, int]]]] = {}
        read = False
        for item in items:
            module, into = item.dep.target.module, graph.is_in_channel_pruning_fn(item.dep.handler)
            if any(module is output for output in outputs) or isinstance(module, nn.Parameter):
                return None
            if type(module).__module__.startswith("torch_pruning."):  # an operation without weights
                continue
            path = names[id(module)]
            original = net.get_submodule(path)
            channelwise = isinstance(module, _BatchNorm | nn.PReLU | nn.LayerNorm) or _is_depthwise(module)
            if not channelwise and input_axis(module) is None:
                return None
            if isinstance(module, nn.LayerNorm) and module.weight is None:
                return None
            into = into and not channelwise
            read |= into
            if not into and (_inside(path, self.keep) or not (channelwise or _inside(path, self.layers))):
                return None
            pairs = set(zip(item.idxs, item.root_idxs))
            for tensor, axis in _tensors(original, into):
                value = getattr(original, tensor)
                if isinstance(value, nn.Parameter) and not value.requires_grad:
                    return None
                member = {"tensor": f"{path}.{tensor}" if path else tensor, "axis": axis, "size": value.shape[axis]}
                known = members.setdefault((member["tensor"], axis), (member, set()))[1]
                known |= pairs
                positions = {position for position, _ in known}
                if len(positions) < len(known) or max(positions) >= member["size"]:  # two channels in one, or misread
                    return None
                if isinstance(module, nn.LayerNorm) and (module.weight.ndim > 1 or len(known) < len(module.weight)):
                    return None  # its statistics are of other channels too
        return list(members.values()) if read else None


def _inside(path: str, patterns: Iterable[str]) -> bool:
    """Whether a module is one that a pattern names, or lies in one."""
    parts = path.split(".")
    for pattern in patterns:
        segments = pattern.split(".")
        if len(segments) <= len(parts) and all(map(fnmatchcase, parts, segments)):
            return True
    return False


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, _ConvNd) and 1 < module.groups == module.in_channels == module.out_channels


def _tensors(module: nn.Module, into: bool) -> list[tuple[str, int]]:
    """Name and axis of the tensors of a layer that run over its input, or over its output."""
    axis = input_axis(module)
    if into:
        return [("weight", int(axis))] if axis is not None else []
    out_axis = 1 if isinstance(module, _ConvTransposeNd) and module.groups == 1 else 0
    named = [("weight", out_axis), ("bias", 0), ("running_mean", 0), ("running_var", 0)]
    return [(name, axis) for name, axis in named if isinstance(getattr(module, name, None), Tensor)]


class _WithMarks(nn.Module):
    """A net that passes each output and some features through a layer of their own.

    What is coupled with such a layer is seen outside.
    """

    def __init__(self, net: nn.Module, features: Iterable[str]):
        super().__init__()
        self.net, self.marks = net, nn.ModuleList()
        modules = dict(net.named_modules())
        self.features = [feature for feature in features if feature.partition(":")[0] in modules]  # others are buffers

    def forward(self, *args: Any, **named: Any) -> list[Tensor]:
        seen: list[Any] = []
        hooks = []
        for feature in self.features:
            path, _, items = feature.partition(":")
            if path:
                hook = _keep_item(items, seen)
                hooks.append(self.net.get_submodule(path).register_forward_hook(hook))
        try:
            seen.append(self.net(*args, **named))
        finally:
            for hook in hooks:
                hook.remove()
        tensors = [x for x in _flat(seen) if x.grad_fn is not None and x.ndim > 1]
        if not self.marks:
            self.marks.extend(nn.PReLU(x.shape[1], dtype=x.dtype) for x in tensors)
        return [mark(x) for mark, x in zip(self.marks, tensors)]


def _keep_item(items: str, seen: list[Any]) -> Any:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        for item in filter(None, items.split(".")):
            output = output[item] if isinstance(output, Mapping) else output[int(item)]
        seen.append(output)

    return hook


def _flat(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [tensor for part in value for tensor in _flat(part)] if isinstance(value, list | tuple) else []


def _graph(
    net: nn.Module, args: Sequence[Tensor], named: Mapping[str, Tensor], features: Iterable[str]
) -> tuple[Any, nn.ModuleList]:
    marked = _WithMarks(net, features)
    graph = torch_pruning.DependencyGraph()
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            marked(*args, **named)  # makes the marks
            graph.build_dependency(
                marked, (args, named), forward_fn=lambda m, given: m(*given[0], **given[1]), verbose=False
            )
    except Exception as error:  # whatever a net or the library cannot do
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"layout: {type(net).__name__} cannot be traced: {reason}") from error
    return graph, marked.marks


@torch.no_grad()
def _exact(
    net: nn.Module, groups: Mapping[str, Any], args: Sequence[Tensor], named: Mapping[str, Tensor]
) -> dict[str, Any]:
    """The groups whose cut does what a mask on their channels does, halving the groups as long as some do not.

    In float64, so that what a net chooses by its scores is the same with and without the cut. A net that runs in its
    own precision only may choose otherwise at a tenth of an output's entries.
    """
    whole = copy.deepcopy(net).cpu().eval().double()
    inputs = [_double(x) for x in args], {name: _double(x) for name, x in named.items()}
    differing = 0.0
    try:
        whole(*inputs[0], **inputs[1])
    except Exception:  # in the words of whatever operation mixes the types
        whole, inputs, differing = copy.deepcopy(net).cpu().eval(), (list(args), dict(named)), 0.1
    dtype = next(whole.parameters()).dtype

    def agrees(names: Sequence[str]) -> bool:
        layout = Layout(channels={name: groups[name] for name in names})
        smaller = copy.deepcopy(whole)
        # Other channels of each group, and another number of them, so that what must shrink together shows.
        kept = {name: _some(groups[name]["of"], number) for number, name in enumerate(names)}
        masks = {name: torch.zeros(groups[name]["of"], dtype=dtype) for name in names}
        for name, indices in kept.items():
            masks[name][indices] = 1
        try:
            cut(smaller, layout, {"channels": kept})
            got = _flat(smaller(*inputs[0], **inputs[1]))
        except Exception:  # shapes that do not fit any more, in the words of whatever operation saw them
            return False
        with masked(whole, layout, {"channels": masks}):
            expected = _flat(whole(*inputs[0], **inputs[1]))
        return len(got) == len(expected) and all(_close(a, b, differing) for a, b in zip(got, expected))

    def exact(names: list[str]) -> list[str]:
        if not names or agrees(names):
            return names
        half = len(names) // 2
        return exact(names[:half]) + exact(names[half:]) if half else []

    chosen = exact(list(groups))
    if len(chosen) < len(groups):
        log.debug("channels: these keep their width: %s", ", ".join(groups.keys() - set(chosen)))
        if chosen and not agrees(chosen):
            raise ValueError(f"layout: {type(net).__name__} cannot be traced: groups can be cut apart, not together")
    return {name: groups[name] for name in chosen}


def _some(count: int, number: int) -> list[int]:
    left = count // 2 + 5 * number % max(count - count // 2, 1)
    return sorted((i * 7 + number) % count if count % 7 else (i * 5 + number) % count for i in range(max(left, 1)))


def _double(x: Any) -> Any:
    return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x


def _close(a: Tensor, b: Tensor, differing: float) -> bool:
    if a.shape != b.shape:
        return False
    if not a.is_floating_point() or not a.numel():
        return True  # what is counted or chosen may tip
    return bool(((a - b).abs() > TOLERANCE * b.abs().max()).float().mean() <= differing)

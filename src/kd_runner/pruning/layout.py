"""Where the prunable units of a net are: attention heads and hidden units of the MLP by module path, and channels.

A unit (one head, one hidden unit, one channel) owns the same slice of several tensors: rows of the projections that
make it, bias and norm entries, and columns of the projections that read it. A `Layout` names those modules,
`find_units` resolves it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from kd_runner.errors import nearest
from kd_runner.pruning.channels import channel_units
from kd_runner.pruning.units import Reader, Slice, Units, reads_in_order

KINDS = ("heads", "hidden", "channels")


@dataclass(frozen=True)
class Layout:
    """Module paths, relative to a block; what a net lacks is left out.

    Without `proj` no heads are found, without `mlp_out` no hidden units.

    ```yaml
    # kd_runner EvaViT                                  # timm VisionTransformer
    blocks: blocks.*                                    blocks: blocks.*
    qkv: [attn.q_proj, attn.k_proj, attn.v_proj]        qkv: attn.qkv
    qkv_bias: [attn.q_bias, null, attn.v_bias]          head_width: attn.attn_dim
    proj: attn.proj                                     proj: attn.proj
    num_heads: attn.num_heads                           num_heads: attn.num_heads
    mlp_in: [mlp.w1, mlp.w2]                            mlp_in: mlp.fc1
    mlp_norm: mlp.ffn_ln                                mlp_norm: mlp.norm
    mlp_out: mlp.w3                                     mlp_out: mlp.fc2
    ```

    Args:
        blocks: pattern of the blocks' own paths; `*` stands within one path segment: `layers.*.blocks.*`.
        qkv: one fused projection, or the three of q, k, v.
        qkv_bias: where biases are bare tensors: three paths in the order q, k, v, null for none.
        proj: the linear layer that reads the concatenated head outputs.
        head_norm: a LayerNorm over the concatenated head outputs (sub-LN), if the net has one.
        head_rows: further modules or tensors whose first / last axis runs over the heads (an output
            gate; Swin's `attn.relative_position_bias_table` has one column per head).
        head_columns: further ones whose last axis does.
        num_heads: integer attributes that hold the number of heads; the first one is read.
        head_width: integer attributes that hold number of heads x head width.
        mlp_in: the linear layers that make the hidden units; one with twice the width is a packed gate.
        mlp_norm: a LayerNorm over the hidden units, if the net has one.
        mlp_out: the linear layer that reads the hidden units.
        channels: groups of coupled channels, `{"of": count, "members": [...]}` each (`pruning.channels`), which
            `trace.Traced` finds.
        kept: channels that are present of each group that was cut before.
    """

    blocks: str = ""
    qkv: str | Sequence[str] = ()
    qkv_bias: Sequence[str | None] = ()
    proj: str | None = None
    head_norm: str | None = None
    head_rows: str | Sequence[str] = ()
    head_columns: str | Sequence[str] = ()
    num_heads: str | Sequence[str] = ()
    head_width: str | Sequence[str] = ()
    mlp_in: str | Sequence[str] = ()
    mlp_norm: str | None = None
    mlp_out: str | None = None
    channels: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    kept: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @staticmethod
    def read(value: "Layout | Mapping") -> "Layout":
        """A `Layout` from its yaml or JSON mapping.

        Args:
            value: a `Layout`, which comes back as it is, or a mapping of its arguments.

        Returns:
            The layout.

        Raises:
            ValueError: a misspelt key, or no `blocks`.
        """
        if isinstance(value, Layout):
            return value
        known = [f.name for f in fields(Layout)]
        for key in value:
            if key not in known:
                raise ValueError(f"layout: no key {key!r}.{nearest(key, known)}")
        if not value.get("blocks") and not value.get("channels"):
            raise ValueError("layout.blocks: missing, the pattern of the blocks' paths")
        plain: dict[str, Any] = {
            k: list(v) if isinstance(v, Sequence) and not isinstance(v, str) else v for k, v in value.items()
        }
        return Layout(**plain)


def find_units(net: nn.Module, layout: Layout | Mapping, kind: str) -> dict[str, Units]:
    """Block path to its units, in the order of the net; empty where the layout names none of that `kind`.

    Args:
        net: the net, pruned or not.
        layout: where its units are.
        kind: `heads` or `hidden`.

    Returns:
        Block path to the units of the block.

    Raises:
        ValueError: a path, a shape or an attribute does not fit the net; the message names the entry of the layout.
    """
    layout = Layout.read(layout)
    if kind not in KINDS:
        raise ValueError(f"kind: no kind of unit {kind!r}.{nearest(kind, KINDS)}")
    if kind == "channels":
        return channel_units(net, layout.channels, layout.kept)
    if not layout.blocks:
        return {}
    blocks = [(name, module) for name, module in net.named_modules() if _matches(name, layout.blocks)]
    if not blocks:
        paths = [name for name, _ in net.named_modules() if name]
        raise ValueError(f"layout.blocks: {layout.blocks!r} matches no module.{nearest(layout.blocks, paths)}")
    if not (layout.proj if kind == "heads" else layout.mlp_out):
        return {}
    find = _heads if kind == "heads" else _hidden
    return {name: find(_Block(name, module), layout) for name, module in blocks}


def _matches(path: str, pattern: str) -> bool:
    parts, patterns = path.split("."), pattern.split(".")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _names(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


class _Block:
    """A block of the net, looked into by path, with errors that name the layout's key."""

    def __init__(self, path: str, module: nn.Module):
        self.path, self.module = path, module

    def get(self, key: str, path: str):
        value = self.module
        for name in path.split("."):
            if not hasattr(value, name):
                raise self.error(key, f"no {path!r} in {self.path}.{nearest(path, self.inside())}")
            value = getattr(value, name)
        return value

    def inside(self) -> list[str]:
        paths = [name for name, _ in self.module.named_modules() if name]
        return paths + [name for name, _ in self.module.named_parameters()]

    def error(self, key: str, message: str) -> ValueError:
        return ValueError(f"layout.{key}: {message}")

    def linear(self, key: str, path: str) -> nn.Linear:
        module = self.get(key, path)
        if not isinstance(module, nn.Linear):
            raise self.error(key, f"{self.path}.{path} is a {type(module).__name__}, only nn.Linear can be pruned")
        return module

    def norm(self, key: str, path: str | None) -> tuple[nn.LayerNorm | None, list[Slice]]:
        """The norm at `path` and its slices; None where there is no path or an identity stands there."""
        module = self.get(key, path) if path else None
        if path is None or module is None or isinstance(module, nn.Identity):
            return None, []
        if not isinstance(module, nn.LayerNorm):
            raise self.error(key, f"{self.path}.{path} is a {type(module).__name__}, only nn.LayerNorm can be pruned")
        return module, self.slices(key, path, 0)

    def slices(self, key: str, path: str, axis: int, parts: int = 1) -> list[Slice]:
        """The slices of a bare tensor, or of the weight and bias of a module; none of what is None."""
        value = self.get(key, path)
        if isinstance(value, nn.Module):
            owner, names = value, ["weight", "bias"]
        else:
            parent, _, name = path.rpartition(".")
            owner, names = self.get(key, parent) if parent else self.module, [name]
        tensors = {name: getattr(owner, name, None) for name in names}
        for tensor in tensors.values():
            if tensor is not None and not isinstance(tensor, Tensor):
                raise self.error(key, f"{self.path}.{path} is a {type(tensor).__name__}, no module and no tensor")
        return [Slice(owner, name, axis, parts) for name, tensor in tensors.items() if tensor is not None]


def _made_by(block: _Block, key: str, paths: Sequence[str], width: int):
    """Slices and (weight, bias) parts of projections whose outputs together are some whole number of `width`."""
    slices: list[Slice] = []
    made_by: list[tuple[Tensor, Tensor | None]] = []
    for path in paths:
        linear = block.linear(key, path)
        parts, rest = divmod(linear.out_features, width)
        if rest or not parts:
            raise block.error(
                key, f"{block.path}.{path} makes {linear.out_features} channels, not a multiple of {width}"
            )
        slices += block.slices(key, path, 0, parts)
        biases = linear.bias.chunk(parts) if linear.bias is not None else [None] * parts
        made_by += zip(linear.weight.chunk(parts), biases)
    return slices, made_by


def _heads(block: _Block, layout: Layout) -> Units:
    if not _names(layout.num_heads):
        raise block.error("num_heads", "missing, the attribute that holds the number of heads")
    counters = [(block, "num_heads", path, 1) for path in _names(layout.num_heads)]
    count = block.get("num_heads", counters[0][2])
    out = block.linear("proj", layout.proj or "")
    if not isinstance(count, int) or count < 1 or out.in_features % count:
        raise block.error("num_heads", f"{count} in {block.path} does not divide the {out.in_features} inputs of proj")
    counters += [(block, "head_width", path, out.in_features // count) for path in _names(layout.head_width)]

    slices, made_by = _made_by(block, "qkv", _names(layout.qkv), out.in_features)
    if len(made_by) != 3:
        raise block.error("qkv", f"{_names(layout.qkv)} in {block.path} make {len(made_by)} of the three q, k, v")
    if layout.qkv_bias and len(layout.qkv_bias) != 3:
        raise block.error("qkv_bias", f"needs three entries for q, k, v, has {len(layout.qkv_bias)}")
    for i, path in enumerate(layout.qkv_bias):
        if path:
            slices += block.slices("qkv_bias", path, 0)
            made_by[i] = (made_by[i][0], block.get("qkv_bias", path))
    norm, of_norm = block.norm("head_norm", layout.head_norm)
    slices += of_norm
    slices += [s for path in _names(layout.head_rows) for s in block.slices("head_rows", path, 0)]
    slices += [s for path in _names(layout.head_columns) for s in block.slices("head_columns", path, -1)]
    slices.append(Slice(out, "weight", 1))
    readers, norms = _readers(out, norm, count)
    slices = _fit(block, slices, count)
    return Units("heads", block.path, count, readers, norms, slices, made_by, _owners(counters, count))


def _hidden(block: _Block, layout: Layout) -> Units:
    out = block.linear("mlp_out", layout.mlp_out or "")
    count = out.in_features
    slices, made_by = _made_by(block, "mlp_in", _names(layout.mlp_in), count)
    if not made_by:
        raise block.error("mlp_in", "missing, the layers that make the hidden units")
    norm, of_norm = block.norm("mlp_norm", layout.mlp_norm)
    slices += of_norm
    slices.append(Slice(out, "weight", 1))
    readers, norms = _readers(out, norm, count)
    return Units("hidden", block.path, count, readers, norms, _fit(block, slices, count), made_by)


def _readers(out: nn.Linear, norm: nn.LayerNorm | None, count: int) -> tuple[list[Reader], list[Reader]]:
    norms = [] if norm is None else [reads_in_order(norm, out.in_features, count)]
    return [reads_in_order(out, out.in_features, count)], norms


def _fit(block: _Block, slices: list[Slice], count: int) -> list[Slice]:
    for s in slices:
        size = s.tensor.shape[s.axis]
        if size % (count * s.parts):
            raise ValueError(
                f"layout: axis {s.axis} of {s.name} in {block.path} has {size} entries, no multiple of {count}"
            )
    return slices


def _owners(counters: list[tuple], count: int) -> list[tuple[nn.Module, str, int]]:
    """(module, attribute, channels per unit), each checked to hold what the pruning will set."""
    owners = []
    for block, key, path, per_unit in counters:
        parent, _, name = path.rpartition(".")
        if block.get(key, path) != count * per_unit:
            raise block.error(key, f"{block.path}.{path} is {block.get(key, path)}, expected {count * per_unit}")
        owners.append((block.get(key, parent) if parent else block.module, name, per_unit))
    return owners

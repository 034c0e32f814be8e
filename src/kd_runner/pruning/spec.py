"""What was kept, as plain JSON: with a state dict it rebuilds the pruned net, without pickle.

```json
{"format": "kd_runner.pruning/1", "layout": {"blocks": "blocks.*", ...},
 "heads": {"blocks.0": {"of": 16, "kept": [0, 3, 5]}}, "hidden": {"blocks.0": {"of": 2730, "kept": "9f04..."}},
 "channels": {"layer1.0.conv1": {"of": 64, "kept": "ff0..."}}}
```
Indices count in the unpruned net, so `kept` of the heads says which teacher head each student head comes from. In the
file hidden units and channels are a bit mask in hexadecimal digits, most significant bit first: 683 digits for 2730
units. A file that was written before there were channels has none.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from torch import nn

from kd_runner.errors import nearest
from kd_runner.pruning.layout import KINDS, Layout, find_units
from kd_runner.pruning.surgery import cut, regroup
from kd_runner.runtime.files import write_text

FORMAT = "kd_runner.pruning/1"
MASKS = ("hidden", "channels")
Spec = dict


def whole(net: nn.Module, layout: Layout | Mapping) -> Spec:
    """The spec of a net as it is: everything kept.

    Args:
        net: the net.
        layout: where its heads and hidden units are.

    Returns:
        The spec.
    """
    layout = Layout.read(layout)
    units = {kind: find_units(net, layout, kind) for kind in KINDS}
    counts = {
        kind: {b: {"of": u.count, "kept": list(range(u.count))} for b, u in units[kind].items()} for kind in KINDS
    }
    return {"format": FORMAT, "layout": {k: v for k, v in asdict(layout).items() if k != "kept"}, **counts}


def layout_of(spec: Spec) -> Layout:
    """The layout of the net as a spec left it.

    Args:
        spec: what was kept.

    Returns:
        The layout, with the channels that are present.
    """
    return replace(
        Layout.read(spec["layout"]), kept={group: entry["kept"] for group, entry in spec.get("channels", {}).items()}
    )


def narrowed(spec: Spec, kept: Mapping[str, Mapping[str, Sequence[int]]]) -> Spec:
    """The spec after a further round of pruning.

    Args:
        spec: before the round.
        kept: `kept[kind][block]`, indices into the units present before the round.

    Returns:
        The new spec.
    """
    result = {**spec, **{kind: dict(spec.get(kind, {})) for kind in KINDS}}
    for kind, of_blocks in kept.items():
        for block, indices in of_blocks.items():
            entry = spec[kind][block]
            result[kind][block] = {"of": entry["of"], "kept": [entry["kept"][i] for i in sorted(indices)]}
    return result


def apply(net: nn.Module, spec: Spec) -> nn.Module:
    """Cut an unpruned net, in place, to a spec; then its state dict fits. Works on the meta device too.

    Args:
        net: with the widths before pruning.
        spec: what to keep.

    Returns:
        The same net.

    Raises:
        ValueError: the widths of the net are not those of the unpruned net of the spec.
    """
    kept = {}
    for kind in KINDS:
        units = find_units(net, spec["layout"], kind)
        if units.keys() != spec[kind].keys():
            wrong = sorted(units.keys() ^ spec[kind].keys())
            raise ValueError(f"spec.{kind}: the spec and the net differ in the blocks {wrong}")
        for block, entry in spec[kind].items():
            if units[block].count != entry["of"]:
                raise ValueError(f"spec.{kind}.{block}: made for {entry['of']}, the net has {units[block].count}")
        kept[kind] = {block: entry["kept"] for block, entry in spec[kind].items()}
    cut(net, spec["layout"], kept)
    return net


def counts(spec: Spec, kind: str) -> list[int]:
    """Kept units per block, in the order of the net: `num_heads` or `hidden` of a pruned `EvaViT`.

    Args:
        spec: what was kept.
        kind: `heads`, `hidden` or `channels`.

    Returns:
        One number per block.
    """
    return [len(entry["kept"]) for entry in spec.get(kind, {}).values()]


def reshape(net: nn.Module, current: Spec, target: Spec) -> None:
    """Change the widths of a pruned net, before a state dict of the new widths is loaded.

    Units that are in both specs keep their weights. Those that `current` lacks take the weights of some other unit, to
    be overwritten: two processes, or two runs, whose scores differ in the last bit may have kept other units.

    Args:
        net: pruned to `current`; changed in place.
        current: its spec.
        target: the spec whose widths it gets.
    """
    kept: dict[str, dict[str, list[int]]] = {kind: {} for kind in KINDS if target.get(kind)}
    for kind in kept:
        for block, entry in target[kind].items():
            position = {unit: i for i, unit in enumerate(current[kind][block]["kept"])}
            kept[kind][block] = [position.get(unit, 0) for unit in entry["kept"]]
    regroup(net, layout_of(current), layout_of(target), kept)


def dumps(spec: Spec) -> str:
    """A spec as JSON.

    Args:
        spec: what was kept.

    Returns:
        The text, ending in a line break.
    """
    masks = {
        kind: {block: {"of": e["of"], "kept": _to_hex(e["kept"], e["of"])} for block, e in spec[kind].items()}
        for kind in MASKS
        if kind in spec
    }
    return json.dumps({**spec, **masks}) + "\n"


def save(spec: Spec, path: str | Path) -> None:
    """Write a spec as JSON.

    Args:
        spec: what was kept.
        path: the file.
    """
    write_text(Path(path), dumps(spec))


def load(path: str | Path) -> Spec:
    """Read what `save` wrote.

    Args:
        path: the file.

    Returns:
        The spec.

    Raises:
        ValueError: the file is something else.
    """
    return loads(Path(path).read_text(), path)


def loads(text: str, source: str | Path) -> Spec:
    """Read what `dumps` gave.

    Args:
        text: JSON.
        source: file of the text, for messages.

    Returns:
        The spec.

    Raises:
        ValueError: the text is something else.
    """
    try:
        spec = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{source} is not JSON: {error}") from None
    if not isinstance(spec, dict) or spec.get("format") != FORMAT:
        raise ValueError(f"{source} is not of the format {FORMAT}")
    spec.setdefault("channels", {})
    for key in ("layout", *KINDS):
        if key not in spec:
            raise ValueError(f"{source} lacks {key!r}.{nearest(key, spec)}")
    for kind in MASKS:
        for entry in spec[kind].values():
            entry["kept"] = _from_hex(entry["kept"], entry["of"])
    return spec


def _to_hex(kept: Sequence[int], size: int) -> str:
    present = set(kept)
    bits = "".join("1" if i in present else "0" for i in range(size)).ljust(-(-size // 4) * 4, "0")
    return f"{int(bits, 2):0{len(bits) // 4}x}"


def _from_hex(digits: str, size: int) -> list[int]:
    bits = f"{int(digits, 16):0{4 * len(digits)}b}"
    return [i for i in range(size) if bits[i] == "1"]

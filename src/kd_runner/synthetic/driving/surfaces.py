"""What boxes and ground look like before light and air: colors from 0 to 1 as functions of a place on the surface."""

from collections.abc import Callable

import numpy as np

from kd_runner.synthetic.driving.road import Array, Road

_ASPHALT, _PAVEMENT, _GRASS = (0.30, 0.30, 0.31), (0.55, 0.53, 0.50), (0.28, 0.42, 0.20)
_WHITE, _YELLOW, _GLASS, _DARK = (0.92, 0.92, 0.90), (0.90, 0.72, 0.15), (0.10, 0.14, 0.20), (0.07, 0.07, 0.08)
_PAVEMENT_WIDTH = 3.2
_PAINT_WIDTH = {"Solid": 0.18, "Broken": 0.18, "SolidSolid": 0.15}
_DASH, _PERIOD = 3.0, 7.0  # meters painted of every so many

Paint = Callable[[Array, Array, Array, Array], Array]


def paint(surface: str, local: Array, size: Array, color: Array) -> Array:
    """Colors of points on a box.

    Args:
        surface: name of the pattern.
        local: (n, 3), from -1 to 1 along length (1 = front), width (1 = left) and height (1 = top); on the face that a
            point lies on, its coordinate is -1 or 1.
        size: length, width and height in meters.
        color: of the box, (n, 3) or (3,), in 0..1.

    Returns:
        (n, 3), in 0..1.
    """
    return _PAINTS.get(surface, _plain)(local, np.abs(local).argmax(1), size, color)


def _plain(local: Array, axis: Array, size: Array, color: Array) -> Array:
    return np.broadcast_to(color, local.shape).copy()


def _block(local: Array, axis: Array, size: Array, color: Array) -> Array:
    """Of one color, the rear half darker."""
    rgb = _plain(local, axis, size, color)
    rgb[local[:, 0] < 0] *= 0.55
    return rgb


def _vehicle(local: Array, axis: Array, size: Array, color: Array) -> Array:
    """Windows all around, white lamps in front, red ones behind, wheels at the sides."""
    rgb = _plain(local, axis, size, color)
    x, y, z = local.T
    rgb[(axis < 2) & (z > 0.15) & (z < 0.85) & (np.abs(np.where(axis == 1, x, y)) < 0.85)] = _GLASS
    _lamps_and_wheels(rgb, local, axis)
    return rgb


def _van(local: Array, axis: Array, size: Array, color: Array) -> Array:
    """A vehicle whose sides have a window in front only, with a white stripe."""
    rgb = _plain(local, axis, size, color)
    x, y, z = local.T
    rgb[(axis == 1) & (np.abs(z) < 0.12)] = _WHITE
    rgb[(axis < 2) & (z > 0.2) & (z < 0.8) & np.where(axis == 1, (x > 0.5) & (x < 0.9), np.abs(y) < 0.8)] = _GLASS
    _lamps_and_wheels(rgb, local, axis)
    return rgb


def _truck(local: Array, axis: Array, size: Array, color: Array) -> Array:
    """A colored cab in front of a light load with seams."""
    rgb = _plain(local, axis, size, color)
    x, y, z = local.T
    load = (x < 0.5) & ((axis != 0) | (x < 0)) & (z > -0.6)
    rgb[load] = (0.78, 0.78, 0.74)
    rgb[load & (axis == 1) & (np.abs((x * 4) % 1 - 0.5) < 0.1)] = (0.5, 0.5, 0.48)
    rgb[(x > 0.55) & (axis < 2) & (z > 0.0) & (z < 0.6) & ((axis == 1) | (np.abs(y) < 0.85))] = _GLASS
    _lamps_and_wheels(rgb, local, axis)
    return rgb


def _lamps_and_wheels(rgb: Array, local: Array, axis: Array) -> None:
    x, y, z = local.T
    lamp = (axis == 0) & (np.abs(y) > 0.55) & (z < -0.05) & (z > -0.5)
    rgb[lamp & (x > 0)] = (1.0, 1.0, 0.85)
    rgb[lamp & (x < 0)] = (0.85, 0.05, 0.05)
    rgb[(axis == 1) & (z < -0.5) & (np.abs(np.abs(x) - 0.62) < 0.16)] = _DARK


def _pedestrian(local: Array, axis: Array, size: Array, color: Array) -> Array:
    rgb = _plain(local, axis, size, color)
    z = local[:, 2]
    rgb[z < -0.1] = 0.35 * color + 0.05
    rgb[z > 0.72] = (0.80, 0.60, 0.48)
    rgb[(z > 0.72) & (local[:, 0] < -0.3)] = (0.25, 0.17, 0.10)  # hair behind
    return rgb


def _bicycle(local: Array, axis: Array, size: Array, color: Array) -> Array:
    """A rider in the middle; below, two dark wheels on bright tyres."""
    rgb = _plain(local, axis, size, color)
    x, _, z = local.T
    rgb[z < 0.0] = (0.62, 0.62, 0.60)
    for hub in (-0.6, 0.6):
        rgb[(z < 0.0) & (np.hypot((x - hub) * size[0], (z + 0.55) * size[2]) < 0.62)] = _DARK
    rgb[z > 0.78] = (0.80, 0.60, 0.48)
    return rgb


def _cone(local: Array, axis: Array, size: Array, color: Array) -> Array:
    rgb = _plain(local, axis, size, np.array((0.98, 0.42, 0.06)))
    rgb[np.abs(local[:, 2] - 0.1) < 0.25] = _WHITE
    rgb[local[:, 2] < -0.85] = _DARK
    return rgb


def _sign(local: Array, axis: Array, size: Array, color: Array) -> Array:
    """A white disc in a red square; gray from behind."""
    rgb = _plain(local, axis, size, np.array((0.45, 0.45, 0.47)))
    front = (axis == 0) & (local[:, 0] > 0)
    rgb[front] = (0.88, 0.08, 0.10)
    rgb[front & (np.hypot(local[:, 1], local[:, 2]) < 0.62)] = _WHITE
    return rgb


def _light(local: Array, axis: Array, size: Array, color: Array) -> Array:
    """A dark housing; in front one of three lamps is lit: red on top, green below."""
    rgb = _plain(local, axis, size, np.array(_DARK))
    front = (axis == 0) & (local[:, 0] > 0)
    lit = int(np.argmax([color[0] > 0.5 > color[1], color.min() < 0.5 < color[:2].min(), color[0] < 0.5]))
    for number, height in enumerate((0.62, 0.0, -0.62)):
        disc = front & (np.hypot(local[:, 1], (local[:, 2] - height) * size[2] / size[1]) < 0.75)
        rgb[disc] = color if number == lit else 0.22
    return rgb


def _house(local: Array, axis: Array, size: Array, color: Array) -> Array:
    """Walls with a grid of windows."""
    rgb = _plain(local, axis, size, color)
    across = np.where(axis == 1, local[:, 0] * size[0], local[:, 1] * size[1]) / 2
    up = (local[:, 2] + 1) * size[2] / 2
    rgb[(axis < 2) & (across % 3.0 < 1.3) & ((up - 1.0) % 3.0 < 1.5) & (up > 1.0)] = 0.5 * np.array(_GLASS) + 0.12
    return rgb


_PAINTS: dict[str, Paint] = {
    "block": _block,
    "car": _vehicle,
    "van": _van,
    "truck": _truck,
    "pedestrian": _pedestrian,
    "bicycle": _bicycle,
    "traffic_cone": _cone,
    "traffic_sign": _sign,
    "traffic_light": _light,
    "house": _house,
}


def ground(roads: tuple[Road, ...], spots: list[tuple[Array, Array]], footprint: Array) -> Array:
    """Colors of the ground.

    Args:
        roads: the roads, painted one over the other, asphalt over pavement.
        spots: for each road, where a pixel lies in its coordinates: s and d, both (H, W).
        footprint: meters of ground across that a pixel shows, (R, H, W); thin lines fade where it is larger than they.

    Returns:
        (H, W, 3), in 0..1.
    """
    rgb = np.broadcast_to(np.array(_GRASS, np.float32), (*spots[0][0].shape, 3)).copy()
    for margin, color in ((_PAVEMENT_WIDTH, _PAVEMENT), (0.0, _ASPHALT)):
        for road, (s, d) in zip(roads, spots):
            on = (d > road.right - margin) & (d < road.left + margin) & (s > road.start) & (s < road.end)
            rgb[on] = color
    for road, (s, d), spread in zip(roads, spots, footprint):
        for line in road.lines:
            if line.kind not in _PAINT_WIDTH:
                continue
            on = (s > line.start) & (s < line.end)
            if line.kind == "Broken":
                on &= (s - line.start) % _PERIOD < _DASH
            tone = np.array(_YELLOW if line.kind == "SolidSolid" else _WHITE, np.float32)
            for shift in (-0.18, 0.18) if line.kind == "SolidSolid" else (0.0,):
                fraction = _coverage(d - line.offset - shift, _PAINT_WIDTH[line.kind], spread) * on
                rgb += fraction[..., None] * (tone - rgb)
        for volume in road.volumes:  # a bar to stop at
            bar = (s > volume.end - 0.6) & (s < volume.end) & (d > volume.right) & (d < volume.left)
            rgb[bar] = _WHITE
    return rgb


def _coverage(distance: Array, width: float, footprint: Array) -> Array:
    """Share of a pixel, `footprint` meters wide, that a line `width` meters wide fills, `distance` meters beside it."""
    wide = np.maximum(footprint, 0.02)
    return np.clip((width + wide) / 2 - np.abs(distance), 0, np.minimum(width, wide)) / wide

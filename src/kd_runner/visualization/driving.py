"""A driving sample in one picture: what each source sees in the cameras and from above, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from kd_runner.visualization.wireframe import EDGES, FLOOR, FRONT, Array, polyline_edges, visible_edges

Ints = NDArray[np.integer]
Color = tuple[int, int, int]

# Strong on a photograph and on white; ten classes at most differ, then they repeat.
_BOX_COLORS: tuple[Color, ...] = (
    (228, 26, 28), (255, 127, 0), (152, 78, 163), (0, 150, 240), (214, 190, 0),
    (0, 190, 190), (240, 60, 190), (20, 150, 60), (140, 90, 50), (90, 90, 220),
)  # fmt: skip
_LINE_COLORS: tuple[Color, ...] = (
    (110, 160, 255), (40, 80, 200), (90, 30, 150), (60, 200, 90), (230, 130, 90), (200, 40, 80),
)  # fmt: skip
_INK, _GRAY, _PALE = (40, 40, 40), (140, 140, 140), (205, 205, 205)
_HEAT = np.array([[255, 255, 255], [255, 225, 130], [240, 110, 50], [150, 20, 70], [40, 0, 60]], float)
_EGO = np.array([[-1.06, -2.45], [-1.06, 1.3], [0.0, 2.45], [1.06, 1.3], [1.06, -2.45]])  # meters, pointing ahead
_FINE = 2  # drawn so many times as large, then averaged
_GAP, _TEXT = 6, 16


@dataclass(frozen=True)
class View:
    """What one source sees.

    Attributes:
        name: of the source.
        corners: (N, 8, 3) of boxes as in `geometry.boxes3d`.
        labels: (N,), of the boxes.
        lines: (M, P, 2 or more), of which x and y count.
        line_labels: (M,).
        heat: (X, Y) in 0..1, or None.
    """

    name: str
    corners: Array
    labels: Ints
    lines: Array = field(default_factory=lambda: np.zeros((0, 2, 2)))
    line_labels: Ints = field(default_factory=lambda: np.zeros(0, int))
    heat: Array | None = None


class DrivingFigure:
    """Draws views in a frame with x to the right, y ahead and z up, in meters, the sensor at the origin.

    Args:
        class_names: of labels 0, 1, ...; the legend.
        line_names: of labels 0, 1, ...; the legend.
        range_m: half the side of the view from above, and of the heat map.
        ground_z: height at which lines are drawn into the pictures; Bench2Drive's LiDAR is 1.84 m above ground.
        camera_size: (width, height) of a picture in the figure, so that a stretched one can be set right.
        columns: pictures in a row; their width is that of a view.
        order: numbers of the pictures to show, row by row; None for all as they come.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        line_names: Sequence[str] = (),
        range_m: float = 51.2,
        ground_z: float = -1.84,
        camera_size: Sequence[int] = (240, 120),
        columns: int = 3,
        order: Sequence[int] | None = None,
    ):
        self.class_names, self.line_names = list(class_names), list(line_names)
        self.range_m, self.ground_z, self.columns, self.order = range_m, ground_z, columns, order
        self.camera_size = (camera_size[0], camera_size[1])
        self.side = columns * camera_size[0]

    def draw(
        self,
        views: Sequence[View],
        images: NDArray[np.uint8] | None = None,
        lidar2img: Array | None = None,
        points: Array | None = None,
    ) -> NDArray[np.uint8]:
        """Draw views side by side: cameras above, then the view from above, then the heat map.

        Args:
            views: what is drawn, a column each.
            images: pictures (cameras, H, W, 3); None for none.
            lidar2img: their projections (cameras, 4, 4) to pixels.
            points: LiDAR points (N, 2 or more); None for none.

        Returns:
            (rows, columns, 3) uint8.
        """
        heat = any(view.heat is not None for view in views)
        columns = []
        for view in views:
            parts = [] if images is None or lidar2img is None else [self._cameras(view, images, lidar2img)]
            parts += [self._above(view, points)] + ([self._heat(view)] if heat else [])
            columns.append(_stack([_caption(view.name, self.side), *parts]))
        body = Image.new("RGB", (sum(c.width + _GAP for c in columns) - _GAP, columns[0].height), "white")
        for i, column in enumerate(columns):
            body.paste(column, (i * (self.side + _GAP), 0))
        return np.asarray(_stack([body, self._legend(body.width)]))

    def _cameras(self, view: View, images: NDArray[np.uint8], lidar2img: Array) -> Image.Image:
        width, height = self.camera_size
        order = range(len(images)) if self.order is None else self.order
        table = Image.new("RGB", (self.side, -(-len(order) // self.columns) * height), "white")
        for i, number in enumerate(order):
            picture = self._camera(view, images[number], lidar2img[number])
            table.paste(picture, (i % self.columns * width, i // self.columns * height))
        return table

    def _camera(self, view: View, image: NDArray[np.uint8], matrix: Array) -> Image.Image:
        rows, columns = image.shape[:2]
        size = (self.camera_size[0] * _FINE, self.camera_size[1] * _FINE)
        fine = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
        pen, scale = ImageDraw.Draw(fine), np.array(size) / [columns, rows]
        ground = np.full((*view.lines.shape[:2], 1), self.ground_z)
        lines = np.concatenate([view.lines[..., :2], ground], -1)
        ends, which = visible_edges(polyline_edges(lines), matrix, columns, rows)
        for pair, edge in zip((ends * scale).reshape(-1, 4), which):
            pen.line(tuple(pair), _color(_LINE_COLORS, view.line_labels[edge // (lines.shape[1] - 1)]), 2)
        ends, which = visible_edges(view.corners[:, EDGES].reshape(-1, 2, 3), matrix, columns, rows)
        for pair, edge in zip((ends * scale).reshape(-1, 4), which):
            box, number = divmod(edge, len(EDGES))
            pen.line(tuple(pair), _color(_BOX_COLORS, view.labels[box]), 4 if FRONT[number] else 2)
        pen.rectangle((0, 0, size[0] - 1, size[1] - 1), outline="white", width=2)
        return fine.reduce(_FINE)

    def _pixels(self, meters: Array) -> Array:
        """Points (..., 2) to fine pixels of a view from above: right is right, ahead is up."""
        scale = self.side * _FINE / (2 * self.range_m)
        return (meters * [1, -1] + self.range_m) * scale

    def _above(self, view: View, points: Array | None) -> Image.Image:
        size = self.side * _FINE
        board = np.full((size, size, 3), 255, np.uint8)
        if points is not None:
            columns, rows = self._pixels(points[:, :2]).astype(int).T
            inside = (columns >= 0) & (columns < size - 1) & (rows >= 0) & (rows < size - 1)
            for down in (0, 1):
                for right in (0, 1):
                    board[rows[inside] + down, columns[inside] + right] = (165, 165, 165)
        fine = Image.fromarray(board)
        pen = ImageDraw.Draw(fine)
        for radius in range(20, int(self.range_m * 1.5), 20):
            corners = self._pixels(np.array([[-radius, radius], [radius, -radius]]))
            pen.ellipse([*corners[0], *corners[1]], outline=_PALE, width=2)
            if radius < self.range_m:
                x, y = self._pixels(np.array([radius, 0.0]))
                pen.text((x - 6, y), f"{radius} m", _GRAY, font=ImageFont.load_default(22), anchor="rm")
        for line, label in zip(self._pixels(view.lines[..., :2]), view.line_labels):
            pen.line([tuple(point) for point in line], _color(_LINE_COLORS, label), 4, joint="curve")
        pen.polygon([tuple(point) for point in self._pixels(_EGO)], fill=(90, 90, 90))
        floors = view.corners[:, FLOOR, :2]
        for floor, label in zip(self._pixels(floors), view.labels):
            color = _color(_BOX_COLORS, label)
            pen.polygon([tuple(point) for point in floor], outline=color, width=4)
            # Heading: from the middle to beyond the front, a thing too small to have sides included.
            middle, front = floor.mean(0), floor[:2].mean(0)
            pen.line([*middle, *(front + 0.25 * (front - middle))], color, 4)
        pen.rectangle((0, 0, size - 1, size - 1), outline=_PALE, width=2)
        return fine.reduce(_FINE)

    def _heat(self, view: View) -> Image.Image:
        if view.heat is None:
            return Image.new("RGB", (self.side, self.side), "white")
        level = view.heat.T[::-1].clip(0, 1) * (len(_HEAT) - 1)  # rows: y, the far end first; columns: x
        pixels = np.stack([np.interp(level, range(len(_HEAT)), channel) for channel in _HEAT.T], -1).astype(np.uint8)
        image = Image.fromarray(pixels).resize((self.side, self.side), Image.Resampling.NEAREST)
        ImageDraw.Draw(image).rectangle((0, 0, self.side - 1, self.side - 1), outline=_PALE)
        return image

    def _legend(self, width: int) -> Image.Image:
        named = [(name, _color(_BOX_COLORS, n), False) for n, name in enumerate(self.class_names)]
        named += [(name, _color(_LINE_COLORS, n), True) for n, name in enumerate(self.line_names)]
        font, places, left, top = ImageFont.load_default(_TEXT - 3), [], 4, 2
        for name, _, _ in named:
            wide = int(font.getlength(name)) + 34
            if left + wide > width:
                left, top = 4, top + _TEXT + 2
            places.append((left, top))
            left += wide
        strip = Image.new("RGB", (width, top + _TEXT + 4), "white")
        pen = ImageDraw.Draw(strip)
        for (name, color, is_line), (x, y) in zip(named, places):
            if is_line:
                pen.line((x, y + 9, x + 14, y + 9), color, 3)
            else:
                pen.rectangle((x + 1, y + 4, x + 13, y + 14), outline=color, width=3)
            pen.text((x + 19, y), name, _INK, font=font)
        return strip


def stack(figures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Put figures of one width one below the other.

    Args:
        figures: (rows, columns, 3) uint8.

    Returns:
        One figure.
    """
    return np.asarray(_stack([Image.fromarray(figure) for figure in figures]))


def _stack(parts: Sequence[Image.Image]) -> Image.Image:
    table = Image.new("RGB", (parts[0].width, sum(p.height + _GAP for p in parts) - _GAP), "white")
    top = 0
    for part in parts:
        table.paste(part, (0, top))
        top += part.height + _GAP
    return table


def _caption(text: str, width: int) -> Image.Image:
    strip = Image.new("RGB", (width, _TEXT + 2), "white")
    ImageDraw.Draw(strip).text((2, 0), text, _INK, font=ImageFont.load_default(_TEXT - 1))
    return strip


def _color(colors: tuple[Color, ...], label: int) -> Color:
    return colors[int(label) % len(colors)]

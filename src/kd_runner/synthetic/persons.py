"""Drawn persons: articulated figures in random poses and clothes."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

_FINER = 3  # oversampling, for smooth edges

Color = tuple[int, int, int]

_SKIN: list[Color] = [(245, 214, 186), (224, 176, 138), (188, 132, 92), (132, 88, 60), (92, 60, 42)]
_HAIR: list[Color] = [(30, 24, 20), (70, 45, 28), (120, 84, 48), (196, 160, 96), (150, 150, 150)]


class Figure(NamedTuple):
    """Colors (h, w, 3) uint8 and coverage (h, w) of each pixel in 0..1; the feet are in the last row."""

    colors: NDArray[np.uint8]
    cover: NDArray[np.float64]


def figure(height: int, random: np.random.Generator) -> Figure:
    """Draw a standing or walking person, in the smallest array that holds it.

    Args:
        height: in pixels, about.
        random: draws posture, clothes and colors.

    Returns:
        The person.
    """
    unit = height * _FINER
    # Room for raised and stretched arms.
    canvas = Image.new("RGBA", (int(1.4 * unit), int(1.35 * unit)))
    _draw(ImageDraw.Draw(canvas), complex(0.7, 0.2) * unit, unit, random)
    pixels = np.asarray(canvas.crop(canvas.getbbox()).reduce(_FINER))
    return Figure(pixels[..., :3], pixels[..., 3] / 255)


def _draw(pen: ImageDraw.ImageDraw, crown: complex, unit: float, random: np.random.Generator) -> None:
    """Points are x + yi in pixels, lengths fractions of the body's height, angles in radians from straight down."""
    skin, hair = (kinds[random.integers(len(kinds))] for kinds in (_SKIN, _HAIR))
    top, bottom, shoes = (_cloth(random) for _ in range(3))
    sleeves = top if random.random() < 0.6 else skin
    shins = bottom if random.random() < 0.7 else skin
    stout = random.uniform(0.75, 1.25)
    head, neck = crown + 0.075j * unit, crown + 0.15j * unit
    hip = neck + 0.34 * unit * _towards(random.normal(0, 0.08))
    across = 0.095 * stout * unit * random.uniform(0.7, 1.0)  # turned a little
    arm, leg = 0.040 * stout * unit, 0.058 * stout * unit
    stride = abs(random.normal(0, 0.2))

    def limb(start: complex, parts: tuple[tuple[float, float, Color], ...], width: float) -> complex:
        """Draw parts of (length, angle, color), the last one first; returns the end point."""
        shapes = []
        for length, angle, color in parts:
            end = start + length * unit * _towards(angle)
            shapes.append((start, end, width, 0.82 * width, color))
            start, width = end, 0.82 * width
        for shape in reversed(shapes):
            _capsule(pen, *shape)
        return start

    def one_arm(side: int) -> None:
        raised = 1.6 if random.random() < 0.15 else 0.0
        angle = raised + abs(random.normal(0.2, 0.4))
        bend = angle + random.normal(0.2, 0.5)
        parts = ((0.17, side * angle, top), (0.16, side * bend, sleeves))
        hand = limb(neck + side * across + 0.03j * unit, parts, arm)
        _disc(pen, hand, 0.75 * arm, skin)

    one_arm(-1)
    for side in (-1, 1):
        spread = side * (random.uniform(0.02, 0.12) + stride)
        foot = limb(hip + side * 0.55 * across, ((0.25, spread, bottom), (0.24, 0.6 * spread, shins)), leg)
        _capsule(pen, foot, foot + complex(0.03 * side, 0.01) * unit, 0.65 * leg, 0.5 * leg, shoes)
    chest = 0.03j * unit
    _capsule(pen, neck - across + chest, neck + across + chest, arm, arm, top)
    _polygon(pen, (neck - across, neck + across, hip + 0.8 * across, hip - 0.8 * across), top)
    _capsule(pen, hip - 0.6 * across, hip + 0.6 * across, leg, leg, bottom)
    _capsule(pen, head, neck, 0.04 * unit, 0.04 * unit, skin)
    _disc(pen, head - 0.014j * unit, 0.075 * unit, hair)
    _disc(pen, head + complex(random.uniform(-0.01, 0.01), 0.01) * unit, 0.062 * unit, skin)
    one_arm(1)


def _cloth(random: np.random.Generator) -> Color:
    """A random color, more often dull than bright."""
    color = random.uniform(20, 245, 3)
    gray = color.mean()
    red, green, blue = gray + random.beta(1.2, 1.2) * (color - gray)
    return int(red), int(green), int(blue)


def _towards(angle: float) -> complex:
    return complex(math.sin(angle), math.cos(angle))


def _capsule(pen: ImageDraw.ImageDraw, start: complex, end: complex, first: float, last: float, color: Color) -> None:
    """A limb with round ends of radii `first` and `last`."""
    normal = 1j * (end - start) / abs(end - start)
    _polygon(pen, (start + first * normal, end + last * normal, end - last * normal, start - first * normal), color)
    _disc(pen, start, first, color)
    _disc(pen, end, last, color)


def _polygon(pen: ImageDraw.ImageDraw, corners: Iterable[complex], color: Color) -> None:
    pen.polygon([(corner.real, corner.imag) for corner in corners], fill=color)


def _disc(pen: ImageDraw.ImageDraw, center: complex, radius: float, color: Color) -> None:
    x, y = center.real, center.imag
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)

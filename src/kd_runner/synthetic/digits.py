"""Handwritten digits as objects whose surface is a photograph, for the embedded data sets.

Source: scikit-learn's `load_digits`: 1,797 digits of 8 x 8 pixels (UCI "Optical Recognition of Handwritten Digits",
E. Alpaydin and C. Kaynak, 1998, CC BY 4.0).
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from kd_runner.synthetic.photographs import Photographs

Array = NDArray[np.uint8]

VAL_DIGITS = 540  # of 1,797


class Sources:
    """Digits and photograph parts for the scenes of training or, with `held_out`, of validation.

    Args:
        held_out: for validation.

    Attributes:
        digits: (N, 8, 8) uint8.
        labels: (N,) their classes, 0..9.
        photographs: where backgrounds and surfaces are cut from.
    """

    def __init__(self, held_out: bool) -> None:
        digits = load_digits()
        # A fixed order, whatever the seed: no seed may move a validation digit into training.
        order = np.random.default_rng(0).permutation(len(digits.target))
        chosen = order[:VAL_DIGITS] if held_out else order[VAL_DIGITS:]
        self.digits = (digits.images[chosen] * (255 / 16)).astype(np.uint8)
        self.labels = digits.target[chosen]
        self.photographs = Photographs(held_out)


def surface(patch: Array, random: np.random.Generator) -> Array:
    """A light tint with the texture of a photograph.

    Args:
        patch: part of a photograph, (h, w, 3).
        random: draws the tint.

    Returns:
        (h, w, 3) uint8.
    """
    texture = patch - patch.mean((0, 1))
    return np.clip(random.uniform(150, 255, size=3) + 0.5 * texture, 0, 255).astype(np.uint8)


def silhouette(digit: Array, side: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """The strokes of a digit as a smooth mask, rotated by up to 12 degrees.

    Args:
        digit: (8, 8) uint8.
        side: of the mask, in pixels.
        random: draws the angle.

    Returns:
        (side, side) bool.
    """
    grown = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    turned = grown.rotate(random.uniform(-12, 12), Image.Resampling.BILINEAR)
    return np.asarray(turned) > 80


def dim(patch: Array, random: np.random.Generator) -> Array:
    """A patch at 35 to 65 % of its brightness, random per channel.

    Args:
        patch: (h, w, 3).
        random: draws the brightness.

    Returns:
        (h, w, 3) uint8.
    """
    return (patch * random.uniform(0.35, 0.65, size=3)).astype(np.uint8)

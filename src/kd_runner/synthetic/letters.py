"""Printed letters at the size of scikit-learn's digits (8 x 8): what the mini student's encoder has seen beforehand.

Drawn in the fonts that ship with matplotlib (DejaVu, STIX, Computer Modern). Letters that look like a digit or like
another letter (O, I, S, Z, b, g, ...) are left out.
"""

from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

LETTERS = "ACEFGHJKLMNPRTUVWXYadefhknrtuw"
_FAMILIES = ("DejaVuSans", "DejaVuSerif", "STIXGeneral", "cmb10", "cmr10", "cmss10", "cmtt10")
_SIDE, _DRAWN = 8, 48


def letters() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Every letter in every font: images (N, 8, 8), 0 to 255, and their numbers in `LETTERS` (N,)."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    files = [
        file for file in sorted(folder.glob("*.ttf")) if file.stem.startswith(_FAMILIES) and "Display" not in file.stem
    ]
    images = [_draw(letter, ImageFont.truetype(str(file), _DRAWN)) for file in files for letter in LETTERS]
    return np.stack(images), np.tile(np.arange(len(LETTERS)), len(files))


def _draw(letter: str, font: ImageFont.FreeTypeFont) -> NDArray[np.uint8]:
    """A letter as high as the image, no wider than it, in the middle; strokes as dark as those of the digits."""
    left, top, right, bottom = font.getbbox(letter)
    width, height = round(right - left), round(bottom - top)
    large = Image.new("L", (width, height))
    ImageDraw.Draw(large).text((-left, -top), letter, 255, font)
    columns = min(_SIDE, max(2, round(_SIDE * width / height)))
    image = np.zeros((_SIDE, _SIDE), np.uint8)
    first = (_SIDE - columns) // 2
    image[:, first : first + columns] = np.asarray(large.resize((columns, _SIDE), Image.Resampling.BOX))
    return np.minimum(255, 1.3 * image).astype(np.uint8)

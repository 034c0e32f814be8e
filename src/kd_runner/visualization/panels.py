"""Pixels of images and labels, and a table of them."""

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from kd_runner.data.voc.dataset import voc_palette
from kd_runner.data.voc.transforms import to_pixels


def pixels(image: Tensor) -> np.ndarray:
    """Undo the normalization of images.

    Args:
        image: (N, 3, H, W).

    Returns:
        (N, H, W, 3) uint8.
    """
    return (to_pixels(image.float()).permute(0, 2, 3, 1).cpu().numpy() * 255).round().astype(np.uint8)


def colors(labels: Tensor) -> np.ndarray:
    """Labels in VOC's colors.

    Args:
        labels: (N, H, W).

    Returns:
        (N, H, W, 3) uint8.
    """
    return voc_palette()[labels.cpu().numpy()]


def table(columns: Mapping[str, np.ndarray], gap: int = 4, title: int = 14) -> np.ndarray:
    """Columns of pictures under their names.

    Args:
        columns: name to N pictures (N, H, W, 3), all of one height.
        gap: pixels between pictures.
        title: height of the names in pixels.

    Returns:
        (rows, columns, 3) uint8.
    """
    images = [np.pad(stack, ((0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255) for stack in columns.values()]
    body = np.concatenate([np.concatenate(list(stack), axis=0) for stack in images], axis=1)
    page = Image.fromarray(np.pad(body, ((title, 0), (0, 0), (0, 0)), constant_values=255))
    pen, left = ImageDraw.Draw(page), 0
    for name, stack in zip(columns, images):
        pen.text((left + 1, 1), name, fill=(0, 0, 0))
        left += stack.shape[2]
    return np.asarray(page)


def enlarge(picture: np.ndarray, width: int = 1200) -> np.ndarray:
    """A small picture magnified by a whole number, so that TensorBoard shows its pixels; a large one as it is.

    Args:
        picture: (rows, columns, 3) uint8.
        width: columns that are aimed at.

    Returns:
        (rows, columns, 3) uint8.
    """
    factor = max(1, width // picture.shape[1])
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)

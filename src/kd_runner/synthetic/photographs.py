"""Two real photographs, cut into a part for training and a part for validation.

They ship inside scikit-learn (`load_sample_images`), both CC BY 2.0: "china.jpg" by danielbuechele
(flickr.com/photos/danielbuechele/6061409035) and "flower.jpg" by vultilion
(flickr.com/photos/vultilion/6056698931). Images made from them are cropped, rescaled and recolored.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

HELD_OUT_COLUMNS = 192  # of 640: the right part of both photographs


class Photographs:
    """Random parts of the photographs.

    Args:
        held_out: parts for the scenes of validation; else those for training.
    """

    def __init__(self, held_out: bool):
        part = slice(-HELD_OUT_COLUMNS, None) if held_out else slice(None, -HELD_OUT_COLUMNS)
        self.parts = [Image.fromarray(photograph[:, part]) for photograph in load_sample_images().images]

    def patch(self, height: int, width: int, random: np.random.Generator) -> NDArray[np.uint8]:
        """A random part, resized.

        Args:
            height: in pixels.
            width: in pixels.
            random: chooses the part.

        Returns:
            (height, width, 3).
        """
        photograph = self.parts[random.integers(len(self.parts))]
        side = int(random.integers(64, HELD_OUT_COLUMNS + 1))
        left = int(random.integers(photograph.width - side + 1))
        top = int(random.integers(photograph.height - side + 1))
        box = (left, top, left + side, top + side)
        return np.asarray(photograph.resize((width, height), Image.Resampling.BILINEAR, box=box))

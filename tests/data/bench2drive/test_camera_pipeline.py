"""Camera images to network input, with intrinsics that follow the pixels."""

import numpy as np
import pytest
import torch
from PIL import Image

from kd_runner.data.bench2drive.camera_pipeline import CameraPipeline, distort_colors

MINI = {"resize": (0.74, 0.9), "crop": (64, 128), "final": (128, 128)}


def test_published_test_pipeline() -> None:
    """0.4, the lower 320 of 360 rows, then twice as high."""
    camera_images, matrix = (
        [Image.new("RGB", (1600, 900), (200, 100, 50))] * 2,
        np.array([[1142.5, 0, 800], [0, 1142.5, 450], [0, 0, 1]]),
    )
    images, matrices = CameraPipeline(False)(camera_images, np.stack([matrix] * 2))
    assert images.shape == (2, 3, 640, 640) and matrices.shape == (2, 4, 4)
    expected = [[457.0, 0, 320.0, 0], [0, 914.0, (180.0 - 40) * 2, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert torch.allclose(matrices[0], torch.tensor(expected, dtype=torch.float64))
    assert images[0, :, 300, 300].tolist() == pytest.approx(
        [(200 - 123.675) / 58.395, (100 - 116.28) / 57.12, (50 - 103.53) / 57.375]
    )


@pytest.mark.parametrize("seed", range(4))
def test_matrices_follow_the_pixels(seed: int) -> None:
    """A white spot is where the new intrinsics project the point that the old ones project to it."""
    torch.manual_seed(seed)
    pixels = np.zeros((90, 160, 3), np.uint8)
    pixels[60:64, 70:74] = 255
    matrix = np.array([[114.0, 0, 80], [0, 114.0, 45], [0, 0, 1]])
    images, matrices = CameraPipeline(True, distort=False, **MINI)([Image.fromarray(pixels)], matrix[None])
    bright = images[0].sum(0) - images[0].sum(0).min()
    rows, columns = torch.meshgrid(*[torch.arange(128) + 0.5] * 2, indexing="ij")
    spot = torch.stack([(bright * columns).sum(), (bright * rows).sum()]) / bright.sum()
    ray = np.linalg.inv(matrix) @ [72, 62, 1]
    pixel = matrices[0, :3, :3].numpy() @ ray
    assert spot.tolist() == pytest.approx(pixel[:2] / pixel[2], abs=0.15)


def test_odd_sizes_are_padded_to_32() -> None:
    pipeline = CameraPipeline(False, crop=(64, 128), final=(50, 100), mean=(0, 0, 0), std=(1, 1, 1))
    images, _ = pipeline([Image.new("RGB", (160, 90), (9, 9, 9))], np.eye(3)[None])
    assert images.shape == (1, 3, 64, 128)
    assert images[..., :50, :100].min() > 8.9 and images[..., 50:, :].max() == images[..., 100:].max() == 0


def test_distorted_colors_stay_in_range() -> None:
    torch.manual_seed(0)
    image = torch.rand(3, 8, 8) * 255
    distorted = [distort_colors(image) for _ in range(20)]
    assert all(d.min() >= 0 and d.max() <= 255 and d.isfinite().all() for d in distorted)
    assert sum(not torch.allclose(d, image, atol=1e-2) for d in distorted) > 15

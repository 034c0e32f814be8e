"""Images that stay in memory."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kd_runner.data.images import keep_in_memory, read_rgb


def test_kept_images_are_decoded_once_and_never_shared(tmp_path: Path) -> None:
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for i, file in enumerate(files):
        Image.fromarray(np.full((10, 10, 3), i, np.uint8)).save(file)
    keep_in_memory(650e-6)  # two images of 300 bytes
    try:
        for file in files:
            read_rgb(file)[:] = 99  # the caller's own
            file.write_bytes(b"")
        assert (read_rgb(files[0]) == 0).all() and (read_rgb(files[1]) == 1).all()
        with pytest.raises(ValueError, match="cannot be read"):
            read_rgb(files[2])
    finally:
        keep_in_memory(0)
    with pytest.raises(ValueError, match="cannot be read"):
        read_rgb(files[0])

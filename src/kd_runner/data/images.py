"""Reading image files, with errors that name the file."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_BITS_8 = {"1", "L", "P", "LA", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"}


_kept: dict[tuple[Path, str | None], NDArray[np.uint8]] = {}
_room = 0  # bytes that may still be kept


def keep_in_memory(megabytes: float) -> None:
    """Keep decoded pixels of the files that are read from now on in memory.

    What was kept before is forgotten. A file that changes afterwards is not read again.

    Args:
        megabytes: how many MB at most, in each process.
    """
    global _room
    _kept.clear()
    _room = int(megabytes * 1e6)


def read_rgb(file: Path) -> NDArray[np.uint8]:
    """Read an 8-bit image file of any kind.

    Args:
        file: its path.

    Returns:
        Pixels (H, W, 3).

    Raises:
        ValueError: the file is missing, truncated or no image, or has more than 8 bits per channel.
    """
    return _read(file, "RGB")


def read_labels(file: Path) -> NDArray[np.uint8]:
    """Read a label map from a palette or gray image file.

    Args:
        file: its path.

    Returns:
        (H, W).

    Raises:
        ValueError: as `read_rgb`, or the file is a color image.
    """
    labels = _read(file, None)
    if labels.ndim != 2:
        raise ValueError(f"{file} is a color image; labels are palette or gray values")
    return labels.astype(np.uint8)


def require_files(folder: Path, names: Iterable[str], listed_in: str) -> None:
    """Check that every file exists, by one listing of the folder.

    Args:
        folder: where the files are.
        names: file names, below `folder`.
        listed_in: where the names come from, for the error.

    Raises:
        ValueError: files are missing; the first one and their number are named.
    """
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    missing = [name for name in names if name not in present and not (folder / name).is_file()]
    if missing:
        more = f", and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise ValueError(f"{folder / missing[0]} is missing, which {listed_in} names{more}")


def _read(file: Path, mode: str | None) -> NDArray[np.uint8]:
    """Pixels of a file, the caller's own copy."""
    global _room
    pixels = _kept.get((file, mode))
    if pixels is None:
        pixels = _decode(file, mode)
        if pixels.nbytes > _room:
            return pixels
        _room -= pixels.nbytes
        _kept[file, mode] = pixels
    return pixels.copy()


def _decode(file: Path, mode: str | None) -> NDArray[np.uint8]:
    try:
        with Image.open(file) as image:
            if image.mode not in _BITS_8:  # converting would clip the values
                raise ValueError(f"it has more than 8 bits per channel (mode {image.mode})")
            return np.array(image.convert(mode) if mode else image)
    # Pillow raises SyntaxError for a broken PNG chunk.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = error.strerror if isinstance(error, FileNotFoundError) else error
        raise ValueError(f"{file} cannot be read ({reason})") from error

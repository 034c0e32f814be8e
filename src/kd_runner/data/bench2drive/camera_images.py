"""Camera images of a frame."""

from pathlib import Path

from PIL import Image

from kd_runner.errors import ConfigError

_EIGHT_BIT_MODES = ("RGB", "RGBA", "L", "P")


def read_image(path: Path, token: str) -> Image.Image:
    """Read an 8-bit image as RGB.

    Args:
        path: of the image.
        token: name of the frame, for error messages.

    Returns:
        The image.

    Raises:
        ConfigError: the file is missing, cannot be decoded, or is not 8-bit.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in _EIGHT_BIT_MODES:
                raise ConfigError(f"{path} of frame {token}: an 8-bit image is expected, not mode {image.mode}")
            return image.convert("RGB")
    except FileNotFoundError:
        raise ConfigError(f"{path} of frame {token} is missing") from None
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ConfigError(f"{path} of frame {token} cannot be read as an image ({error})") from error


def read_images(paths: list[Path], token: str) -> list[Image.Image]:
    """Read the images of a frame; all must have the same size.

    Args:
        paths: one per camera.
        token: name of the frame, for error messages.

    Returns:
        The images.

    Raises:
        ConfigError: see `read_image`; or sizes differ.
    """
    images = [read_image(path, token) for path in paths]
    for path, image in zip(paths, images):
        if image.size != images[0].size:
            raise ConfigError(
                f"{path} of frame {token}: {images[0].width} x {images[0].height} pixels are expected as in "
                f"{paths[0].name} of the first camera, got {image.width} x {image.height}"
            )
    return images

"""From an image's file to RGB."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from kaizen.args import UsageError, one_line


def read_image(path: Path) -> Image.Image:
    """RGB image. Raises UsageError naming a file that is no image."""
    with named(path):
        return decode(path)


def decode(path: Path) -> Image.Image:
    """RGB image. Raises whatever the decoder stumbles over."""
    with Image.open(path) as image:
        return in_rgb(image)


def in_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB of 8 bits; of 16 bits the higher ones count, which Pillow itself would take for white.

    Raises:
        ValueError: it has 32 bits, which say nothing of where white begins.
    """
    if image.mode in ("I", "F"):
        raise ValueError(f"levels of 32 bits, mode {image.mode}; save it with 8 or 16")
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Whatever goes wrong is a UsageError that names the file."""
    try:
        yield
    except Exception as error:  # in a damaged file a decoder may stumble over anything
        problem = f"{path}: cannot be read as an image ({one_line(error)})"
        raise UsageError(f"{problem}; repair or remove it, or use --skip_bad_images") from None

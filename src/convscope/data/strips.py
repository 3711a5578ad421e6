"""Strips: large pictures worked through a few rows at a time, so that what is between takes no memory of its own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

_PIXELS = 1 << 18


def strips(height: int, width: int) -> Iterator[slice]:
    """Yield the rows of each strip, from above."""
    step = max(1, _PIXELS // max(width, 1))
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))


def image_strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Yield the rows of each strip of an image, and the strip."""
    for rows in strips(image.height, image.width):
        yield rows, image.crop((0, rows.start, image.width, rows.stop))


def to_array(image: Image.Image) -> np.ndarray:
    """Return an image's values as numpy reads them, (h, w) or (h, w, n), without numpy's two copies of the whole."""
    whole: np.ndarray | None = None
    for rows, strip in image_strips(image):
        values = np.asarray(strip)
        if whole is None:
            whole = np.empty((image.height, *values.shape[1:]), values.dtype)
        whole[rows] = values
    return np.asarray(image) if whole is None else whole

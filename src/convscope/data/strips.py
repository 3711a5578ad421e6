"""Strips: large pictures worked through a few rows at a time, so that what is between takes no memory of its own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

_PIXELS = 1 << 16


def strips(height: int, width: int, bands: int = 1) -> Iterator[slice]:
    """Yield the rows of each strip, from above."""
    step = max(1, _PIXELS // max(width * bands, 1))
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))


def blocks(height: int, width: int, bands: int = 1) -> Iterator[tuple[slice, slice]]:
    """Yield rows and columns of each strip, of which a row of a long picture is several."""
    step = max(1, _PIXELS // bands)
    for rows in strips(height, width, bands):
        for left in range(0, width, step):
            yield rows, slice(left, min(left + step, width))


def image_blocks(image: Image.Image) -> Iterator[tuple[tuple[slice, slice], Image.Image]]:
    """Yield rows and columns of each block of an image, and the block."""
    for rows, columns in blocks(image.height, image.width):
        yield (rows, columns), image.crop((columns.start, rows.start, columns.stop, rows.stop))


def to_array(image: Image.Image) -> np.ndarray:
    """Return an image's values as numpy reads them, (h, w) or (h, w, n), without numpy's two copies of the whole."""
    whole: np.ndarray | None = None
    for place, block in image_blocks(image):
        values = np.asarray(block)
        if whole is None:
            whole = np.empty((image.height, image.width, *values.shape[2:]), values.dtype)
        whole[place] = values
    return np.asarray(image) if whole is None else whole

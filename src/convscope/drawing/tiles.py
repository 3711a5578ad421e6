"""Tiles: numbers and pictures painted at the size that they have on a sheet."""

from __future__ import annotations

import numpy as np
from PIL import Image

from . import colours
from .drawings import robust_limit
from .layout import Scale

_WIDTH = 960
_SMALLEST, _LARGEST = 56, 160


def tile_side(count: int) -> int:
    """Return the side of a tile in pixels when `count` of them stand in a row."""
    return max(_SMALLEST, min(_LARGEST, _WIDTH // max(count, 1)))


def fitted(
    image: Image.Image,
    room: int | tuple[int, int],
    *,
    reducing: Image.Resampling = Image.Resampling.LANCZOS,
) -> Image.Image:
    """Fit an image into a square, or (width, height), in proportion: square pixels when enlarged, smooth when reduced.

    `reducing` is the filter with which it is reduced.
    """
    width, height = (room, room) if isinstance(room, int) else room
    ratio = min(width / image.width, height / image.height)
    size = max(1, round(image.width * ratio)), max(1, round(image.height * ratio))
    return image.resize(size, Image.Resampling.NEAREST if ratio >= 1 else reducing)


def signed_scale(values: np.ndarray, unit: str = "") -> Scale:
    """Return a diverging scale for values of both signs, symmetric around zero."""
    limit = robust_limit(values)
    return _scale("polar", values, -limit, limit, unit)


def magnitude_scale(values: np.ndarray, unit: str = "") -> Scale:
    """Return a sequential scale from zero for values that are not negative."""
    return _scale("fire", values, 0.0, robust_limit(values), unit)


def _scale(name: str, values: np.ndarray, low: float, high: float, unit: str) -> Scale:
    return Scale(name, low, high, unit, bool(values.min() < low), bool(values.max() > high))


def painted(values: np.ndarray, scale: Scale, room: int | tuple[int, int]) -> Image.Image:
    """Paint values (h, w) in the colours of a scale, as large as they fit into a square or (width, height)."""
    image = Image.fromarray(colours.paint(values, scale.low, scale.high, scale.colours))
    # A box filter averages colours; others would overshoot to colours that are not on the scale.
    return fitted(image, room, reducing=Image.Resampling.BOX)

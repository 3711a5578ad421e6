"""Display: how pixels of any number of bands become an 8-bit picture to look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .strips import strips

_ENDS = (0.005, 0.995)
_NARROW = 0.5
_LOOKED_AT = 1 << 24


def default_bands(count: int) -> tuple[int, ...]:
    """Return the bands that are shown of `count`: the first three as red, green and blue, or the first one in grey."""
    return (0, 1, 2) if count >= 3 else (0,)


def to_image(pixels: np.ndarray, bands: Sequence[int] = ()) -> Image.Image:
    """Turn values in [0, 1] of shape (h, w) or (c, h, w) into an 8-bit image, grey or RGB.

    `bands` are one that is shown in grey or three that are shown as red, green and blue; `default_bands` when empty.
    """
    return _stretched(pixels, bands, 0.0, 1.0)


def _stretched(pixels: np.ndarray, bands: Sequence[int], black: float, white: float) -> Image.Image:
    """Show values (h, w) or (c, h, w) as an 8-bit image, `black` and `white` as its ends."""
    shown = [pixels] if pixels.ndim == 2 else [pixels[band] for band in bands or default_bands(len(pixels))]
    eight = np.empty((*pixels.shape[-2:], len(shown)), np.uint8)
    for rows in strips(*pixels.shape[-2:]):
        for number, band in enumerate(shown):
            values = band[rows] if (black, white) == (0.0, 1.0) else (band[rows] - black) / (white - black)
            eight[rows, :, number] = np.rint(np.clip(values, 0, 1) * 255)
    return Image.fromarray(eight[:, :, 0] if len(shown) == 1 else eight)


@dataclass(frozen=True)
class Display:
    """Which bands are shown, and the values, in [0, 1], that are shown as black and white."""

    bands: tuple[int, ...] = ()
    black: float = 0.0
    white: float = 1.0

    @classmethod
    def of(cls, pixels: np.ndarray, bands: Sequence[int] = ()) -> Display:
        """Show bands of pixels (c, h, w), stretched where 99 % of their values fill less than half of [0, 1].

        Of more than 16 million pixels, every second, third, ... row and column is looked at.
        """
        step = math.ceil(math.sqrt(pixels[0].size / _LOOKED_AT)) or 1
        shown = pixels[:, ::step, ::step][list(bands or default_bands(len(pixels)))]
        low, high = (float(end) for end in np.quantile(shown, _ENDS, overwrite_input=True))
        if not 0 < high - low < _NARROW:
            return cls(tuple(bands))
        return cls(tuple(bands), low, high)

    @property
    def stretched(self) -> bool:
        """Whether black and white are other values than 0 and 1."""
        return (self.black, self.white) != (0.0, 1.0)

    def image(self, pixels: np.ndarray) -> Image.Image:
        """Show pixels (c, h, w) as an 8-bit image."""
        return _stretched(pixels, self.bands, self.black, self.white)

"""Display: how pixels of any number of bands become an 8-bit picture to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

_ENDS = (0.005, 0.995)
_NARROW = 0.5


def default_bands(count: int) -> tuple[int, ...]:
    """Return the bands that are shown of `count`: the first three as red, green and blue, or the first one in grey."""
    return (0, 1, 2) if count >= 3 else (0,)


def to_image(pixels: np.ndarray, bands: Sequence[int] = ()) -> Image.Image:
    """Turn values in [0, 1] of shape (h, w) or (c, h, w) into an 8-bit image, grey or RGB.

    `bands` are one that is shown in grey or three that are shown as red, green and blue; `default_bands` when empty.
    """
    if pixels.ndim == 3:
        shown = pixels[list(bands or default_bands(len(pixels)))]
        pixels = shown[0] if len(shown) == 1 else shown.transpose(1, 2, 0)
    return Image.fromarray(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8))


@dataclass(frozen=True)
class Display:
    """Which bands are shown, and the values, in [0, 1], that are shown as black and white."""

    bands: tuple[int, ...] = ()
    black: float = 0.0
    white: float = 1.0

    @classmethod
    def of(cls, pixels: np.ndarray, bands: Sequence[int] = ()) -> Display:
        """Show bands of pixels (c, h, w), stretched where 99 % of their values fill less than half of [0, 1]."""
        shown = pixels[list(bands or default_bands(len(pixels)))]
        low, high = (float(end) for end in np.quantile(shown, _ENDS))
        if not 0 < high - low < _NARROW:
            return cls(tuple(bands))
        return cls(tuple(bands), low, high)

    @property
    def stretched(self) -> bool:
        """Whether black and white are other values than 0 and 1."""
        return (self.black, self.white) != (0.0, 1.0)

    def image(self, pixels: np.ndarray) -> Image.Image:
        """Show pixels (c, h, w) as an 8-bit image."""
        if self.stretched:
            pixels = (pixels - self.black) / (self.white - self.black)
        return to_image(pixels, self.bands)

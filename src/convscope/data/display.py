"""Display: how pixels of any number of bands become an 8-bit picture to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .strips import strips

_ENDS = (0.005, 0.995)
_NARROW = 0.5


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
    height, width = shown[0].shape
    image = Image.new("L" if len(shown) == 1 else "RGB", (width, height))
    for rows in strips(height, width):
        values = np.stack([band[rows] for band in shown], 2)
        values = values if (black, white) == (0.0, 1.0) else (values - black) / (white - black)
        eight = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
        image.paste(Image.fromarray(eight[:, :, 0] if len(shown) == 1 else eight), (0, rows.start))
    return image


@dataclass(frozen=True)
class Display:
    """Which bands are shown, and the values, in [0, 1], that are shown as black and white."""

    bands: tuple[int, ...] = ()
    black: float = 0.0
    white: float = 1.0

    @classmethod
    def of(cls, pixels: np.ndarray, bands: Sequence[int] = ()) -> Display:
        """Show bands of pixels (c, h, w), stretched where 99 % of their values fill less than half of [0, 1]."""
        shown = [pixels[band] for band in bands or default_bands(len(pixels))]
        low, high = (_quantile(shown, end) for end in _ENDS)
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


def _quantile(bands: Sequence[np.ndarray], share: float) -> float:
    """Return what `np.quantile` does of bands (h, w) of float32, without its copy of all of them."""
    position = share * (sum(band.size for band in bands) - 1)
    below = int(position)
    ends = [_ranked(bands, below), _ranked(bands, min(below + 1, sum(band.size for band in bands) - 1))]
    return float(np.quantile(ends, [position - below])[0])


def _ranked(bands: Sequence[np.ndarray], rank: int) -> np.float32:
    """Return the value that `rank` values precede, found by the bits of float32, which are in the order of the values.

    The upper half of its bits is the first whose count reaches the rank, and so is the lower half among those.
    """
    bits = 0
    for shift in (16, 0):
        counts = np.zeros(1 << 16, np.int64)
        for band in bands:
            for rows in strips(*band.shape):
                values = _ordered(band[rows].ravel().astype(np.float32))
                values = values if shift else values[values >> 16 == bits >> 16]
                counts += np.bincount(values >> shift & 0xFFFF, minlength=1 << 16)
        reached = np.cumsum(counts)
        bin = int(np.searchsorted(reached, rank, side="right"))
        rank -= int(reached[bin - 1]) if bin else 0
        bits |= bin << shift
    return np.uint32(bits & 0x7FFFFFFF if bits >> 31 else ~bits & 0xFFFFFFFF).view(np.float32)


def _ordered(values: np.ndarray) -> np.ndarray:
    """Return the bits of float32 as whole numbers in the order of the values: negative ones have theirs reversed."""
    bits = values.view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))

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
        low, high = _quantiles(shown, _ENDS)
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


def _quantiles(bands: Sequence[np.ndarray], shares: Sequence[float]) -> list[float]:
    """Return what `np.quantile` does of bands (h, w) of float32, without its copy of all of them."""
    last = sum(band.size for band in bands) - 1
    below = [int(share * last) for share in shares]
    ends = _ranked(bands, [rank for low in below for rank in (low, min(low + 1, last))])
    between = [share * last - low for share, low in zip(shares, below, strict=True)]
    pairs = zip(ends[::2], ends[1::2], strict=True)
    return [float(np.quantile(pair, [part])[0]) for pair, part in zip(pairs, between, strict=True)]


def _ranked(bands: Sequence[np.ndarray], ranks: Sequence[int]) -> list[np.float32]:
    """Return the values that so many values precede, found by the bits of float32, in the order of the values.

    The upper half of its bits is the first whose count reaches the rank, and so is the lower half among those.
    """
    upper = _counted(bands, None)
    bins = np.searchsorted(upper, ranks, side="right")
    lower = {int(bin): _counted(bands, int(bin)) for bin in set(bins)}
    found: list[np.float32] = []
    for rank, bin in zip(ranks, map(int, bins), strict=True):
        rest = rank - (int(upper[bin - 1]) if bin else 0)
        bits = bin << 16 | int(np.searchsorted(lower[bin], rest, side="right"))
        found.append(np.uint32(bits & 0x7FFFFFFF if bits >> 31 else ~bits & 0xFFFFFFFF).view(np.float32))
    return found


def _counted(bands: Sequence[np.ndarray], upper: int | None) -> np.ndarray:
    """Count values up to each upper half of their bits, or, among those of one upper half, up to each lower half."""
    counts = np.zeros(1 << 16, np.int64)
    for band in bands:
        for rows in strips(*band.shape):
            bits = _ordered(np.ascontiguousarray(band[rows], np.float32).ravel())
            halves = (bits >> 16).astype(np.uint16)
            if upper is not None:
                halves = bits[halves == upper].astype(np.uint16)
            counts += np.bincount(halves, minlength=1 << 16)
    return np.cumsum(counts)


def _ordered(values: np.ndarray) -> np.ndarray:
    """Return the bits of float32 as whole numbers in the order of the values: negative ones have theirs reversed."""
    bits = values.view(np.uint32)
    return bits ^ ((bits >> 31) * np.uint32(0x7FFFFFFF) | np.uint32(1 << 31))

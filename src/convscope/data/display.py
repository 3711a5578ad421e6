"""Display: how pixels of any number of bands become an 8-bit picture to look at."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from .rasters import Raster

_ENDS = (0.005, 0.995)
_NARROW = 0.5


def default_bands(count: int) -> tuple[int, ...]:
    """Return the bands that are shown of `count`: the first three as red, green and blue, or the first one in grey."""
    return (0, 1, 2) if count >= 3 else (0,)


def to_image(pixels: np.ndarray, bands: Sequence[int] = ()) -> Image.Image:
    """Turn values in [0, 1] of shape (h, w) or (c, h, w) into an 8-bit image, grey or RGB.

    `bands` are one that is shown in grey or three that are shown as red, green and blue; `default_bands` when empty.
    """
    return Display(tuple(bands)).image(pixels)


def in_8_bits(raster: Raster, name: str) -> Image.Image:
    """Return a raster as an 8-bit grey or RGB picture, opacity laid on white. Raises PictureError for other bands."""
    whole, _, _ = raster.pixels(None, name)
    return Display().image(whole.with_bands(raster.bands if raster.bands in (1, 3) else 3, name)[0])


Window = tuple[float, float] | Literal["auto"]
"""The values that are shown as black and white, as they are stored, or "auto"."""


@dataclass(frozen=True)
class Display:
    """Which bands are shown, and the values, in [0, 1], that are shown as black and white."""

    bands: tuple[int, ...] = ()
    black: float = 0.0
    white: float = 1.0

    @classmethod
    def of(
        cls,
        raster: Raster,
        bands: Sequence[int] = (),
        window: Window | None = None,
        ends: tuple[float, float] = (0.0, 1.0),
    ) -> Display:
        """Show bands of a raster whose 0 and 1 stand for the values `ends`.

        `window` are the values of black and white, or "auto" for those that 99% of the values lie between; without it
        values are stretched so where they would fill less than half of [0, 1].
        """
        if window is not None and not isinstance(window, str):
            black, white = ((value - ends[0]) / (ends[1] - ends[0]) for value in window)
            return cls(tuple(bands), black, white)
        low, high = _quantiles(raster, bands or default_bands(raster.bands), _ENDS)
        if not 0 < high - low < (np.inf if window else _NARROW):
            return cls(tuple(bands))
        return cls(tuple(bands), low, high)

    @property
    def stretched(self) -> bool:
        """Whether black and white are other values than 0 and 1."""
        return (self.black, self.white) != (0.0, 1.0)

    def image(self, pixels: np.ndarray | Raster) -> Image.Image:
        """Show pixels (h, w) or (c, h, w), or a raster, as an 8-bit image."""
        raster = pixels if isinstance(pixels, Raster) else Raster.of(pixels)
        bands = self.bands or default_bands(raster.bands)
        image = Image.new("L" if len(bands) == 1 else "RGB", raster.size)
        for rows, columns in raster.blocks():
            values = _shown(raster.read(rows, columns), bands)
            values = (values - self.black) / (self.white - self.black) if self.stretched else values
            eight = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
            block = Image.fromarray(eight[:, :, 0] if len(bands) == 1 else eight)
            image.paste(block, (columns.start, rows.start))
        return image


def _quantiles(raster: Raster, bands: Sequence[int], shares: Sequence[float]) -> list[float]:
    """Return what `np.quantile` does of bands of a raster, without its copy of all of them."""
    last = math.prod(raster.size) * len(bands) - 1
    below = [int(share * last) for share in shares]
    ends = _ranked(raster, bands, [rank for low in below for rank in (low, min(low + 1, last))])
    between = [share * last - low for share, low in zip(shares, below, strict=True)]
    pairs = zip(ends[::2], ends[1::2], strict=True)
    return [float(np.quantile(pair, [part])[0]) for pair, part in zip(pairs, between, strict=True)]


def _ranked(raster: Raster, bands: Sequence[int], ranks: Sequence[int]) -> list[np.float32]:
    """Return the values that so many values precede, found by the bits of float32, in the order of the values.

    The upper half of its bits is the first whose count reaches the rank, and so is the lower half among those.
    """
    upper = np.zeros(1 << 16, np.int64)
    for bits in _bits(raster, bands):
        upper += np.bincount(bits >> 16, minlength=1 << 16)
    upper = upper.cumsum()
    halves = np.searchsorted(upper, ranks, side="right")
    lower = {int(half): np.zeros(1 << 16, np.int64) for half in halves}
    for bits in _bits(raster, bands):
        halves_here = bits >> 16
        for half in lower:
            lower[half] += np.bincount(bits[halves_here == half] & 0xFFFF, minlength=1 << 16)
    found: list[np.float32] = []
    for rank, half in zip(ranks, map(int, halves), strict=True):
        rest = rank - (int(upper[half - 1]) if half else 0)
        bits = half << 16 | int(np.searchsorted(lower[half].cumsum(), rest, side="right"))
        found.append(np.uint32(bits & 0x7FFFFFFF if bits >> 31 else ~bits & 0xFFFFFFFF).view(np.float32))
    return found


def _bits(raster: Raster, bands: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield the bits of a raster's values, block by block."""
    for rows, columns in raster.blocks():
        yield _ordered(_shown(raster.read(rows, columns), bands).ravel())


def _shown(values: np.ndarray, bands: Sequence[int]) -> np.ndarray:
    all_of_them = tuple(bands) == tuple(range(values.shape[2]))
    return values if all_of_them else values[:, :, list(bands)]


def _ordered(values: np.ndarray) -> np.ndarray:
    """Return the bits of float32 as whole numbers in the order of the values: negative ones have theirs reversed."""
    bits = values.view(np.uint32)
    return bits ^ ((bits >> 31) * np.uint32(0x7FFFFFFF) | np.uint32(1 << 31))
